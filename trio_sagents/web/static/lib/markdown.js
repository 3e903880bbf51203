// @ts-check
/**
 * Markdown that is written while it streams, as nodes of the document: nothing is parsed again, and no text becomes markup.
 *
 * What a model writes is not trusted. Only the tags and attributes of the tables below are made. A link goes to http, https or mailto.
 * An image would tell its server that somebody reads this, so it is shown as a link.
 */

import * as smd from "./vendor/smd.js";

/** @type {Readonly<Record<number, string>>} */
const TAGS = {
  [smd.PARAGRAPH]: "p", [smd.HEADING_1]: "h3", [smd.HEADING_2]: "h4", [smd.HEADING_3]: "h5", [smd.HEADING_4]: "h6", [smd.HEADING_5]: "h6",
  [smd.HEADING_6]: "h6", [smd.CODE_INLINE]: "code", [smd.ITALIC_AST]: "em", [smd.ITALIC_UND]: "em", [smd.STRONG_AST]: "strong",
  [smd.STRONG_UND]: "strong", [smd.STRIKE]: "s", [smd.LINK]: "a", [smd.RAW_URL]: "a", [smd.IMAGE]: "a", [smd.BLOCKQUOTE]: "blockquote",
  [smd.LINE_BREAK]: "br", [smd.RULE]: "hr", [smd.LIST_UNORDERED]: "ul", [smd.LIST_ORDERED]: "ol", [smd.LIST_ITEM]: "li",
  [smd.TABLE]: "table", [smd.TABLE_ROW]: "tr", [smd.TABLE_CELL]: "td", [smd.EQUATION_BLOCK]: "pre", [smd.EQUATION_INLINE]: "code",
};
const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/** @param {string} target @returns {string | null} */
export function safeLink(target) {
  try {
    const url = new URL(target);
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/** @param {{nodes: Element[]}} data @param {string} tag @param {boolean} [isInner] */
function open(data, tag, isInner = false) {
  const parent = data.nodes[data.nodes.length - 1];
  const node = document.createElement(tag);
  parent.append(node);
  if (isInner) data.nodes[data.nodes.length - 1] = node;
  else data.nodes.push(node);
  return node;
}

/** @param {Element} root */
function renderer(root) {
  return {
    data: { nodes: [root] },
    /** @param {{nodes: Element[]}} data @param {number} type */
    add_token(data, type) {
      if (type === smd.DOCUMENT) return;
      if (type === smd.CODE_BLOCK || type === smd.CODE_FENCE) {
        const block = open(data, "pre");
        block.tabIndex = 0; // it can be wider than the page, and is scrolled with the keyboard
        open(data, "code", true);
      } else if (type === smd.CHECKBOX) {
        const box = /** @type {HTMLInputElement} */ (open(data, "input"));
        box.type = "checkbox";
        box.disabled = true;
        box.ariaLabel = "to do";
      } else {
        open(data, TAGS[type] ?? "span");
      }
    },
    /** @param {{nodes: Element[]}} data */
    end_token(data) {
      if (data.nodes.length > 1) data.nodes.pop();
    },
    /** @param {{nodes: Element[]}} data @param {string} text */
    add_text(data, text) {
      data.nodes[data.nodes.length - 1].append(text);
    },
    /** @param {{nodes: Element[]}} data @param {number} type @param {string} value */
    set_attr(data, type, value) {
      const node = data.nodes[data.nodes.length - 1];
      if (type === smd.HREF || type === smd.SRC) {
        const target = safeLink(value);
        if (target === null) return;
        node.setAttribute("href", target);
        node.setAttribute("rel", "noopener noreferrer nofollow");
        node.setAttribute("target", "_blank");
      } else if (type === smd.START && /^[0-9]{1,9}$/.test(value)) {
        node.setAttribute("start", value);
      } else if (type === smd.CHECKED) {
        node.setAttribute("checked", "");
        node.ariaLabel = "done";
      } else if (type === smd.LANG && /^[\w+#.-]{1,30}$/.test(value)) {
        node.setAttribute("data-language", value);
      }
    },
  };
}

/** Writes Markdown into an element, piece by piece. */
export class MarkdownWriter {
  /** @param {Element} root */
  constructor(root) {
    this.parser = smd.parser(renderer(root));
  }

  /** @param {string} text */
  write(text) {
    if (text !== "") smd.parser_write(this.parser, text);
  }

  end() {
    smd.parser_end(this.parser);
  }
}

// @ts-check
/** Pieces that both pages draw: texts, tool calls, arguments, changes of files. */

import { changesOf } from "./diff.js";
import { MarkdownWriter } from "./markdown.js";
import { html, Component } from "./vendor/preact-htm.js";

/** A sum of money, to two digits that say something. @param {number | undefined} cost @param {string | null} currency */
export function money(cost, currency) {
  if (!cost || currency === null) return "";
  return new Intl.NumberFormat(undefined, { style: "currency", currency, maximumFractionDigits: cost < 0.1 ? 5 : 2 }).format(cost);
}

/** A text that is complete, or grows: what was written is not looked at again. */
export class Markdown extends Component {
  shouldComponentUpdate() {
    return false;
  }

  componentDidMount() {
    this.begin(this.props);
  }

  /** @param {any} props */
  componentWillReceiveProps(props) {
    if (props.version === this.version && props.text.length >= this.written) this.write(props.text);
    else this.begin(props);
  }

  componentWillUnmount() {
    this.writer = null;
  }

  /** @param {any} props */
  begin(props) {
    this.base.replaceChildren();
    this.writer = new MarkdownWriter(this.base);
    this.version = props.version;
    this.written = 0;
    this.write(props.text);
    if (props.isDone) this.writer.end();
  }

  /** @param {string} text */
  write(text) {
    if (text.length > this.written) this.writer.write(text.slice(this.written));
    this.written = text.length;
  }

  render() {
    return html`<div class="markdown"></div>`;
  }
}

/** @param {{text: string}} props */
export function Plain({ text }) {
  return html`<div class="plain">${text}</div>`;
}

const MARKS = { same: "  ", old: "− ", new: "+ " };

/** @param {{given: Record<string, any>}} props */
export function Arguments({ given }) {
  const changes = changesOf(given);
  if (changes !== null) {
    const path = given.path ?? given.file_path ?? "";
    return html`<figure class="diff">
      <figcaption>${path}</figcaption>
      <pre tabindex="0">${changes.map(
        (line) => html`<span class=${`line ${line.kind}`}>${MARKS[line.kind]}${line.text}${"\n"}</span>`,
      )}</pre>
    </figure>`;
  }
  const names = Object.keys(given);
  if (names.length === 0) return null;
  return html`<dl class="arguments">
    ${names.map((name) => html`<dt>${name}</dt><dd>${typeof given[name] === "string" ? given[name] : JSON.stringify(given[name])}</dd>`)}
  </dl>`;
}

/** @type {Readonly<Record<string, string>>} */
const WORDS = {
  pending: "waits to run", executing: "runs", completed: "done", failed: "failed", interrupted: "waits for you",
  cancelled: "cancelled", unknown: "outcome unknown",
};

/** @param {{item: any}} props */
export function ToolCall({ item }) {
  const { row, results, live } = item;
  const status = live?.status ?? row.status;
  const output = results.map((/** @type {any} */ result) => result.content.content ?? "").join("\n") || live?.output || live?.error || "";
  return html`<article class=${`row call ${status}`} aria-label=${`Tool call ${row.content.name}`}>
    <details>
      <summary><code>${row.content.name}</code> <span class="status">${WORDS[status] ?? status}</span></summary>
      <${Arguments} given=${row.content.arguments} />
      ${output !== "" && html`<pre class="output" tabindex="0">${output}</pre>`}
    </details>
    ${results.filter((/** @type {any} */ result) => result.content_type !== "tool_result")
      .map((/** @type {any} */ result) => html`<${Media} row=${result} />`)}
  </article>`;
}

/** @param {{row: any}} props */
export function Media({ row }) {
  const { content } = row;
  if (row.content_type !== "image") return html`<p class="file">📎 ${content.name ?? "file"} <small>${content.mime_type}</small></p>`;
  if (content.url) return html`<p class="file">🖼 <a href=${content.url} rel="noopener noreferrer" target="_blank">${content.url}</a></p>`;
  if (!/^image\/(png|jpeg|gif|webp)$/.test(content.mime_type)) return html`<p class="file">🖼 ${content.mime_type}</p>`;
  return html`<img class="image" alt="an attached image" src=${`data:${content.mime_type};base64,${content.data}`} />`;
}

/** @type {Readonly<Record<string, string>>} */
const SPEAKERS = { user: "You", assistant: "Agent", system: "Note", tool: "Tool" };

/** @param {{row: any}} props */
export function TextRow({ row }) {
  const { content, content_type: type, role } = row;
  const speaker = SPEAKERS[role] ?? role;
  if (type === "thinking")
    return html`<article class="row thinking"><details><summary>Thinking</summary><${Plain} text=${content.text} /></details></article>`;
  if (type === "image" || type === "file_reference")
    return html`<article class=${`row ${role}`} aria-label=${speaker}><${Media} row=${row} /></article>`;
  if (type === "error") return html`<article class="row error" aria-label="Error"><p><strong>The turn failed.</strong> ${content.text}</p></article>`;
  if (type !== "text" && type !== "answer") return html`<article class="row note" aria-label="Note"><${Plain} text=${content.text ?? JSON.stringify(content)} /></article>`;
  return html`<article class=${`row ${role}`} aria-label=${speaker}>
    <h2 class="speaker">${speaker}</h2>
    ${role === "user" ? html`<${Plain} text=${content.text} />` : html`<${Markdown} text=${content.text} version="row" isDone />`}
    ${content.stop_reason && html`<p class="cut">The answer is not whole: ${content.stop_reason}.</p>`}
  </article>`;
}

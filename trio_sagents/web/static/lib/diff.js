// @ts-check
/** What a file edit changes, line by line. Pure. */

const MOST_LINES = 2000;

/** @typedef {{kind: "same" | "old" | "new", text: string}} Line */

/**
 * @param {string} before @param {string} after
 * @returns {readonly Line[]}  the lines that stay, go and come, in order. Long texts are not compared: all old lines, then all new ones.
 */
export function diffLines(before, after) {
  const old = before === "" ? [] : before.split("\n");
  const fresh = after === "" ? [] : after.split("\n");
  let start = 0;
  while (start < old.length && start < fresh.length && old[start] === fresh[start]) start += 1;
  let end = 0;
  while (end < old.length - start && end < fresh.length - start && old[old.length - 1 - end] === fresh[fresh.length - 1 - end]) end += 1;
  const same = (/** @type {string} */ text) => /** @type {Line} */ ({ kind: "same", text });
  return [
    ...old.slice(0, start).map(same),
    ...middle(old.slice(start, old.length - end), fresh.slice(start, fresh.length - end)),
    ...old.slice(old.length - end).map(same),
  ];
}

/** @param {string[]} old @param {string[]} fresh @returns {Line[]} */
function middle(old, fresh) {
  const gone = (/** @type {string} */ text) => /** @type {Line} */ ({ kind: "old", text });
  const come = (/** @type {string} */ text) => /** @type {Line} */ ({ kind: "new", text });
  if (old.length * fresh.length > MOST_LINES * MOST_LINES / 4) return [...old.map(gone), ...fresh.map(come)];
  // longest[i][j] is the length of the longest common subsequence of old[i:] and fresh[j:].
  const longest = Array.from({ length: old.length + 1 }, () => new Uint16Array(fresh.length + 1));
  for (let i = old.length - 1; i >= 0; i -= 1)
    for (let j = fresh.length - 1; j >= 0; j -= 1)
      longest[i][j] = old[i] === fresh[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
  /** @type {Line[]} */
  const lines = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < fresh.length) {
    if (i < old.length && j < fresh.length && old[i] === fresh[j]) {
      lines.push({ kind: "same", text: old[i] });
      i += 1;
      j += 1;
    } else if (j === fresh.length || (i < old.length && longest[i + 1][j] >= longest[i][j + 1])) {
      lines.push(gone(old[i]));
      i += 1;
    } else {
      lines.push(come(fresh[j]));
      j += 1;
    }
  }
  return lines;
}

const PAIRS = [["old_text", "new_text"], ["old_string", "new_string"], ["old", "new"], ["search", "replace"]];

/**
 * The lines that a call changes, if its arguments say so: an old text and a new text, or a path and the whole text of the file.
 * @param {Record<string, any>} given @returns {readonly Line[] | null}
 */
export function changesOf(given) {
  for (const [before, after] of PAIRS)
    if (typeof given[before] === "string" && typeof given[after] === "string") return diffLines(given[before], given[after]);
  const path = given.path ?? given.file_path;
  const text = given.content ?? given.text;
  return typeof path === "string" && typeof text === "string" ? diffLines("", text) : null;
}

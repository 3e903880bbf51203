// @ts-check
/** Where a person writes: a text, attached files, and Stop while a turn runs. */

import { html, useRef, useState } from "./vendor/preact-htm.js";

const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);
const MOST_BYTES = 1_000_000;

/** @param {File} file @returns {Promise<any>} */
async function partOf(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  const data = String(url).slice(String(url).indexOf(",") + 1);
  const type = file.type || "application/octet-stream";
  return IMAGES.has(type) ? { type: "image", media_type: type, data } : { type: "file", name: file.name, media_type: type, data };
}

/**
 * @param {{isRunning: boolean, canStop: boolean, isEnded: boolean, onStop: () => void,
 *   onPost: (text: string, parts: any[], overlap: string) => void}} props
 */
export function Composer({ isRunning, canStop, isEnded, onStop, onPost }) {
  const [text, setText] = useState("");
  const [files, setFiles] = useState(/** @type {{name: string, part: any}[]} */ ([]));
  const [overlap, setOverlap] = useState("queue");
  const [problem, setProblem] = useState("");
  const input = useRef(/** @type {any} */ (null));
  const isEmpty = text.trim() === "" && files.length === 0;
  const send = () => {
    if (isEmpty || isEnded) return;
    onPost(text.trim(), files.map((file) => file.part), isRunning ? overlap : "queue");
    setText("");
    setFiles([]);
  };
  const attach = async (/** @type {Iterable<File>} */ given) => {
    setProblem("");
    for (const file of given) {
      if (file.size > MOST_BYTES) setProblem(`${file.name} is larger than ${MOST_BYTES / 1e6} MB`);
      else {
        const part = await partOf(file);
        setFiles((known) => [...known, { name: file.name, part }]);
      }
    }
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };
  return html`<form class="composer" aria-label="Write a message" onSubmit=${(/** @type {any} */ e) => { e.preventDefault(); send(); }}
      onDragOver=${(/** @type {any} */ e) => e.preventDefault()}
      onDrop=${(/** @type {any} */ e) => { e.preventDefault(); attach(e.dataTransfer.files); }}>
    ${files.length > 0 && html`<ul class="attached">${files.map((file, index) => html`<li>${file.name}
      <button type="button" aria-label=${`Remove ${file.name}`} onClick=${() => setFiles(files.filter((_, i) => i !== index))}>×</button></li>`)}</ul>`}
    <label class="hidden" for="message">Message</label>
    <textarea id="message" rows="2" placeholder="Write a message" value=${text} disabled=${isEnded} onKeyDown=${onKey}
      onInput=${(/** @type {any} */ e) => setText(e.target.value)}
      onPaste=${(/** @type {any} */ e) => { if (e.clipboardData.files.length > 0) { e.preventDefault(); attach(e.clipboardData.files); } }}></textarea>
    <div class="buttons">
      <input ref=${input} class="hidden" id="files" type="file" multiple tabindex="-1" aria-label="Files to attach"
        onChange=${(/** @type {any} */ e) => { attach(e.target.files); e.target.value = ""; }} />
      <button type="button" onClick=${() => input.current.click()}>Attach</button>
      <span class="space"></span>
      ${isRunning && html`<label class="overlap">While it runs:
        <select value=${overlap} onChange=${(/** @type {any} */ e) => setOverlap(e.target.value)}>
          <option value="queue">wait in the queue</option><option value="steer">join the running turn</option>
          <option value="interrupt">stop it, then answer this</option></select></label>`}
      ${isRunning && html`<button type="button" class="stop" disabled=${!canStop} onClick=${onStop}>Stop</button>`}
      <button class="primary" disabled=${isEmpty || isEnded}>Send</button>
    </div>
    ${problem !== "" && html`<p class="problem" role="alert">${problem}</p>`}
  </form>`;
}

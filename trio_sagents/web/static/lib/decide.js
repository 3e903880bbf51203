// @ts-check
/** What waits for a person: approvals, questions and halts. */

import { Arguments } from "./parts.js";
import { html, useState } from "./vendor/preact-htm.js";

/** @param {any} call @param {object} more */
function decision(call, more) {
  return { interrupt_id: call.interrupt_id, call_id: call.call_id, digest: call.digest, ...more };
}

/** @type {Readonly<Record<string, any>>} */
const KINDS = { approval: Approval, question: Ask, halt: Halt };

/** @param {{interrupt: any, decide: (decisions: object[]) => Promise<any>, dismiss: (interruptId: string) => Promise<any>}} props */
export function Decisions({ interrupt, decide, dismiss }) {
  const [problem, setProblem] = useState("");
  const [isBusy, setBusy] = useState(false);
  if (interrupt.interrupt_id === "")
    return html`<section class="waits" aria-label="Waits for you">
      <p>${interrupt.calls.map((/** @type {any} */ call) => call.name).join(", ")} will wait for you, when what runs has ended.</p>
    </section>`;
  const attempt = async (/** @type {() => Promise<any>} */ what) => {
    setBusy(true);
    setProblem("");
    try {
      await what();
    } catch (error) {
      setProblem(/** @type {Error} */ (error).message);
    }
    setBusy(false);
  };
  const onDecide = (/** @type {object} */ decided) => attempt(() => decide([decided]));
  return html`<section class="waits" aria-label="Waits for you" aria-busy=${isBusy}>
    ${interrupt.calls.map((/** @type {any} */ call) => {
      const kind = KINDS[call.kind] ?? Halt;
      return html`<${kind} key=${call.call_id} call=${call} onDecide=${onDecide}
        onDismiss=${() => attempt(() => dismiss(interrupt.interrupt_id))} />`;
    })}
    ${interrupt.expires_at && html`<p class="small">If nobody decides, it is rejected at ${new Date(interrupt.expires_at).toLocaleString()}.</p>`}
    ${problem !== "" && html`<p class="problem" role="alert">${problem}</p>`}
  </section>`;
}

/** @param {{call: any}} props */
function Heading({ call }) {
  const from = call.path.length > 0 ? ` (from ${call.path.join(" → ")})` : "";
  return html`<h3><code>${call.name}</code>${from}${call.asked_before > 0 ? " asks again" : ""}</h3>
    ${call.text !== "" && html`<p>${call.text}</p>`}`;
}

/** @param {{call: any, onDecide: (decided: object) => void}} props */
function Approval({ call, onDecide }) {
  const [mode, setMode] = useState("");
  const [text, setText] = useState("");
  const [problem, setProblem] = useState("");
  const onEdit = () => {
    try {
      const edited = JSON.parse(text);
      if (edited === null || typeof edited !== "object" || Array.isArray(edited)) throw new Error("the arguments are a JSON object");
      onDecide(decision(call, { type: "edit", arguments: edited }));
    } catch (error) {
      setProblem(/** @type {Error} */ (error).message);
    }
  };
  const start = (/** @type {string} */ to, /** @type {string} */ content) => {
    setMode(mode === to ? "" : to);
    setText(content);
    setProblem("");
  };
  const allows = (/** @type {string} */ kind) => call.allowed.includes(kind);
  return html`<div class="decision">
    <${Heading} call=${call} />
    <${Arguments} given=${call.arguments} />
    <div class="buttons">
      ${allows("approve") && html`<button class="primary" onClick=${() => onDecide(decision(call, { type: "approve" }))}>Approve</button>`}
      ${allows("edit") && html`<button aria-expanded=${mode === "edit"}
        onClick=${() => start("edit", JSON.stringify(call.arguments, null, 2))}>Edit</button>`}
      ${allows("reject") && html`<button aria-expanded=${mode === "reject"} onClick=${() => start("reject", "")}>Reject</button>`}
    </div>
    ${mode !== "" && html`<label>${mode === "edit" ? "Arguments (JSON)" : "Why (the model reads it)"}
      <textarea rows=${mode === "edit" ? 8 : 2} value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)}></textarea></label>
      <div class="buttons">
        ${mode === "edit" && html`<button class="primary" onClick=${onEdit}>Run with these arguments</button>`}
        ${mode === "reject" && html`<button class="primary" onClick=${() => onDecide(decision(call, { type: "reject", reason: text }))}>Reject it</button>`}
      </div>`}
    ${problem !== "" && html`<p class="problem" role="alert">${problem}</p>`}
  </div>`;
}

/** @param {{call: any, onDecide: (decided: object) => void}} props */
function Ask({ call, onDecide }) {
  const { question } = call;
  const [chosen, setChosen] = useState(/** @type {string[]} */ ([]));
  const [other, setOther] = useState("");
  const isText = question.kind === "text";
  const toggle = (/** @type {string} */ value) => {
    if (question.kind === "single") setChosen([value]);
    else setChosen(chosen.includes(value) ? chosen.filter((picked) => picked !== value) : [...chosen, value]);
  };
  const answer = () => {
    const value = question.kind === "multi" ? chosen : chosen[0];
    const more = isText ? { value: other } : other !== "" ? { ...(chosen.length > 0 && question.kind === "multi" ? { value } : {}), other } : { value };
    onDecide(decision(call, { type: "answer", ...more }));
  };
  const name = `options-${call.call_id}`;
  const isEmpty = other === "" && chosen.length === 0;
  return html`<form class="decision" onSubmit=${(/** @type {any} */ e) => { e.preventDefault(); answer(); }}>
    <fieldset><legend>${question.text}</legend>
      ${question.options.map((/** @type {any} */ option) => html`<label class="option">
        <input type=${question.kind === "single" ? "radio" : "checkbox"} name=${name} checked=${chosen.includes(option.value)}
          onChange=${() => toggle(option.value)} /> ${option.label || option.value}</label>`)}
      ${(isText || question.allow_other) && html`<label>${isText ? "Your answer" : "Something else"}
        <textarea rows="2" value=${other} onInput=${(/** @type {any} */ e) => setOther(e.target.value)}></textarea></label>`}
    </fieldset>
    <div class="buttons">
      <button class="primary" disabled=${isEmpty}>Answer</button>
      ${question.allow_cancel && html`<button type="button" onClick=${() => onDecide(decision(call, { type: "answer", cancel: true }))}>Do not answer</button>`}
    </div>
  </form>`;
}

/** @param {{call: any, onDismiss: () => void}} props */
function Halt({ call, onDismiss }) {
  return html`<div class="decision">
    <${Heading} call=${call} />
    <p>The agent has stopped here. Acknowledge this, or write a message that goes on.</p>
    <div class="buttons"><button class="primary" onClick=${onDismiss}>Acknowledge</button></div>
  </div>`;
}

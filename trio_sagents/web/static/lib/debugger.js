// @ts-check
/** The debugger: the agents that live, and one conversation as a timeline, messages, requests, state, middleware and events. */

import { money, TextRow, ToolCall } from "./parts.js";
import { itemsOf } from "./reducer.js";
import { html, useState } from "./vendor/preact-htm.js";

const TABS = ["Timeline", "Messages", "Requests", "State", "Middleware", "Events"];
const LANES = /** @type {const} */ (["turn", "model", "tool", "sub-agent"]);
const WIDTH = 1000;
const HEIGHT = 26;

/** @param {any} props */
export function Debugger({ client, state, current, trace, made, navigate, follows, follow }) {
  return html`<div class="page debugger">
    <${Agents} client=${client} state=${state} current=${current} navigate=${navigate} follows=${follows} follow=${follow} />
    <main>
      ${state.link === "offline" && html`<p class="banner" role="status">Offline. The page catches up when the connection is back.</p>`}
      ${state.link === "open" && !state.mayDebug && html`<p class="banner ended" role="alert">You may not see the debug channel. Start the server with --debug, or
        return a Visitor with may_debug.</p>`}
      ${current === "" || trace === undefined
        ? html`<header><h1>Debugger</h1></header><p class="empty">Choose an agent. What happens from then on is recorded here.</p>`
        : html`<${Conversation} key=${current} c=${state.conversations[current]} currency=${state.currency} trace=${trace} made=${made} />`}
    </main>
  </div>`;
}

/** @param {string} instant */
function age(instant) {
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(instant)) / 1000));
  return seconds < 90 ? `${seconds} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** @param {any} props */
function Agents({ client, state, current, navigate, follows, follow }) {
  const [filter, setFilter] = useState("");
  const [fresh, setFresh] = useState("");
  const [text, setText] = useState("");
  const shown = state.agents.filter((/** @type {any} */ a) => `${a.conversation_id} ${a.agent_id} ${a.status}`.includes(filter));
  const start = (/** @type {any} */ event) => {
    event.preventDefault();
    const id = fresh.trim() || crypto.randomUUID();
    navigate(id);
    client.open(id);
    client.post(id, text, [], "queue");
    setFresh("");
    setText("");
  };
  return html`<nav class="open" aria-label="Agents">
    <h1>Agents (${state.agents.length})</h1>
    <label>Filter <input value=${filter} onInput=${(/** @type {any} */ e) => setFilter(e.target.value)} /></label>
    <button aria-pressed=${follows} onClick=${() => follow(!follows)}>${follows ? "Waits for the next new agent" : "Follow the next new agent"}</button>
    <ul>${shown.map((/** @type {any} */ a) => html`<li key=${a.agent_id}><a href=${`#${encodeURIComponent(a.conversation_id)}`}
      aria-current=${a.conversation_id === current ? "page" : undefined}>${a.conversation_id}
      <small>${a.status}, up ${age(a.started_at)}, ${a.message_count} messages, ${a.viewers} watch${a.queued ? `, ${a.queued} queued` : ""}</small></a></li>`)}</ul>
    <details><summary>Start a conversation</summary><form onSubmit=${start}>
      <label>Id (empty: a new one) <input value=${fresh} onInput=${(/** @type {any} */ e) => setFresh(e.target.value)} /></label>
      <label>First message <textarea rows="3" required value=${text} onInput=${(/** @type {any} */ e) => setText(e.target.value)}></textarea></label>
      <button class="primary">Start</button></form></details>
    <p><a href="./">Chat</a></p>
  </nav>`;
}

/** @param {any} props */
function Conversation({ c, currency, trace, made }) {
  const [tab, setTab] = useState("Timeline");
  const [jump, setJump] = useState("");
  const go = (/** @type {string} */ cursor) => {
    setJump(cursor);
    setTab("Events");
  };
  const save = () => {
    const blob = new Blob([JSON.stringify({ conversation_id: c.id, rows: c.rows, middleware: made, ...trace }, null, 1)], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${c.id}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  };
  const panels = { Timeline, Messages, Requests, State, Middleware, Events };
  const Panel = /** @type {any} */ (panels)[tab];
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? TABS.length - 1 : 0;
    if (step === 0) return;
    const next = TABS[(TABS.indexOf(tab) + step) % TABS.length];
    setTab(next);
    document.getElementById(`tab-${next}`)?.focus();
  };
  return html`<header><h1>${c.title || c.id}</h1>
      <p class="facts">${c.status || "not running"} · ${Object.values(trace.usage).reduce((sum, u) => sum + /** @type {any} */ (u).input + /** @type {any} */ (u).output, 0)} tokens seen ${money(trace.cost, currency)}
        <button onClick=${save}>Export as JSON</button></p></header>
    <div class="tabs" role="tablist" aria-label="Views" onKeyDown=${onKey}>${TABS.map((name) => html`<button role="tab" id=${`tab-${name}`} tabindex=${tab === name ? 0 : -1}
      aria-selected=${tab === name} aria-controls="panel" onClick=${() => setTab(name)}>${name}</button>`)}</div>
    <div class="panel" id="panel" role="tabpanel" aria-labelledby=${`tab-${tab}`} tabindex="0"><${Panel} c=${c} currency=${currency} trace=${trace} made=${made} go=${go} jump=${jump} /></div>`;
}

/** @param {any} props */
function Timeline({ trace, currency, go }) {
  const { spans } = trace;
  if (spans.length === 0) return html`<p class="empty">Nothing has run since this page looks.</p>`;
  const first = spans[0].start;
  const last = Math.max(...spans.map((/** @type {any} */ s) => s.end ?? s.start), ...trace.entries.slice(-1).map((/** @type {any} */ e) => e.at), first + 1);
  const place = (/** @type {number} */ at) => ((at - first) / (last - first)) * WIDTH;
  return html`<svg class="timeline" viewBox=${`0 0 ${WIDTH} ${LANES.length * HEIGHT}`} preserveAspectRatio="none" role="img"
      aria-label=${`${spans.length} spans in ${((last - first) / 1000).toFixed(1)} seconds; the table below has them`}>
      ${spans.map((/** @type {any} */ s) => html`<rect class=${s.lane} x=${place(s.start)} y=${LANES.indexOf(s.lane) * HEIGHT + 3}
        width=${Math.max(2, place(s.end ?? last) - place(s.start))} height=${HEIGHT - 6} onClick=${() => go(s.cursor)}><title>${s.label}</title></rect>`)}</svg>
    <table><thead><tr><th>lane</th><th>what</th><th>begins</th><th>takes</th><th>tokens</th>${currency && html`<th>cost</th>`}<th>result</th></tr></thead>
      <tbody>${spans.map((/** @type {any} */ s) => html`<tr class=${s.lane}><td>${s.lane}</td><td><button onClick=${() => go(s.cursor)}>${s.label}</button></td>
        <td>${((s.start - first) / 1000).toFixed(2)} s</td><td>${s.end === null ? "runs" : `${((s.end - s.start) / 1000).toFixed(2)} s`}</td>
        <td>${s.usage ? `${s.usage.input_tokens} in, ${s.usage.output_tokens} out` : ""}</td>
        ${currency && html`<td>${money(s.cost, currency)}</td>`}
        <td>${s.result}${s.last?.length > 0 && html`<details><summary>last messages</summary>${s.last.map((/** @type {string} */ t) => html`<p>${t}</p>`)}</details>`}</td></tr>`)}</tbody></table>
    <h2>Tokens</h2><table><thead><tr><th>turn</th><th>model calls</th><th>in</th><th>out</th>${currency && html`<th>cost</th>`}</tr></thead>
      <tbody>${Object.entries(trace.usage).map(([turn, u]) => html`<tr><td>${turn}</td><td>${/** @type {any} */ (u).calls}</td><td>${/** @type {any} */ (u).input}</td><td>${/** @type {any} */ (u).output}</td>${currency && html`<td>${money(/** @type {any} */ (u).cost, currency)}</td>`}</tr>`)}</tbody></table>`;
}

/** @param {any} props */
function Messages({ c }) {
  let turn = "";
  return html`<div class="rows">${itemsOf(c.rows, c.calls).map((item) => {
    const heading = item.row?.turn_id && item.row.turn_id !== turn ? html`<h2>Turn ${item.row.turn_id}</h2>` : null;
    turn = item.row?.turn_id ?? turn;
    return html`${heading}${item.kind === "call" ? html`<${ToolCall} item=${item} />` : item.kind === "row" ? html`<${TextRow} row=${item.row} />` : null}`;
  })}${c.streaming && html`<article class="row streaming">${c.streaming.parts.map((/** @type {any} */ p) => p && html`<p class="plain">${p.text}</p>`)}</article>`}</div>`;
}

/** @param {any} props */
function Requests({ trace }) {
  const calls = trace.spans.filter((/** @type {any} */ s) => s.request !== undefined);
  if (calls.length === 0) return html`<p class="empty">No model was asked since this page looks.</p>`;
  return html`${calls.map((/** @type {any} */ s, /** @type {number} */ i) => html`<details key=${s.key} open=${i === calls.length - 1}><summary>${s.label}: ${s.request.messages.length} messages,
    ${s.request.tools.length} tools. ${s.result || "runs"}</summary><pre tabindex="0">${JSON.stringify(s.request, null, 1)}</pre></details>`)}`;
}

/** @param {any} props */
function State({ trace }) {
  if (trace.state === null) return html`<p class="empty">The state comes at the end of the next turn.</p>`;
  return html`<h2>Changed by the last turn</h2><ul>${trace.changed.map((/** @type {string} */ place) => html`<li><code>${place}</code></li>`)}</ul>
    <h2>State</h2><pre tabindex="0">${JSON.stringify(trace.state, null, 1)}</pre>`;
}

/** @param {any} props */
function Middleware({ made, trace }) {
  return html`<h2>In this order, outermost first</h2>
    ${made ? html`<ol>${Object.entries(made.middleware).map(([id, told]) => html`<li><code>${id}</code><pre tabindex="0">${JSON.stringify(told, null, 1)}</pre></li>`)}</ol>` : html`<p>The agent does not run.</p>`}
    <h2>What it did</h2>${trace.actions.map((/** @type {any} */ e) => html`<p><code>${e.event.middleware_id}</code> ${JSON.stringify(e.event.data)}</p>`)}`;
}

/** @param {any} props */
function Events({ trace, jump }) {
  const [filter, setFilter] = useState("");
  const shown = trace.entries.filter((/** @type {any} */ e) => filter === "" || e.event.type.toLowerCase().includes(filter.toLowerCase())).slice(-300);
  const focus = (/** @type {any} */ node) => node?.scrollIntoView({ block: "center" });
  return html`<label>Filter <input value=${filter} onInput=${(/** @type {any} */ e) => setFilter(e.target.value)} /></label>
    ${shown.map((/** @type {any} */ e) => html`<details key=${`${e.channel}${e.cursor}`} open=${e.cursor === jump} ref=${e.cursor === jump ? focus : undefined}>
      <summary><time>${new Date(e.at).toISOString().slice(11, 23)}</time> ${e.event.type} <small>${e.channel}</small></summary>
      <pre tabindex="0">${JSON.stringify(e.event, null, 1)}</pre></details>`)}`;
}

// @ts-check
/** The chat page: the list of conversations, one conversation, and what people do with it. */

import { Composer } from "./composer.js";
import { Decisions } from "./decide.js";
import { Arguments, Markdown, money, Plain, TextRow, ToolCall } from "./parts.js";
import { itemsOf } from "./reducer.js";
import { Component, html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact-htm.js";

const NEAR = 80;
/** Pixels from the end of the log within which a reader follows what is new. */

/** @param {{client: any, state: any, current: string, navigate: (id: string) => void}} props */
export function Chat({ client, state, current, navigate }) {
  const [isOpen, setOpen] = useState(false);
  const c = state.conversations[current];
  const go = (/** @type {string} */ id) => {
    setOpen(false);
    navigate(id);
  };
  return html`<div class="page">
    <${Sidebar} state=${state} current=${current} navigate=${go} isOpen=${isOpen} onMore=${() => client.list(true)} />
    <main>
      <${Banner} state=${state} c=${c} />
      ${c === undefined
        ? html`<header><${Menu} isOpen=${isOpen} setOpen=${setOpen} /><h1>Conversations</h1></header>
            <p class="empty">Choose a conversation, or begin a new one.</p>`
        : html`<${Conversation} key=${current} client=${client} state=${state} c=${c} isOpen=${isOpen} setOpen=${setOpen} />`}
    </main>
  </div>`;
}

/** @param {{isOpen: boolean, setOpen: (open: boolean) => void}} props */
function Menu({ isOpen, setOpen }) {
  return html`<button class="menu" aria-expanded=${isOpen} aria-controls="sidebar" onClick=${() => setOpen(!isOpen)}>☰<span class="hidden">Conversations</span></button>`;
}

/** @param {{state: any, c: any}} props */
function Banner({ state, c }) {
  if (state.link === "ended") return html`<p class="banner ended" role="alert">You are not logged in any more. Log in, and load this page again.</p>`;
  if (state.link === "offline") return html`<p class="banner" role="status">Offline. The page catches up when the connection is back. What you write now is sent then.</p>`;
  if (c?.isUnread) return html`<p class="banner" role="status">The server cannot read this conversation now. What is missing comes as soon as it can.</p>`;
  return null;
}

/** @param {{state: any, current: string, navigate: (id: string) => void, isOpen: boolean, onMore: () => void}} props */
function Sidebar({ state, current, navigate, isOpen, onMore }) {
  const known = new Set(state.list.map((/** @type {any} */ item) => item.conversation_id));
  const fresh = Object.values(state.conversations).filter((c) => !known.has(c.id)).map((c) => ({ conversation_id: c.id, title: c.title }));
  const link = (/** @type {any} */ item, /** @type {string} */ note) => html`<li><a href=${`#${encodeURIComponent(item.conversation_id)}`}
    aria-current=${item.conversation_id === current ? "page" : undefined}
    onClick=${(/** @type {any} */ e) => { e.preventDefault(); navigate(item.conversation_id); }}>${titleOf(item.title, item.conversation_id)}
    ${note !== "" && html`<small>${note}</small>`}</a></li>`;
  return html`<nav id="sidebar" class=${isOpen ? "open" : ""} aria-label="Conversations">
    <button class="primary" onClick=${() => navigate(crypto.randomUUID())}>New conversation</button>
    ${state.waiting.length > 0 && html`<h2>Waits for you</h2>
      <ul>${state.waiting.map((/** @type {any} */ item) => link(item, item.interrupt.calls.map((/** @type {any} */ call) => call.name).join(", ")))}</ul>`}
    <h2>Conversations</h2>
    <ul>${fresh.map((item) => link(item, "new"))}${state.list.map((/** @type {any} */ item) => link(item, ""))}</ul>
    ${state.listAfter !== null && html`<button onClick=${onMore}>More</button>`}
  </nav>`;
}

/** A conversation that has no title yet is known by its id; of an id that this page has made, its beginning is enough.
 * @param {string | null | undefined} title @param {string} id */
function titleOf(title, id) {
  return title || (/^[0-9a-f]{8}-[0-9a-f-]{27}$/.test(id) ? `Untitled (${id.slice(0, 8)})` : id);
}

/** @param {any} usage */
function tokens(usage) {
  const about = usage.isEstimated ? "about " : "";
  return `${about}${usage.input} tokens in${usage.cached > 0 ? ` (${usage.cached} cached)` : ""}, ${usage.output} out`;
}

/** @type {Readonly<Record<string, string>>} */
const STATUSES = { running: "is answering", interrupted: "waits for a person", error: "failed", idle: "is ready", cancelled: "was stopped" };

/** @param {any} props */
function Conversation({ client, state, c, isOpen, setOpen }) {
  const [problem, setProblem] = useState("");
  const others = c.viewers.filter((/** @type {string} */ viewer) => viewer !== state.viewer);
  const attempt = (/** @type {Promise<any>} */ what) => what.then(() => setProblem(""), (error) => setProblem(error.message));
  const command = (/** @type {string} */ op, /** @type {object} */ members) => client.connection.command(op, { conversation_id: c.id, ...members });
  const isRunning = c.status === "running";
  const listed = state.list.find((/** @type {any} */ item) => item.conversation_id === c.id);
  return html`<header>
      <${Menu} isOpen=${isOpen} setOpen=${setOpen} />
      <h1>${titleOf(c.title || listed?.title, c.id)}</h1>
      <p class="facts">The agent ${STATUSES[c.status] ?? "sleeps"}.${others.length > 0 ? ` Also here: ${others.join(", ")}.` : ""}
        ${c.usage.input + c.usage.output > 0 ? html` <span class="tokens">${tokens(c.usage)}</span>` : ""}
        ${c.cost > 0 && html` <span class="cost">${money(c.cost, state.currency)}</span>`}
        ${state.mayDebug && html` <a href=${`debug#${encodeURIComponent(c.id)}`}>Debugger</a>`}</p>
    </header>
    ${c.todos.length > 0 && html`<details class="todos"><summary>${c.todos.filter((/** @type {any} */ t) => t.status === "completed").length} of ${c.todos.length} done</summary>
      <ul>${c.todos.map((/** @type {any} */ t) => html`<li class=${t.status}>${t.content} <small>${t.status.replace("_", " ")}</small></li>`)}</ul></details>`}
    <${Log} client=${client} c=${c} />
    ${c.interrupt !== null && html`<${Decisions} key=${c.interrupt.interrupt_id} interrupt=${c.interrupt}
      decide=${(/** @type {any} */ decisions) => command("resume", { decisions })}
      dismiss=${(/** @type {string} */ id) => command("dismiss", { interrupt_id: id })} />`}
    ${problem !== "" && html`<p class="problem" role="alert">${problem}</p>`}
    <${Composer} isRunning=${isRunning} canStop=${c.turnId !== null} isEnded=${state.link === "ended"}
      onStop=${() => attempt(command("cancel", { turn_id: c.turnId }))}
      onPost=${(/** @type {string} */ text, /** @type {any[]} */ parts, /** @type {string} */ overlap) => client.post(c.id, text, parts, overlap)} />`;
}

/** The log follows its end while the reader is there, and stays where it is when the reader has gone up. @param {any} props */
function Log({ client, c }) {
  const box = useRef(/** @type {any} */ (null));
  const isFollowing = useRef(true);
  const [isReading, setReading] = useState(false);
  useLayoutEffect(() => {
    if (isFollowing.current) box.current.scrollTop = box.current.scrollHeight;
  });
  useEffect(() => {
    // Images and rows that get their size later move the end away.
    const observer = new ResizeObserver(() => {
      if (isFollowing.current) box.current.scrollTop = box.current.scrollHeight;
    });
    observer.observe(box.current.firstElementChild);
    return () => observer.disconnect();
  }, []);
  const onScroll = () => {
    const { scrollTop, scrollHeight, clientHeight } = box.current;
    isFollowing.current = scrollHeight - scrollTop - clientHeight < NEAR;
    if (scrollTop < NEAR && !isFollowing.current) older();
  };
  const older = async () => {
    if (isReading || c.before === null) return;
    setReading(true);
    const fromEnd = box.current.scrollHeight - box.current.scrollTop;
    await client.readOlder(c.id).catch(() => {});
    setReading(false);
    requestAnimationFrame(() => { if (box.current) box.current.scrollTop = box.current.scrollHeight - fromEnd; });
  };
  return html`<div class="log" ref=${box} onScroll=${onScroll} tabindex="0" role="region" aria-label="Messages">
    <div class="rows">
      ${c.before !== null && html`<button class="older" disabled=${isReading} onClick=${older}>Older messages</button>`}
      <${Rows} rows=${c.rows} calls=${c.calls} />
      <${Stream} streaming=${c.streaming} />
      ${c.note !== "" && html`<p class="row note">${c.note}</p>`}
      ${c.problem !== "" && c.rows[c.rows.length - 1]?.content_type !== "error" && html`<p class="row error">${c.problem}</p>`}
      ${c.queued.map((/** @type {any} */ m) => html`<article class="row user queued" key=${m.messageId} aria-label="You, in the queue"><${Plain} text=${m.text} /><small>waits in the queue</small></article>`)}
      ${c.sent.map((/** @type {any} */ m) => html`<article class="row user queued" key=${m.messageId} aria-label="You, not sent yet"><${Plain} text=${m.text} />
        <small class=${m.error ? "problem" : ""}>${m.error || "is being sent"}${m.attachments ? ` with ${m.attachments} attached` : ""}</small></article>`)}
    </div>
  </div>`;
}

/** Drawn again when a row or a call changes, and not when a text grows. */
class Rows extends Component {
  /** @param {any} next */
  shouldComponentUpdate(next) {
    return next.rows !== this.props.rows || next.calls !== this.props.calls;
  }

  /** @param {any} props */
  render({ rows, calls }) {
    const items = itemsOf(rows, calls);
    return html`<div class="items">${items.map((item) => html`<${Item} key=${item.key} item=${item} />`)}</div>`;
  }
}

class Item extends Component {
  /** @param {any} next */
  shouldComponentUpdate({ item }) {
    const known = this.props.item;
    return item.row !== known.row || item.live !== known.live || item.call !== known.call || item.results?.length !== known.results?.length
      || (item.results ?? []).some((/** @type {any} */ result, /** @type {number} */ i) => result !== known.results[i]);
  }

  /** @param {any} props */
  render({ item }) {
    if (item.kind === "call") return html`<${ToolCall} item=${item} />`;
    if (item.kind === "row") return html`<${TextRow} row=${item.row} />`;
    return html`<article class="row call" aria-label=${`Tool call ${item.call.name}`}><code>${item.call.name}</code> <span class="status">${item.call.status}</span>
      <${Arguments} given=${item.call.arguments ?? {}} /></article>`;
  }
}

/** @param {{streaming: any}} props */
function Stream({ streaming }) {
  if (streaming === null) return null;
  return html`<article class="row assistant streaming" aria-label="Agent, answering" aria-busy="true"><h2 class="speaker">Agent</h2>
    ${streaming.parts.map((/** @type {any} */ part, /** @type {number} */ index) => part && (part.type === "thinking"
      ? html`<details key=${index} class="thinking"><summary>Thinking</summary><${Plain} text=${part.text} /></details>`
      : html`<${Markdown} key=${`${streaming.messageId}:${index}`} text=${part.text} version=${part.version} />`))}</article>`;
}

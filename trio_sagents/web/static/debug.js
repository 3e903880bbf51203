// @ts-check
/** Starts the debugger. The conversation that is looked at is the fragment of the address. */

import { Client } from "./lib/client.js";
import { Debugger } from "./lib/debugger.js";
import { newTrace, trace } from "./lib/trace.js";
import { html, render } from "./lib/vendor/preact-htm.js";

const root = /** @type {HTMLElement} */ (document.getElementById("page"));
const base = new URL(".", document.baseURI).href;
const client = new Client(base, draw, { start: false });
/** @type {Record<string, import("./lib/trace.js").Trace>} */
const traces = {};
/** @type {Record<string, any>} */
const made = {};
let follows = false;
/** @type {Set<string>} */
let known = new Set();

function current() {
  return decodeURIComponent(location.hash.slice(1));
}

/** @param {string} id */
function navigate(id) {
  location.hash = `#${encodeURIComponent(id)}`;
}

/** @param {string} id */
async function look(id) {
  client.open(id);
  if (client.state.link !== "open") return;
  traces[id] ??= newTrace();
  await client.connection.command("subscribe", { conversation_id: id, channel: "debug", after: null }).catch(() => null);
  const reply = await client.connection.command("agent", { conversation_id: id }).catch(() => null);
  made[id] = reply?.agent ?? null;
  draw();
}

/** @param {boolean} wanted */
function follow(wanted) {
  follows = wanted;
  known = new Set(client.state.agents.map((/** @type {any} */ agent) => agent.conversation_id));
  draw();
}

function draw() {
  const id = current();
  const props = { client, state: client.state, current: id, trace: traces[id], made: made[id], navigate, follows, follow };
  render(html`<${Debugger} ...${props} />`, root);
}

function show() {
  if (current() !== "") look(current());
  draw();
}

client.onWelcome = async () => {
  const reply = await client.connection.command("agents", { watch: true }).catch(() => null);
  if (reply !== null) client.apply({ type: "agents", agents: reply.agents });
  show();
};
client.onFrame = (frame) => {
  if (frame.op === "events")
    for (const envelope of frame.events) {
      const { conversation_id: id } = envelope;
      traces[id] = trace(traces[id] ?? newTrace(), envelope, performance.timeOrigin + performance.now());
    }
  if (frame.op !== "agents" || !follows) return;
  const fresh = frame.agents.find((/** @type {any} */ agent) => !known.has(agent.conversation_id));
  if (fresh === undefined) return;
  follows = false;
  navigate(fresh.conversation_id);
};
window.addEventListener("hashchange", show);
root.replaceChildren();
client.connection.connect();
draw();

// @ts-check
/** Starts the chat page. The conversation that is shown is the fragment of the address. */

import { Chat } from "./lib/chat.js";
import { Client } from "./lib/client.js";
import { html, render } from "./lib/vendor/preact-htm.js";

const root = /** @type {HTMLElement} */ (document.getElementById("page"));
const announcer = /** @type {HTMLElement} */ (document.getElementById("announcer"));
const client = new Client(new URL(".", document.baseURI).href, draw);
let announced = "";

function current() {
  return decodeURIComponent(location.hash.slice(1));
}

/** @param {string} id */
function navigate(id) {
  location.hash = `#${encodeURIComponent(id)}`;
}

function draw() {
  const id = current();
  const c = client.state.conversations[id];
  document.title = c === undefined ? "Conversations" : `${c.status === "interrupted" ? "● " : ""}${c.title || c.id}`;
  if (c !== undefined && c.announced !== announced) {
    announced = c.announced;
    announcer.textContent = announced;
  }
  render(html`<${Chat} client=${client} state=${client.state} current=${id} navigate=${navigate} />`, root);
}

function show() {
  if (current() !== "") client.open(current());
  draw();
}

client.onWelcome = () => {
  client.list();
  client.listWaiting();
};
client.onFrame = (frame) => {
  const isNews = (/** @type {any} */ envelope) => envelope.event.type === "StatusChanged" && envelope.channel === "main";
  if (frame.op === "events" && frame.events.some(isNews)) client.listWaiting();
};
window.addEventListener("hashchange", show);
root.replaceChildren();
client.connection.connect();
show();

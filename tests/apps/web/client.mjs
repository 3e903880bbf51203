// The client of the page, for a test that is not a browser: its socket and its clock are the test's. Commands in, one a line; out: the frames
// that the client has sent since, and what it has of its conversations.
import { createInterface } from "node:readline";

const sockets = [];
const timers = new Map();
let now = 0;
let number = 0;

class Socket {
  static OPEN = 1;
  readyState = 1;
  sent = [];
  constructor() {
    sockets.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
  }
}

function later(act, pause = 0) {
  number += 1;
  timers.set(number, { act, at: now + pause });
  return number;
}

Object.assign(globalThis, {
  WebSocket: Socket, setTimeout: later, clearTimeout: (timer) => timers.delete(timer), requestAnimationFrame: (act) => later(act, 16),
  document: { hidden: false, addEventListener() {} }, window: { addEventListener() {} }, fetch: async () => ({ status: 200 }),
});
Math.random = () => 0;
const { Client } = await import("../../../trio_sagents/web/static/lib/client.js");
const client = new Client("http://localhost/", () => {});
const settled = () => new Promise((resolve) => setImmediate(resolve));

const commands = {
  connect: () => client.connection.connect(),
  open: ({ id }) => client.open(id),
  hear: ({ frame }) => sockets.at(-1).onmessage({ data: JSON.stringify(frame) }),
  cut: () => sockets.at(-1).onclose(),
  async wait({ seconds }) {
    const until = now + seconds * 1000;
    for (;;) {
      const [next] = [...timers].filter(([, { at }]) => at <= until).sort(([, a], [, b]) => a.at - b.at);
      if (next === undefined) break;
      timers.delete(next[0]);
      now = next[1].at;
      next[1].act();
      await settled();
    }
    now = until;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  await commands[command.do](command);
  await settled();
  const sent = sockets.flatMap((socket) => socket.sent.splice(0));
  const conversations = Object.values(client.state.conversations).map((c) => ({ ...c, touched: c.touched && [...c.touched] }));
  process.stdout.write(`${JSON.stringify({ sent, conversations, sockets: sockets.length })}\n`);
}

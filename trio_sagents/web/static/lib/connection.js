// @ts-check
/**
 * One socket to the bridge: it comes back by itself, and commands without a reply are sent again.
 *
 * A command is kept until its reply comes. Sending it twice does nothing twice (see "The wire protocol of the web bridge"), so every
 * command that a lost connection leaves open is sent again behind the next welcome.
 */

const PAUSES = [300, 1000, 2000, 5000, 10000, 20000];
/** Milliseconds. What is sent less often than this makes no difference to a person, and keeps a server that comes back from being flooded. */
const SPREAD = 500;

const OF_THE_SOCKET = new Set(["subscribe", "unsubscribe", "visible", "history"]);

/** What a reply says of a command that was refused. */
export class Refused extends Error {
  /** @param {{type: string, message: string, retry_after: number | null}} error */
  constructor(error) {
    super(error.message);
    this.type = error.type;
    this.retryAfter = error.retry_after;
  }
}

export class Connection {
  /**
   * @param {string} base  where the bridge is mounted, with a slash at the end
   * @param {{frame: (frame: any) => void, welcome: () => void, link: (link: string, reason: string) => void}} on
   */
  constructor(base, on) {
    this.base = base;
    this.on = on;
    /** @type {Map<string, {frame: any, resolve: (result: any) => void, reject: (error: Error) => void}>} */
    this.open = new Map();
    this.number = 0;
    this.failures = 0;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.isWelcome = false;
    this.hasEnded = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.silence = undefined;
    this.interval = 20000;
  }

  connect() {
    if (this.hasEnded || this.socket !== null) return;
    clearTimeout(this.timer);
    const url = new URL("ws", this.base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.socket = socket;
    this.isWelcome = false;
    /** @type {any} */
    let bye = null;
    socket.onmessage = (message) => {
      const frame = JSON.parse(message.data);
      if (frame.op === "bye") bye = frame;
      this.hear(frame);
    };
    socket.onclose = () => this.lost(socket, bye);
    this.listen();
  }

  /** A connection can be dead without a close: whoever hears nothing for two intervals leaves it. */
  listen() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      const { socket } = this;
      socket?.close();
      if (socket !== null) this.lost(socket, null);
    }, 2 * this.interval + SPREAD);
  }

  /** @param {any} frame */
  hear(frame) {
    this.listen();
    switch (frame.op) {
      case "welcome":
        this.failures = 0;
        this.isWelcome = true;
        this.interval = frame.ping_interval * 1000;
        this.again(frame);
        break;
      case "ping":
        this.write({ op: "pong" });
        break;
      case "reply":
        this.settle(frame);
        break;
      default:
        this.on.frame(frame);
    }
  }

  /** Send what is new of this socket, and then what an earlier one has left open. @param {any} welcome */
  again(welcome) {
    const kept = [...this.open.values()];
    this.on.frame(welcome);
    this.on.welcome();
    for (const { frame } of kept) this.write(frame);
  }

  /** @param {any} reply */
  settle(reply) {
    const waiting = this.open.get(reply.id);
    if (waiting === undefined) return;
    this.open.delete(reply.id);
    if (reply.ok) waiting.resolve(reply.result);
    else waiting.reject(new Refused(reply.error));
  }

  /** @param {WebSocket} socket @param {any} bye */
  lost(socket, bye) {
    if (this.socket !== socket) return;
    this.socket = null;
    this.isWelcome = false;
    clearTimeout(this.silence);
    socket.onmessage = socket.onclose = null;
    this.drop();
    if (bye !== null && bye.retry_after === null && (bye.reason === "expired" || bye.reason === "revoked")) {
      this.end(bye.reason);
      return;
    }
    this.on.link("offline", bye?.reason ?? "");
    const pause = bye?.retry_after ? bye.retry_after * 1000 : PAUSES[Math.min(this.failures, PAUSES.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.retry(), pause + Math.random() * SPREAD);
  }

  /** Subscriptions belong to their socket, and the history is read behind a subscription: nobody waits for their replies any more. */
  drop() {
    for (const [id, { frame, reject }] of this.open) {
      if (!OF_THE_SOCKET.has(frame.op)) continue;
      this.open.delete(id);
      reject(new Refused({ type: "Offline", message: "the connection was lost", retry_after: 0 }));
    }
  }

  async retry() {
    // A socket that the server refused does not tell why; a request does.
    const answer = this.failures > 1 ? await fetch(new URL("session", this.base)).catch(() => null) : null;
    if (answer?.status === 401) this.end("expired");
    else this.connect();
  }

  /** @param {string} reason */
  end(reason) {
    this.hasEnded = true;
    this.on.link("ended", reason);
    for (const { reject } of this.open.values()) reject(new Refused({ type: "Ended", message: reason, retry_after: null }));
    this.open.clear();
  }

  /** @param {any} frame */
  write(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame));
  }

  /**
   * Carry out a command. The promise is kept when the reply comes, after however many connections.
   * @param {string} op @param {object} members @returns {Promise<any>}
   */
  command(op, members = {}) {
    if (this.hasEnded) return Promise.reject(new Refused({ type: "Ended", message: "log in again", retry_after: null }));
    this.number += 1;
    const id = `${op}-${this.number}`;
    const frame = { op, id, ...members };
    return new Promise((resolve, reject) => {
      this.open.set(id, { frame, resolve, reject });
      if (this.isWelcome) this.write(frame);
    });
  }
}

// @ts-check
/**
 * The state of a page, kept true by a connection: what the state says is missing is asked for.
 *
 * Used by both pages, and by anybody's own page: `new Client(base, listener)`, `client.open(id)`, `client.state`.
 */

import { Connection } from "./connection.js";
import { initialState, reduce } from "./reducer.js";

const PAGE = 100;
const PAUSES = [1000, 2000, 5000, 10000, 20000];
/** Milliseconds until something is asked for again that the server could not do. */

export class Client {
  /**
   * @param {string} base @param {() => void} changed  called after each change, at most once per frame of the screen
   * @param {{start: boolean}} options  whether looking at a conversation starts its agent
   */
  constructor(base, changed, { start } = { start: true }) {
    this.start = start;
    this.state = initialState();
    this.changed = changed;
    this.isScheduled = false;
    /** @type {Map<string, {count: number, timer: ReturnType<typeof setTimeout> | undefined}>} */
    this.failures = new Map();
    /** @type {Map<string, number>} */
    this.reads = new Map();
    /** @type {(frame: any) => void} */
    this.onFrame = () => {};
    /** @type {() => void} */
    this.onWelcome = () => {};
    this.connection = new Connection(base, {
      frame: (frame) => {
        this.apply({ type: "frame", frame });
        this.onFrame(frame);
      },
      welcome: () => {
        for (const { timer } of this.failures.values()) clearTimeout(timer);
        this.failures.clear();
        for (const id of Object.keys(this.state.conversations)) this.subscribe(id);
        if (document.hidden) this.setVisible(false);
        this.onWelcome();
      },
      link: (link, reason) => this.apply({ type: "link", link, reason }),
    });
    document.addEventListener("visibilitychange", () => this.setVisible(!document.hidden));
    window.addEventListener("online", () => this.connection.connect());
  }

  /** @param {any} action */
  apply(action) {
    const before = this.state;
    this.state = reduce(before, action);
    if (this.state === before) return;
    this.follow();
    if (this.isScheduled) return;
    this.isScheduled = true;
    // A hidden page gets no frames of the screen, and needs its state all the same.
    (document.hidden ? setTimeout : requestAnimationFrame)(() => {
      this.isScheduled = false;
      this.changed();
    });
  }

  /** Ask for what the state says is missing. */
  follow() {
    for (const c of Object.values(this.state.conversations)) {
      if (c.subscription === "" || this.failures.get(c.id)?.timer !== undefined) continue;
      if (c.isHoled) this.subscribeAnew(c.id);
      else if (c.isStale && c.touched === null) this.readHistory(c.id);
    }
  }

  /** @param {boolean} visible */
  setVisible(visible) {
    if (this.state.link === "open") this.connection.command("visible", { visible }).catch(() => {});
  }

  /** @param {string} id */
  open(id) {
    if (id in this.state.conversations) return;
    this.apply({ type: "opened", conversationId: id });
    if (this.state.link === "open") this.subscribe(id);
  }

  /** @param {string} id */
  async subscribe(id) {
    await this.subscribeBehind(id, this.state.conversations[id].cursor);
  }

  /** @param {string} id */
  async subscribeAnew(id) {
    this.apply({ type: "subscribed", conversationId: id, state: "" });
    await this.connection.command("unsubscribe", { conversation_id: id }).catch(() => null);
    await this.subscribeBehind(id, null);
  }

  /** @param {string} id @param {string | null} after */
  async subscribeBehind(id, after) {
    try {
      const reply = await this.connection.command("subscribe", { conversation_id: id, after, start: this.start });
      this.apply({ type: "subscribed", conversationId: id, state: reply.state });
    } catch (error) {
      this.failed(id, /** @type {any} */ (error));
    }
  }

  /** @param {string} id */
  async readHistory(id) {
    const number = (this.reads.get(id) ?? 0) + 1;
    this.reads.set(id, number);
    this.apply({ type: "asked", conversationId: id });
    // A reply that was asked for before the connection was lost is older than what events have brought since.
    const isNewest = () => this.reads.get(id) === number && this.state.conversations[id].touched !== null;
    try {
      const page = await this.connection.command("history", { conversation_id: id, limit: PAGE });
      this.failures.delete(id);
      if (isNewest()) this.apply({ type: "history", conversationId: id, rows: page.rows, before: page.before });
    } catch (error) {
      if (isNewest()) this.failed(id, /** @type {any} */ (error));
    }
  }

  /** What could not be read stays missing: what is shown stays, and it is asked for again. @param {string} id @param {any} error */
  failed(id, error) {
    if (error.type === "Offline" || error.type === "Ended") return; // the next welcome asks
    if (error.type === "ConversationNotFound") {
      this.apply({ type: "history", conversationId: id, rows: [], before: null });
      return;
    }
    const count = (this.failures.get(id)?.count ?? 0) + 1;
    const pause = error.retryAfter ? error.retryAfter * 1000 : PAUSES[Math.min(count, PAUSES.length) - 1];
    this.failures.set(id, { count, timer: setTimeout(() => this.retry(id, count), pause) });
    this.apply({ type: "unread", conversationId: id });
  }

  /** @param {string} id @param {number} count */
  retry(id, count) {
    this.failures.set(id, { count, timer: undefined });
    if (this.state.conversations[id].subscription === "") this.subscribe(id);
    else this.follow();
  }

  /** @param {string} id */
  async readOlder(id) {
    const { before } = this.state.conversations[id];
    if (before === null) return;
    const page = await this.connection.command("history", { conversation_id: id, before, limit: PAGE });
    if (this.state.conversations[id].before === before)
      this.apply({ type: "older", conversationId: id, rows: page.rows, before: page.before });
  }

  /**
   * @param {string} id @param {string} text @param {readonly any[]} attachments  parts of the message beside its text
   * @param {string} overlap
   */
  async post(id, text, attachments, overlap) {
    const messageId = crypto.randomUUID();
    this.apply({ type: "sent", conversationId: id, message: { messageId, text, attachments: attachments.length, error: "" } });
    const parts = [...(text === "" ? [] : [{ type: "text", text }]), ...attachments];
    const content = attachments.length === 0 ? { text } : { parts };
    try {
      await this.connection.command("post", { conversation_id: id, message_id: messageId, overlap, ...content });
    } catch (error) {
      this.apply({ type: "refused", conversationId: id, messageId, error: String(/** @type {Error} */ (error).message) });
      return;
    }
    this.apply({ type: "accepted", conversationId: id, messageId });
    this.list();
  }

  async list(more = false) {
    const after = more ? this.state.listAfter : null;
    const page = await this.connection.command("conversations", { after, limit: 50 }).catch(() => null);
    if (page !== null) this.apply({ type: "listed", more, items: page.items, after: page.after });
  }

  async listWaiting() {
    const page = await this.connection.command("waiting", { limit: 50 }).catch(() => null);
    if (page !== null) this.apply({ type: "waiting", items: page.items });
  }
}

// @ts-check
/**
 * The state of a page, kept true by a connection: what the state says is missing is asked for.
 *
 * Used by both pages, and by anybody's own page: `new Client(base, listener)`, `client.open(id)`, `client.state`.
 */

import { Connection } from "./connection.js";
import { initialState, reduce } from "./reducer.js";

const PAGE = 100;

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
      if (c.subscription === "") continue;
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
    const { cursor } = this.state.conversations[id];
    const reply = await this.connection.command("subscribe", { conversation_id: id, after: cursor, start: this.start }).catch(() => null);
    if (reply !== null) this.apply({ type: "subscribed", conversationId: id, state: reply.state });
  }

  /** @param {string} id */
  async subscribeAnew(id) {
    this.apply({ type: "subscribed", conversationId: id, state: "" });
    await this.connection.command("unsubscribe", { conversation_id: id }).catch(() => null);
    const reply = await this.connection.command("subscribe", { conversation_id: id, after: null, start: this.start }).catch(() => null);
    if (reply !== null) this.apply({ type: "subscribed", conversationId: id, state: reply.state });
  }

  /** @param {string} id */
  async readHistory(id) {
    this.apply({ type: "asked", conversationId: id });
    const asked = this.state.conversations[id].touched;
    const page = await this.connection.command("history", { conversation_id: id, limit: PAGE }).catch(() => ({ rows: [], before: null }));
    if (asked !== null && this.state.conversations[id].touched !== null)
      this.apply({ type: "history", conversationId: id, rows: page.rows, before: page.before });
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

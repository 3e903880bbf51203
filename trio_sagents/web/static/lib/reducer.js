// @ts-check
/**
 * What the server says becomes the state of a page. Pure: no socket, no document, no clock.
 *
 * `reduce(state, action)` returns a new state, and leaves the old one alone. An action is a frame of the server (`{type: "frame", frame}`),
 * or something that the page did (`opened`, `link`, `subscribed`, `asked`, `unread`, `history`, `older`, `sent`, `refused`, `listed`, `waiting`).
 * The state says what the page still has to ask for (`isStale`, `isHoled`); whoever owns the socket asks.
 *
 * Three rules leave no hole and show nothing twice. The history is read behind the subscription, and again behind each `Gap` and
 * `Snapshot`. A row that an event has brought since the history was asked for is newer than the same row in the history. A page of the
 * history that has no row in common with the rows that are shown takes their place.
 */

/** @typedef {{row_id: string, message_id: string, role: string, content_type: string, content: any, status: string, created_at: string,
 *   turn_id: string | null, is_final: boolean}} Row */
/** @typedef {{type: "text" | "thinking", text: string, length: number, version: number}} StreamedPart */
/** @typedef {{messageId: string, parts: (StreamedPart | undefined)[]}} Streaming */
/** @typedef {{call_id: string, name: string, status: string, message_id: string, output?: string | null, error?: string | null}} Call */
/** @typedef {{messageId: string, text: string, attachments: number, error: string}} Sent */
/**
 * @typedef {object} Conversation
 * @property {string} id
 * @property {"" | "pending" | "subscribed"} subscription
 * @property {string | null} cursor  of the last event; a new subscription continues behind it
 * @property {boolean} isStale  the history has to be read again
 * @property {boolean} isUnread  the history could not be read, or the conversation not be listened to; it is tried again
 * @property {boolean} isHoled  a piece of a text is missing: subscribe anew, without a cursor
 * @property {ReadonlySet<string> | null} touched  rows that events brought since the history was asked for; null when nothing was asked
 * @property {readonly Row[]} rows  in the order in which they were saved
 * @property {string | null} before  where older rows begin; null if there are none
 * @property {string} status
 * @property {string} problem  why the last turn failed, for people
 * @property {string} note  what is going on, such as a model that is asked again
 * @property {any} interrupt
 * @property {string | null} turnId  of the running turn
 * @property {Streaming | null} streaming
 * @property {readonly Call[]} calls  of the running turn, as long as no row shows them
 * @property {readonly any[]} todos
 * @property {readonly {messageId: string, text: string}[]} queued
 * @property {readonly Sent[]} sent  messages of this page that the server has not accepted yet
 * @property {readonly string[]} viewers
 * @property {string} title
 * @property {{input: number, output: number, cached: number, isEstimated: boolean}} usage  since the page was opened
 * @property {number} cost  of the turns that have ended since the page was opened
 * @property {string} announced  the text of the last finished answer
 */
/**
 * @typedef {object} State
 * @property {"connecting" | "open" | "offline" | "ended"} link
 * @property {string} reason  why the link has ended
 * @property {string} viewer
 * @property {boolean} mayDebug
 * @property {string | null} currency  of costs; null if the server knows no prices
 * @property {Readonly<Record<string, Conversation>>} conversations
 * @property {readonly any[]} list
 * @property {string | null} listAfter
 * @property {readonly any[]} waiting
 * @property {readonly any[]} agents
 */

/** @returns {State} */
export function initialState() {
  return {
    link: "connecting", reason: "", viewer: "", mayDebug: false, currency: null, conversations: {}, list: [], listAfter: null, waiting: [], agents: [],
  };
}

/** @param {string} id @returns {Conversation} */
export function newConversation(id) {
  return {
    id, subscription: "", cursor: null, isStale: true, isUnread: false, isHoled: false, touched: null, rows: [], before: null, status: "", problem: "",
    note: "", interrupt: null, turnId: null, streaming: null, calls: [], todos: [], queued: [], sent: [], viewers: [], title: "",
    usage: { input: 0, output: 0, cached: 0, isEstimated: false }, cost: 0, announced: "",
  };
}

/** @param {State} state @param {any} action @returns {State} */
export function reduce(state, action) {
  switch (action.type) {
    case "frame":
      return reduceFrame(state, action.frame);
    case "link":
      return reduceLink(state, action.link, action.reason ?? "");
    case "opened":
      return action.conversationId in state.conversations ? state : put(state, newConversation(action.conversationId));
    case "subscribed":
      return change(state, action.conversationId, (c) => ({ ...c, subscription: action.state, isHoled: false }));
    case "asked":
      return change(state, action.conversationId, (c) => ({ ...c, isStale: false, touched: new Set() }));
    case "unread":
      return change(state, action.conversationId, (c) => ({ ...c, isStale: true, isUnread: true, touched: null }));
    case "history":
      return change(state, action.conversationId, (c) => withHistory(c, action.rows, action.before));
    case "older":
      return change(state, action.conversationId, (c) => withOlder(c, action.rows, action.before));
    case "sent":
      return change(state, action.conversationId, (c) => ({ ...c, sent: [...without(c.sent, action.message.messageId), action.message] }));
    case "accepted":
      return change(state, action.conversationId, (c) => ({ ...c, sent: without(c.sent, action.messageId) }));
    case "refused":
      return change(state, action.conversationId, (c) => ({
        ...c, sent: c.sent.map((s) => (s.messageId === action.messageId ? { ...s, error: action.error } : s)),
      }));
    case "listed":
      return { ...state, list: action.more ? [...state.list, ...action.items] : action.items, listAfter: action.after };
    case "waiting":
      return { ...state, waiting: action.items };
    case "agents":
      return { ...state, agents: action.agents };
    default:
      return state;
  }
}

/** @param {State} state @param {any} frame @returns {State} */
function reduceFrame(state, frame) {
  switch (frame.op) {
    case "welcome":
      return { ...reduceLink(state, "open", ""), viewer: frame.viewer, mayDebug: frame.may_debug, currency: frame.currency ?? null };
    case "events":
      return frame.events.reduce(reduceEnvelope, state);
    case "viewers":
      return change(state, frame.conversation_id, (c) => ({ ...c, viewers: frame.viewers }));
    case "agents":
      return { ...state, agents: frame.agents };
    default:
      return state;
  }
}

/** @param {State} state @param {State["link"]} link @param {string} reason @returns {State} */
function reduceLink(state, link, reason) {
  if (link === "open") return { ...state, link, reason };
  const conversations = Object.fromEntries(
    Object.entries(state.conversations).map(([id, c]) => [
      id, { ...c, subscription: /** @type {""} */ (""), isStale: c.isStale || c.touched !== null, touched: null },
    ]),
  );
  return { ...state, link, reason, conversations };
}

/** @param {State} state @param {any} envelope @returns {State} */
function reduceEnvelope(state, envelope) {
  if (envelope.channel !== "main") return state;
  const next = change(state, envelope.conversation_id, (c) => ({
    ...reduceEvent(c, envelope.event), cursor: envelope.cursor, cost: c.cost + (envelope.cost ?? 0),
  }));
  if (envelope.event.type !== "TitleGenerated") return next;
  const titled = (/** @type {any} */ item) =>
    item.conversation_id === envelope.conversation_id ? { ...item, title: envelope.event.title } : item;
  return { ...next, list: next.list.map(titled) };
}

/** @param {Conversation} c @param {any} event @returns {Conversation} */
export function reduceEvent(c, event) {
  switch (event.type) {
    case "Snapshot":
      return withSnapshot(c, event);
    case "Gap":
      return { ...c, isStale: true };
    case "TurnStarted":
      return { ...c, turnId: event.turn_id, streaming: null, calls: [], problem: "", note: "" };
    case "TurnEnded":
      return { ...c, turnId: null, streaming: null, calls: [], note: "" };
    case "StatusChanged":
      return withStatus(c, event);
    case "TextDelta":
    case "ThinkingDelta":
      return withDelta(c, event);
    case "ModelRetrying":
      return { ...forgotten(c, event.message_id), note: `The model failed. It is asked again (attempt ${event.attempt + 1}).` };
    case "ModelFallback":
      return { ...forgotten(c, event.message_id), note: `The model ${event.model} failed. ${event.fallback} is asked instead.` };
    case "ToolCallIdentified":
      return { ...c, calls: withCall(c.calls, { ...event.call, status: "pending", message_id: event.message_id }) };
    case "ToolExecutionUpdated":
      return {
        ...c,
        calls: withCall(c.calls, { message_id: "", ...event.call, status: event.status, output: event.output, error: event.error }),
      };
    case "MessageQueued":
      return accepted({ ...c, queued: [...without(c.queued, event.message.message_id), queuedMessage(event.message)] }, event.message);
    case "MessageCompleted":
      return withMessage(c, event.message);
    case "DisplayMessageSaved":
    case "DisplayMessageUpdated":
      return withRow(c, event.row);
    case "TokenUsage":
      return { ...c, usage: added(c.usage, event.usage) };
    case "TodosUpdated":
      return { ...c, todos: event.todos };
    case "TitleGenerated":
      return { ...c, title: event.title };
    case "ChainError":
      return event.unsaved ? { ...c, isStale: true } : c;
    case "ToolIgnoresCancellation":
      return { ...c, note: `The tool ${event.call.name} does not stop yet.` };
    case "AgentShutdown":
      return {
        ...c, status: "", turnId: null, streaming: null, calls: [], note: "", interrupt: event.interrupt_restorable ? c.interrupt : null,
      };
    default:
      return c;
  }
}

/** @param {Conversation} c @param {any} event @returns {Conversation} */
function withSnapshot(c, event) {
  const { status, interrupt, todos, streaming, tool_calls: calls, queued } = event;
  return {
    ...c, status, interrupt, todos, note: "", problem: status === "error" ? c.problem : "", isStale: true,
    turnId: event.turn_id ?? null,
    streaming: streaming && { messageId: streaming.message_id, parts: streaming.parts.map(streamedPart) },
    calls: calls.map((/** @type {any} */ call) => ({ message_id: "", ...call })),
    queued: queued === 0 ? [] : c.queued.slice(-queued),
  };
}

/** @param {any} part @returns {StreamedPart | undefined} */
function streamedPart(part) {
  const { type, text } = part;
  return type === "text" || type === "thinking" ? { type, text, length: lengthOf(text), version: 0 } : undefined;
}

/** @param {Conversation} c @param {any} event @returns {Conversation} */
function withStatus(c, event) {
  const isOver = event.status !== "running";
  return {
    ...c, status: event.status, turnId: isOver ? null : (event.turn_id ?? c.turnId),
    interrupt: event.data !== null && typeof event.data === "object" ? event.data : null,
    problem: event.status === "error" && typeof event.data === "string" ? event.data : "",
    streaming: isOver ? null : c.streaming,
  };
}

/** Offsets count characters, which are code points; JavaScript counts halves of some. @param {string} text */
function lengthOf(text) {
  let length = text.length;
  for (let i = 0; i < text.length - 1; i += 1) {
    const unit = text.charCodeAt(i);
    if (unit >= 0xd800 && unit < 0xdc00) {
      const next = text.charCodeAt(i + 1);
      if (next >= 0xdc00 && next < 0xe000) {
        length -= 1;
        i += 1;
      }
    }
  }
  return length;
}

/** @param {Conversation} c @param {any} event @returns {Conversation} */
function withDelta(c, event) {
  const type = event.type === "TextDelta" ? "text" : "thinking";
  const shown = c.streaming !== null && c.streaming.messageId === event.message_id ? c.streaming.parts : [];
  const known = shown[event.part] ?? { type, text: "", length: 0, version: 0 };
  if (event.offset > known.length) return { ...c, isHoled: true };
  const isNext = event.offset === known.length;
  const start = isNext ? known.text : Array.from(known.text).slice(0, event.offset).join("");
  const part = {
    type: /** @type {"text" | "thinking"} */ (type),
    text: start + event.text, length: event.offset + lengthOf(event.text), version: known.version + (isNext ? 0 : 1),
  };
  const parts = shown.slice();
  parts[event.part] = part;
  return { ...c, turnId: event.turn_id, note: "", streaming: { messageId: event.message_id, parts } };
}

/** @param {Conversation} c @param {string} messageId @returns {Conversation} */
function forgotten(c, messageId) {
  return {
    ...c, streaming: c.streaming?.messageId === messageId ? null : c.streaming,
    calls: c.calls.filter((call) => call.message_id !== messageId),
  };
}

/** @param {readonly Call[]} calls @param {Call} call @returns {readonly Call[]} */
function withCall(calls, call) {
  const index = calls.findIndex((known) => known.call_id === call.call_id);
  if (index < 0) return [...calls, call];
  return calls.map((known, i) => (i === index ? { ...known, ...call, message_id: known.message_id || call.message_id } : known));
}

/** @param {any} message */
function queuedMessage(message) {
  const texts = message.parts.map((/** @type {any} */ part) => (part.type === "text" ? part.text : `[${part.type}]`));
  return { messageId: message.message_id, text: texts.join("\n") };
}

/** @param {Conversation} c @param {any} message @returns {Conversation} */
function accepted(c, message) {
  return { ...c, sent: without(c.sent, message.message_id) };
}

/** @template {{messageId: string}} T @param {readonly T[]} list @param {string} messageId @returns {readonly T[]} */
function without(list, messageId) {
  return list.some((item) => item.messageId === messageId) ? list.filter((item) => item.messageId !== messageId) : list;
}

/** @param {Conversation} c @param {any} message @returns {Conversation} */
function withMessage(c, message) {
  const isShown = c.rows.some((row) => row.message_id === message.message_id);
  const next = {
    ...c, queued: without(c.queued, message.message_id), isStale: c.isStale || !isShown,
    streaming: c.streaming?.messageId === message.message_id ? null : c.streaming,
  };
  if (message.role !== "assistant") return accepted(next, message);
  const texts = message.parts.filter((/** @type {any} */ part) => part.type === "text").map((/** @type {any} */ part) => part.text);
  return { ...next, announced: texts.join("\n") || c.announced };
}

/** @param {Conversation} c @param {Row} row @returns {Conversation} */
function withRow(c, row) {
  const index = findLastIndex(c.rows, row.row_id);
  const rows = index < 0 ? [...c.rows, row] : c.rows.map((known, i) => (i === index ? row : known));
  return { ...c, rows, sent: without(c.sent, row.message_id), touched: c.touched && new Set(c.touched).add(row.row_id) };
}

/** @param {readonly Row[]} rows @param {string} rowId */
function findLastIndex(rows, rowId) {
  for (let i = rows.length - 1; i >= 0; i -= 1) if (rows[i].row_id === rowId) return i;
  return -1;
}

/** @param {Conversation} c @param {readonly Row[]} page @param {string | null} before @returns {Conversation} */
function withHistory(c, page, before) {
  const touched = c.touched ?? new Set();
  const known = new Map(c.rows.map((row) => [row.row_id, row]));
  const inPage = new Set(page.map((row) => row.row_id));
  const first = c.rows.findIndex((row) => inPage.has(row.row_id));
  const older = first < 0 ? [] : c.rows.slice(0, first);
  const fresh = page.map((row) => (touched.has(row.row_id) ? (known.get(row.row_id) ?? row) : row));
  const newer = c.rows.filter((row) => touched.has(row.row_id) && !inPage.has(row.row_id));
  return {
    ...c, touched: null, isUnread: false, rows: [...older, ...fresh, ...newer.filter((row) => !older.includes(row))],
    before: older.length > 0 ? c.before : before,
    sent: c.sent.filter((message) => !page.some((row) => row.message_id === message.messageId)),
  };
}

/** @param {Conversation} c @param {readonly Row[]} page @param {string | null} before @returns {Conversation} */
function withOlder(c, page, before) {
  const known = new Set(c.rows.map((row) => row.row_id));
  return { ...c, rows: [...page.filter((row) => !known.has(row.row_id)), ...c.rows], before };
}

/** @param {Conversation["usage"]} usage @param {any} more */
function added(usage, more) {
  return {
    input: usage.input + more.input_tokens, output: usage.output + more.output_tokens, cached: usage.cached + more.cache_read_tokens,
    isEstimated: usage.isEstimated || Boolean(more.is_estimated),
  };
}

/** @param {State} state @param {Conversation} c @returns {State} */
function put(state, c) {
  return { ...state, conversations: { ...state.conversations, [c.id]: c } };
}

/** @param {State} state @param {string} id @param {(c: Conversation) => Conversation} how @returns {State} */
function change(state, id, how) {
  const c = state.conversations[id];
  return c === undefined ? state : put(state, how(c));
}

/**
 * The rows as people see them: each tool call with its result and with what is known of it before its row says so.
 * @param {readonly Row[]} rows @param {readonly Call[]} calls
 */
export function itemsOf(rows, calls) {
  /** @type {Map<string, any>} */
  const byCall = new Map();
  /** @type {any[]} */
  const items = [];
  for (const row of rows) {
    const { content } = row;
    if (row.content_type === "tool_call") {
      const item = { kind: "call", key: row.row_id, row, results: [], live: undefined };
      byCall.set(content.call_id, item);
      items.push(item);
    } else if (content.tool_call_id !== undefined && byCall.has(content.tool_call_id)) {
      byCall.get(content.tool_call_id).results.push(row);
    } else {
      items.push({ kind: "row", key: row.row_id, row });
    }
  }
  for (const call of calls) {
    const item = byCall.get(call.call_id);
    if (item !== undefined && !item.row.is_final) item.live = call;
    else if (item === undefined) items.push({ kind: "asked", key: `asked:${call.call_id}`, call });
  }
  return items;
}

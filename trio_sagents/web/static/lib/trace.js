// @ts-check
/**
 * What a developer sees of a conversation: spans on a timeline, requests, states and what changed in them, and every event. Pure.
 *
 * `trace(known, envelope, at)` returns a new trace; `at` is when the envelope came, in milliseconds. The newest `MOST` entries are kept.
 */

const MOST = 2000;

/** @typedef {{lane: "turn" | "model" | "tool" | "sub-agent", key: string, label: string, start: number, end: number | null, result: string,
 *   cursor: string, request?: any, usage?: any, cost?: number, last?: string[]}} Span */
/** @typedef {{at: number, channel: string, cursor: string, event: any}} Entry */
/** @typedef {{entries: readonly Entry[], spans: readonly Span[], state: any, changed: readonly string[],
 *   usage: Readonly<Record<string, {input: number, output: number, calls: number, cost: number}>>, cost: number, actions: readonly Entry[]}} Trace */

/** @returns {Trace} */
export function newTrace() {
  return { entries: [], spans: [], state: null, changed: [], usage: {}, cost: 0, actions: [] };
}

/** @param {Trace} known @param {any} envelope @param {number} at @returns {Trace} */
export function trace(known, envelope, at) {
  const { event, channel, cursor, cost } = envelope;
  const isText = event.type === "TextDelta" || event.type === "ThinkingDelta";
  const entry = { at, channel, cursor, event };
  const entries = isText ? known.entries : [...known.entries.slice(-MOST + 1), entry];
  const next = { ...known, entries };
  switch (event.type) {
    case "TurnStarted":
      return opened(next, { lane: "turn", key: event.turn_id, label: "turn", start: at, end: null, result: "", cursor });
    case "TurnEnded":
      return closed({ ...next, cost: known.cost + (cost ?? 0), spans: next.spans.map((s) => (s.end === null && s.lane !== "turn" ? { ...s, end: at } : s)) },
        "turn", event.turn_id, at, { result: event.outcome.type, cost });
    case "ModelCalled":
      return opened(next, {
        lane: "model", key: `${event.turn_id}:${known.spans.length}`, label: event.model, start: at, end: null, result: "", cursor,
        request: event.request,
      });
    case "ModelAnswered":
      return counted(closed(next, "model", null, at, { result: "answered", usage: event.usage, cost }), event.turn_id, event.usage, cost);
    case "ModelError":
      return closed(next, "model", null, at, { result: event.error.message });
    case "ToolExecutionUpdated":
      return event.status === "executing"
        ? opened(next, { lane: "tool", key: event.call.call_id, label: event.call.name, start: at, end: null, result: "", cursor })
        : closed(next, "tool", event.call.call_id, at, { result: event.status });
    case "SubAgentEvent":
      return ofSubAgent(next, envelope, at);
    case "AgentStateUpdated":
      return { ...next, state: event.state, changed: changesOf(known.state, event.state, "") };
    case "MiddlewareAction":
      return { ...next, actions: [...known.actions.slice(-200), entry] };
    default:
      return next;
  }
}

/** @param {Trace} known @param {Span} span @returns {Trace} */
function opened(known, span) {
  return { ...known, spans: [...known.spans.slice(-MOST), span] };
}

/** Close the newest open span of a lane. @param {Trace} known @param {string} lane @param {string | null} key @param {number} at
 * @param {Partial<Span>} more @returns {Trace} */
function closed(known, lane, key, at, more) {
  const index = known.spans.findLastIndex((s) => s.lane === lane && s.end === null && (key === null || s.key === key));
  if (index < 0) return known;
  return { ...known, spans: known.spans.map((s, i) => (i === index ? { ...s, ...more, end: at } : s)) };
}

/** @param {Trace} known @param {any} envelope @param {number} at @returns {Trace} */
function ofSubAgent(known, { event, cursor, cost }, at) {
  const { sub_agent_id: key, name, data } = event;
  const isKnown = known.spans.some((s) => s.lane === "sub-agent" && s.key === key && s.end === null);
  const span = /** @type {Span} */ ({ lane: "sub-agent", key, label: name, start: at, end: null, result: "", cursor, last: [] });
  const begun = isKnown ? known : opened(known, span);
  const ending = /^SubAgent(Completed|Failed|Cancelled|Interrupted)$/.exec(data.type);
  if (ending !== null) return closed(begun, "sub-agent", key, at, { result: data.error ? `${ending[1]}: ${data.error}` : ending[1] });
  if (data.type === "ModelAnswered") {
    const spent = (/** @type {Span} */ s) => (s.lane === "sub-agent" && s.key === key && s.end === null ? { ...s, cost: (s.cost ?? 0) + (cost ?? 0) } : s);
    return counted({ ...begun, spans: begun.spans.map(spent) }, `${data.turn_id} / ${name}`, data.usage, cost);
  }
  if (data.type !== "MessageCompleted") return begun;
  const spans = begun.spans.map((s) =>
    s.lane === "sub-agent" && s.key === key && s.end === null ? { ...s, last: [...(s.last ?? []).slice(-5), summaryOf(data.message)] } : s,
  );
  return { ...begun, spans };
}

/** @param {any} message */
function summaryOf(message) {
  const parts = message.parts.map((/** @type {any} */ p) => p.text ?? p.content ?? (p.name ? `${p.name}(${JSON.stringify(p.arguments)})` : p.type));
  return `${message.role}: ${parts.join(" ")}`;
}

/** @param {Trace} known @param {string} turnId @param {any} usage @param {number | undefined} cost @returns {Trace} */
function counted(known, turnId, usage, cost) {
  const before = known.usage[turnId] ?? { input: 0, output: 0, calls: 0, cost: 0 };
  const after = {
    input: before.input + usage.input_tokens, output: before.output + usage.output_tokens, calls: before.calls + 1,
    cost: before.cost + (cost ?? 0),
  };
  return { ...known, usage: { ...known.usage, [turnId]: after } };
}

/** The places at which two JSON values differ. @param {any} before @param {any} after @param {string} place @returns {string[]} */
export function changesOf(before, after, place) {
  if (before === after) return [];
  if (before === null || after === null || typeof before !== "object" || typeof after !== "object") return [place || "all"];
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].flatMap((name) => {
    if (!(name in before)) return [`${place}/${name} is new`];
    if (!(name in after)) return [`${place}/${name} is gone`];
    return changesOf(before[name], after[name], `${place}/${name}`);
  });
}

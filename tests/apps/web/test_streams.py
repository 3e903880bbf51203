"""Whatever an agent does, and whatever a stream misses: the bytes are a valid stream, and the client shows what the uncut stream shows."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.apps.web._events import TURN, envelope, examples
from tests.apps.web._grammars import read_runs, read_ui_stream
from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    CancelCause,
    Cancelled,
    DisplayMessage,
    DisplayMessageSaved,
    DisplayMessageUpdated,
    Envelope,
    Interrupted,
    Message,
    MessageCompleted,
    ModelChunk,
    ModelFailed,
    OpaqueChunk,
    OpaquePart,
    PageView,
    Part,
    Reject,
    SessionConfig,
    SingleFactoryRouter,
    StatusChanged,
    StreamingMessage,
    SubAgentEvent,
    TextDelta,
    TextPart,
    ThinkingChunk,
    ThinkingDelta,
    ThinkingPart,
    ToolCall,
    ToolCallIdentified,
    ToolResultPart,
    TurnEnded,
    open_sessions,
)
from trio_sagents.testing import Call, ScriptedModel
from trio_sagents.web._ag_ui import AgUiEncoder, messages_json
from trio_sagents.web._relay import TurnRelay
from trio_sagents.web._turn_stream import stored_outcome
from trio_sagents.web._vercel import VercelEncoder

# ── any events, in any order


def _sequences() -> st.SearchStrategy[Sequence[Any]]:
    """Events of a turn in any order, with holes and repetitions, and pictures between them."""
    message_ids, call_ids = st.sampled_from(["a-1", "a-2", "a-3"]), st.sampled_from(["call-1", "call-2", "call-3"])
    deltas = st.builds(
        lambda kind, *fields: kind(*fields, TURN),
        st.sampled_from([TextDelta, ThinkingDelta]),
        st.text("xyz", max_size=3),
        message_ids,
        st.integers(0, 2),
        st.integers(0, 4),
    )
    calls = st.builds(lambda call_id: ToolCall(call_id, "pay", {"amount": 1}), call_ids)
    parts: st.SearchStrategy[Part] = st.one_of(
        st.builds(TextPart, st.text("xyz", max_size=5)), st.builds(ThinkingPart, st.text("xyz", max_size=5)), calls
    )
    answers = st.builds(
        lambda message_id, parts: MessageCompleted(Message(message_id, "assistant", parts, "stop", TURN), TURN),
        message_ids,
        st.lists(parts, max_size=4),
    )
    results = st.builds(
        lambda call_id, status: MessageCompleted(
            Message(f"r-{call_id}", "tool", [ToolResultPart(call_id, "pay", "done", status)], None, TURN), TURN
        ),
        call_ids,
        st.sampled_from(["completed", "failed", "cancelled", "unknown"]),
    )
    identified = st.builds(
        lambda call_id, message_id: ToolCallIdentified(ToolCall(call_id, "pay"), message_id, TURN), call_ids, message_ids
    )
    others = st.sampled_from([example.event for example in examples()]) | st.builds(
        lambda call_id, kind: SubAgentEvent(call_id, "worker", {"type": kind}),
        call_ids,
        st.sampled_from(["SubAgentStarted", "SubAgentResumed", "SubAgentCompleted", "SubAgentFailed", "SubAgentInterrupted"]),
    )
    pictures = st.builds(StreamingMessage, message_ids, st.lists(parts, max_size=3)) | st.none().map(lambda _: "nothing")
    return st.lists(st.one_of(deltas, answers, results, identified, others, pictures), max_size=25)


@settings(max_examples=150, deadline=None)
@given(_sequences())
def test_stream_when_anything_happens(events: Sequence[Any]) -> None:
    """Any sequence of events and pictures gives a stream that is valid for both clients."""
    relay, vercel, ag_ui = TurnRelay(TURN), VercelEncoder(), AgUiEncoder("c", "run-1")
    streams = [vercel.start(TURN), ag_ui.greeting() + ag_ui.start(TURN)]
    moves: list[Any] = []
    for event in events:
        if isinstance(event, StreamingMessage) or event == "nothing":
            moves += relay.catch_up((), event if isinstance(event, StreamingMessage) else None)
        else:
            moves += relay.apply(envelope(event))
    moves += relay.end(Cancelled(CancelCause.USER))

    read_ui_stream(streams[0] + vercel.encode(moves))
    read_runs(streams[1] + ag_ui.encode(moves))


def test_sub_agent_when_its_channel_is_behind() -> None:
    """A sub-agent ends before its call has its result, also if nobody has told so yet; what is told of it afterwards is left out."""
    call = ToolCall("call-1", "task")
    result = ToolResultPart("call-1", "task", "done", "failed")
    relay = TurnRelay(TURN)
    moves = [
        move
        for event in (
            MessageCompleted(Message("a-1", "assistant", [call], "tool_calls", TURN), TURN),
            SubAgentEvent("call-1", "worker", {"type": "SubAgentStarted"}),
            MessageCompleted(Message("r-1", "tool", [result], None, TURN), TURN),
            SubAgentEvent("call-1", "worker", {"type": "SubAgentFailed"}),
            SubAgentEvent("call-1", "worker", {"type": "SubAgentStarted"}),
        )
        for move in relay.apply(envelope(event))
    ]
    names = [type(move).__name__ for move in moves]

    assert ["SubAgentBegan", "SubAgentEnded", "CallEnded"] == names[names.index("SubAgentBegan") :]
    assert "failed" == moves[-2].status


# ── a real turn, cut anywhere


@attrs.frozen
class Moment:
    """An event of a real turn, and what a page shows when it was applied."""

    envelope: Envelope
    rows: Sequence[DisplayMessage]
    streaming: StreamingMessage | None
    calls: Sequence[ToolCall]


async def pay(amount: int) -> str:
    """Pay."""
    await trio.lowlevel.checkpoint()
    return f"paid {amount}"


_FAILS: Final = [
    "Thinking aloud",
    ModelFailed("overloaded", kind="overloaded", retry_after=0.1),
]
SCRIPTS: Final[dict[str, Any]] = {
    "text": ["Hello, how are you?"],
    "a tool": [["Let me pay", Call("pay", amount=1), Call("pay", amount=2)], "Paid it all"],
    "a retry": [_FAILS, "The answer after all"],
    "a failure": [["half an answer", ValueError("no")]],
    "thinking": [["Let me pay", Call("pay", amount=1)], "Paid"],
    "an approval": [["May I?", Call("pay", amount=100), Call("pay", amount=200)], "Thanks"],
}


class ThinkingModel(ScriptedModel):
    """Thinks aloud before each answer, and gives a piece that only its provider can read."""

    def chunks(self, reply: Any) -> Iterator[ModelChunk]:
        """Return the chunks of a reply."""
        yield ThinkingChunk("Hm, ")
        yield OpaqueChunk(OpaquePart("scripted", {"key": "value"}))
        yield ThinkingChunk("well")
        yield ThinkingChunk(", well")
        yield from super().chunks(reply)


def _agent(name: str) -> Agent:
    middleware = [Approvals({"pay": True})] if name == "an approval" else []
    model = ThinkingModel if name == "thinking" else ScriptedModel
    return Agent(model=model(SCRIPTS[name], chunk_size=4), tools=[pay], middleware=middleware)


async def _record(name: str) -> tuple[str, list[Moment]]:
    """Run a turn, and return what happened, with what a page shows at each moment."""
    view, moments = PageView(), []
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(_agent(name)))) as sessions, sessions.watch("c") as watch:
        first = await anext(watch)
        view.apply([first])
        outcome = await (await sessions.post("c", "Hi", message_id="m-1")).wait()
        while isinstance(outcome, Interrupted):
            first_call, *rest = outcome.interrupt.calls
            decisions = [Approve(first_call), *(Reject(call, "no") for call in rest)]
            outcome = await (await sessions.resume("c", decisions)).wait()
        with trio.move_on_after(1):
            async for each in watch:
                view.apply([each])
                if view.needs_history:
                    view.needs_history = False
                moments.append(Moment(each, view.rows, view.present.streaming, view.present.tool_calls))
    # The events of one commit come in one go: a page never shows a part of its rows.
    for index in reversed(range(len(moments) - 1)):
        if isinstance(moments[index].envelope.event, DisplayMessageSaved | DisplayMessageUpdated):
            moments[index] = attrs.evolve(moments[index], rows=moments[index + 1].rows)
    (turn_id,) = {moment.envelope.event.turn_id for moment in moments if isinstance(moment.envelope.event, TurnEnded)}
    return turn_id, moments


def _runs(moments: Sequence[Moment]) -> list[list[Moment]]:
    """Split what happened where the turn ended, behind the status that follows: it ends more than once if it waited for people."""
    runs: list[list[Moment]] = [[]]
    has_ended = False
    for moment in moments:
        runs[-1].append(moment)
        has_ended = has_ended or isinstance(moment.envelope.event, TurnEnded)
        if has_ended and isinstance(moment.envelope.event, StatusChanged):
            runs.append([])
            has_ended = False
    return runs[:-1]


def _streamed(turn_id: str, moments: Sequence[Moment]) -> tuple[list[Any], dict[str, Any]]:
    """Return what both clients show of an uncut stream."""
    vercel_streams, ag_ui_streams = [], []
    relay = TurnRelay(turn_id, known_messages={"m-1"})
    for number, run in enumerate(_runs(moments)):
        vercel, ag_ui = VercelEncoder(), AgUiEncoder("c", f"run-{number}")
        if number:
            relay = attrs.evolve(relay, is_over=False)
        moves = [move for moment in run for move in relay.apply(moment.envelope)]
        vercel_streams.append(vercel.start(turn_id) + vercel.encode(moves))
        ag_ui_streams.append(ag_ui.greeting() + ag_ui.start(turn_id) + ag_ui.encode(moves))
    return read_ui_stream(*vercel_streams).shown(), read_runs(*ag_ui_streams).shown()


def _without_states(shown: Sequence[Any]) -> list[Any]:
    """Return what is shown, without the way in which a call was refused: the transcript does not say that a person rejected it."""
    return [part if len(part) == 3 else (part[0], part[1], part[3], part[2] == "tool-output-available") for part in shown]


@pytest.mark.parametrize("name", SCRIPTS)
async def test_stream_when_it_begins_in_the_middle(name: str, autojump_clock: trio.testing.MockClock) -> None:
    """A stream that begins at any moment of a turn replays it from its start: in the end, the client shows what the uncut stream shows."""
    turn_id, moments = await _record(name)
    whole, whole_run = _streamed(turn_id, moments)
    for cut in range(len(moments) - len(_runs(moments)[-1]), len(moments)):
        if isinstance(moments[cut].envelope.event, TurnEnded):
            break
        relay, vercel = TurnRelay(turn_id, known_messages={"m-1"}), VercelEncoder()
        moves = [*relay.catch_up(moments[cut].rows, moments[cut].streaming, moments[cut].calls)]
        moves += [move for moment in moments[cut + 1 :] for move in relay.apply(moment.envelope)]

        shown = read_ui_stream(vercel.start(turn_id) + vercel.encode(moves)).shown()
        assert _without_states(whole) == _without_states(shown), cut

        relay, ag_ui = TurnRelay(turn_id, known_messages={"m-1"}), AgUiEncoder("c", "run-9")
        relay.catch_up(moments[cut].rows, moments[cut].streaming, moments[cut].calls)
        stream = ag_ui.greeting() + ag_ui.snapshot(messages_json(moments[cut].rows, moments[cut].streaming)) + ag_ui.start(turn_id)
        moves = [*relay.resume_speaking(), *(move for moment in moments[cut + 1 :] for move in relay.apply(moment.envelope))]
        joined = read_runs(stream + ag_ui.encode(moves)).shown()
        joined.pop("m-1", None)
        assert whole_run == joined, cut


@pytest.mark.parametrize("name", SCRIPTS)
async def test_stream_when_events_are_missing(name: str, autojump_clock: trio.testing.MockClock) -> None:
    """Any events may be missing before a picture: nothing is lost, and nothing is shown twice."""
    turn_id, moments = await _record(name)
    moments = _runs(moments)[0]
    last = next(index for index, moment in enumerate(moments) if isinstance(moment.envelope.event, TurnEnded))
    whole, whole_run = _streamed(turn_id, moments)
    for first in range(last):
        for healed in range(first, last):
            relay, vercel, ag_ui = TurnRelay(turn_id, known_messages={"m-1"}), VercelEncoder(), AgUiEncoder("c", "run-1")
            moves = [move for moment in moments[:first] for move in relay.apply(moment.envelope)]
            moves += relay.catch_up(moments[healed].rows, moments[healed].streaming, moments[healed].calls)
            moves += [move for moment in moments[healed + 1 :] for move in relay.apply(moment.envelope)]
            shown = read_ui_stream(vercel.start(turn_id) + vercel.encode(moves)).shown()
            run = read_runs(ag_ui.greeting() + ag_ui.encode(moves)).shown()

            assert _joined(_without_states(whole)) == _joined(_without_states(shown)), (first, healed)
            assert whole_run == run, (first, healed)


def _joined(shown: Sequence[Any]) -> list[Any]:
    """Return what is shown, with the pieces of one text joined, wherever they are between the calls of their message."""
    texts: dict[str, str] = {}
    for part in shown:
        if len(part) == 3:
            texts[part[1]] = texts.get(part[1], "") + part[2]
    return [sorted(texts.items()), [part for part in shown if len(part) != 3]]


@pytest.mark.parametrize("name", SCRIPTS)
async def test_outcome_when_only_rows_tell(name: str, autojump_clock: trio.testing.MockClock) -> None:
    """What the rows say of how a turn ended is what its event said."""
    turn_id, moments = await _record(name)
    outcomes = [moment.envelope.event.outcome for moment in moments if isinstance(moment.envelope.event, TurnEnded)]

    assert type(outcomes[-1]) is type(stored_outcome(turn_id, moments[-1].rows, None))

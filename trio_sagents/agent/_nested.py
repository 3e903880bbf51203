"""Sub-agents: a turn inside a tool call, with a history of its own that nobody stores.

The turn ends with the call. If the turn waits for people, its whole state becomes part of the call (`Suspended`), and the call is
made again when they have decided. The turn then continues from that state, so nothing that it did is done again.

What the middleware of a sub-agent keeps in `context.memory` is kept while the sub-agent waits, as long as the agent around it lives.
If the agent leaves meanwhile, or the process restarts, the memory is empty when the sub-agent continues; the metadata is there.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from trio_sagents._trio.groups import in_nursery, leaves
from trio_sagents.agent._agent import Agent, Ended
from trio_sagents.agent._context import TurnContext
from trio_sagents.agent._host import AsyncFunction
from trio_sagents.agent._middleware import Pipeline
from trio_sagents.agent._progress import OpenCall, Progress, Suspended
from trio_sagents.agent._tools import RunnableAgent
from trio_sagents.conversation.decided import as_run
from trio_sagents.conversation.expansions import expanded, with_expansion
from trio_sagents.conversation.history import open_calls
from trio_sagents.data.cursors import Channel
from trio_sagents.data.event_wire import event_to_dict
from trio_sagents.data.events import DeltaMaker, Event, MessageCompleted, MiddlewareEvent, SubAgentEvent, ToolExecutionUpdated
from trio_sagents.data.ids import check_id
from trio_sagents.data.interrupt_wire import decode_pending, decode_usage, encode_pending
from trio_sagents.data.interrupts import DecisionRecord, Interrupt, PendingCall, interrupt_kind
from trio_sagents.data.json import JSON, JSONValue, Opaque, Options, check_text
from trio_sagents.data.messages import Message, TextPart, ToolCall, ToolResult
from trio_sagents.data.outcomes import Cancelled, Completed, Failed, Interrupted, TurnOutcome, Usage, encode_usage
from trio_sagents.data.records import Row
from trio_sagents.data.scopes import Scope
from trio_sagents.data.state import OlderMessages, State
from trio_sagents.data.status import CancelCause
from trio_sagents.data.todos import Todo
from trio_sagents.data.wire import decode_message, decode_metadata, decode_todos, encode_message, encode_todo
from trio_sagents.exceptions import LimitExceeded, ModelFailed, StateError

RunTurn: TypeAlias = Callable[[Pipeline, TurnContext], Awaitable[Ended]]
"""`run_turn`: handed down to here, because a turn runs calls, and a call may run a turn."""
MAX_DEPTH: Final = 8
"""How deep sub-agents may nest, even if `SubAgents.max_depth` is larger."""


class Surroundings(Protocol):
    """The part of the surrounding turn that a turn in memory uses."""

    @property
    def turn_id(self) -> str:
        """The id of the turn around it."""
        ...

    @property
    def conversation_id(self) -> str:
        """The conversation's id."""
        ...

    @property
    def agent_id(self) -> str:
        """The agent's id."""
        ...

    @property
    def scope(self) -> Scope:
        """The agent's scope."""
        ...

    @property
    def max_message_bytes(self) -> int:
        """Bytes that an answer may have."""
        ...

    @property
    def max_tool_output_bytes(self) -> int:
        """Bytes that the model reads of one tool call."""
        ...

    @property
    def threads(self) -> trio.CapacityLimiter:
        """For tools that are plain functions."""
        ...

    def new_id(self) -> str:
        """Return an id that no message and no call of the conversation has."""
        ...

    def decision_of(self, call_id: str) -> DecisionRecord | None:
        """Return the decision that holds for a call."""
        ...

    async def may_act(self) -> bool:
        """Return whether a tool may begin."""
        ...

    def publish(self, event: Event, channel: Channel = "main") -> None:
        """Send an event to the subscribers."""
        ...

    def publish_debug(self, make: Callable[[], Event]) -> None:
        """Tell those who follow the debug channel an event that is costly to make; it is made only if somebody does."""
        ...

    def note_waiting(self) -> None:
        """The calls that wait for people have changed while others run."""
        ...

    @property
    def options(self) -> Options:
        """The host's own options of the session."""
        ...

    @property
    def values(self) -> Options:
        """The host's own values of the post that began the turn."""
        ...

    async def update(self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = ()) -> None:
        """Keep rows of the transcript, which is the conversation's."""
        ...


@attrs.define(eq=False)
class NestedTurn:
    """A turn in memory; implements `TurnContext`."""

    parent: Surroundings
    sub_agent_id: str
    """The id of the call that the turn runs in."""
    name: str
    path: Sequence[str]
    nursery: trio.Nursery
    """Ends with the call."""
    progress: Progress = attrs.field(factory=Progress)
    opened: OpenCall | None = None
    """The call that the turn runs in; None if no call is around it."""
    is_quiet: bool = False
    """Whether nobody is told what the sub-agent does."""
    first: Sequence[Message] = ()
    """The messages with which the history begins, before the prompt."""
    has_ended: bool = False
    goes_on: bool = False
    _messages: list[Message] = attrs.field(factory=list)
    _todos: Sequence[Todo] = ()
    _metadata: dict[str, JSONValue] = attrs.field(factory=dict)

    # ── what is the parent's

    @property
    def turn_id(self) -> str:
        return self.parent.turn_id

    @property
    def conversation_id(self) -> str:
        return self.parent.conversation_id

    @property
    def agent_id(self) -> str:
        return self.parent.agent_id

    @property
    def scope(self) -> Scope:
        return self.parent.scope

    @property
    def max_message_bytes(self) -> int:
        return self.parent.max_message_bytes

    @property
    def max_tool_output_bytes(self) -> int:
        return self.parent.max_tool_output_bytes

    @property
    def threads(self) -> trio.CapacityLimiter:
        return self.parent.threads

    def new_id(self) -> str:
        return self.parent.new_id()

    def is_used(self, made: str) -> bool:
        return any(made == message.message_id or any(made == call.call_id for call in message.calls) for message in self._messages)

    def knows_call(self, call_id: str) -> bool:
        return True  # so each call of the sub-agent gets an id that nothing in the conversation has

    @property
    def has_older(self) -> bool:
        return False

    async def find_used(self, ids: Sequence[str]) -> AbstractSet[str]:
        await trio.lowlevel.checkpoint()
        return frozenset()

    def decision_of(self, call_id: str) -> DecisionRecord | None:
        return self.parent.decision_of(call_id)

    async def may_act(self) -> bool:
        return await self.parent.may_act()

    # ── what is its own

    def state(self) -> State:
        return State(self._messages, self._todos, self._metadata)

    def messages(self) -> Sequence[Message]:
        return tuple(
            attrs.evolve(message, parts=tuple(self._as_run(part) for part in message.parts)) if message.calls else message
            for message in self._messages
        )

    def _as_run(self, part: Opaque) -> Opaque:
        return as_run(part, self.decision_of(part.call_id)) if isinstance(part, ToolCall) else part

    def publish(self, event: Event, channel: Channel = "main") -> None:
        if isinstance(event, SubAgentEvent):
            if not self.is_quiet:
                self.parent.publish(event, "debug")  # of a sub-agent of its own
        elif isinstance(event, MiddlewareEvent):
            self.parent.publish(event, channel)  # about something that is not only the sub-agent's, such as a file
        else:
            self.tell(event_to_dict(event))

    def publish_delta(self, kind: DeltaMaker, text: str, message_id: str, part: int, offset: int) -> None:
        self.publish(kind(text, message_id, part, offset, self.turn_id))

    def publish_debug(self, make: Callable[[], Event]) -> None:
        if self.is_quiet:
            return
        self.parent.publish_debug(lambda: SubAgentEvent(self.sub_agent_id, self.name, event_to_dict(make())))

    def tell(self, data: JSON) -> None:
        """Tell the debug channel what the sub-agent does."""
        if self.is_quiet:
            return
        self.parent.publish(SubAgentEvent(self.sub_agent_id, self.name, data), "debug")

    @property
    def options(self) -> Options:
        return self.parent.options

    @property
    def values(self) -> Options:
        return self.parent.values

    async def older_messages(self, before: str | None, limit: int) -> OlderMessages:
        await trio.lowlevel.checkpoint()
        return OlderMessages(())  # the history of a sub-agent is in memory

    async def update(
        self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = (), covers: str | None = None
    ) -> None:
        if rows:
            await self.parent.update(None, None, rows)
        if todos is not None:
            self._todos = tuple(todos)
        for key, value in (metadata or {}).items():
            if value is None:
                self._metadata.pop(key, None)
            else:
                self._metadata[key] = value
        await trio.lowlevel.checkpoint()

    @property
    def usage(self) -> Usage:
        return self.progress.usage

    @property
    def usage_by_model(self) -> Mapping[str, Usage]:
        return self.progress.usage_by_model

    def add_usage(self, usage: Usage, model: str, unreported: Usage) -> None:
        self.progress.add_usage(usage, model, unreported)

    def start_soon(self, function: AsyncFunction, *args: Opaque) -> None:
        self.nursery.start_soon(function, *args)

    def note_draft(self) -> None:
        """Nothing of the turn is stored before it waits."""

    def note_waiting(self) -> None:
        if self.opened is not None:
            self.opened.foreseen = self.progress.waiting()
        self.parent.note_waiting()

    async def take_steered(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    def ask(self, prompt: str) -> None:
        """Begin the history: with the first messages, and then the prompt."""
        for message in self.first:
            self._messages.append(attrs.evolve(message, message_id=self.new_id(), turn_id=self.turn_id))
        self._messages.append(Message(self.new_id(), "user", (TextPart(prompt),), None, self.turn_id))

    async def commit_answer(self, message: Message, usage: Usage, waiting: Mapping[str, PendingCall]) -> None:
        self.progress.open(message.calls, waiting)
        self._keep(message)
        await trio.lowlevel.checkpoint()

    async def commit_result(self, call: ToolCall, result: ToolResult, expands: Sequence[Message] = ()) -> None:
        self.progress.open_calls.pop(call.call_id, None)
        self._note_outcome(result)
        self._keep(with_expansion(Message(self.new_id(), "tool", (result,), None, self.turn_id), expands))
        self.publish(ToolExecutionUpdated(attrs.evolve(call, status=result.status), result.status, self.turn_id, result.content))
        await trio.lowlevel.checkpoint()

    async def expand(self) -> None:
        for message in expanded(self._messages, self.new_id, self.turn_id):
            self._keep(message)
        await trio.lowlevel.checkpoint()

    def _note_outcome(self, result: ToolResult) -> None:
        if self.decision_of(result.call_id) is not None:
            self.progress.note_inner(result.call_id, result.status)

    def interrupt_of(self, waiting: Sequence[OpenCall]) -> Interrupted:
        calls = [request for opened in waiting for request in opened.requests]
        return Interrupted(Interrupt("", self.turn_id, calls, interrupt_kind(calls)))

    async def interrupt(self, outcome: Interrupted, waiting: Sequence[OpenCall]) -> None:
        self.has_ended = True
        raise Suspended(outcome.interrupt.calls, self._record(waiting))

    async def complete(self, message: Message, usage: Usage, value: object) -> Completed:
        self.progress.draft = None
        self._keep(message)
        self.has_ended = True
        await trio.lowlevel.checkpoint()
        return Completed(message, self.progress.usage, value)

    def _keep(self, message: Message) -> None:
        self._messages.append(message)
        self.publish(MessageCompleted(message, self.turn_id))

    # ── sleeping and waking

    def _record(self, waiting: Sequence[OpenCall]) -> JSON:
        return {
            "name": self.name,
            "messages": [encode_message(message) for message in self._messages],
            "todos": [encode_todo(todo) for todo in self._todos],
            "metadata": self._metadata,
            "rounds": self.progress.rounds,
            "calls": self.progress.calls,
            "usage": encode_usage(self.progress.usage),
            "waiting": {opened.call.call_id: [encode_pending(request) for request in opened.requests] for opened in waiting},
            "suspended": {opened.call.call_id: opened.record for opened in waiting if opened.record is not None},
        }

    def wake(self, record: JSON) -> None:
        """Restore the state in which the sub-agent waited; StateError if the record cannot be used."""
        known = self.conversation_id
        if set(record) != {"name", "messages", "todos", "metadata", "rounds", "calls", "usage", "waiting", "suspended"}:
            raise StateError(known, f"a suspended sub-agent has the keys {sorted(map(str, record))}")
        if record["name"] != self.name or not isinstance(record["messages"], list):
            raise StateError(known, f"the call {self.sub_agent_id!r} had another sub-agent")
        self._messages = [decode_message(known, message) for message in record["messages"]]
        for message in self._messages:
            for result in message.results:
                self._note_outcome(result)
        self._todos = decode_todos(known, record["todos"])
        self._metadata = dict(decode_metadata(known, record["metadata"]))
        for name in ("rounds", "calls"):
            if type(record[name]) is not int or record[name] < 0:
                raise StateError(known, f"the {name} of a suspended sub-agent are {record[name]!r}")
        self.progress.usage = decode_usage(known, record["usage"])
        self.goes_on = True
        self.progress.rounds, self.progress.calls = record["rounds"], record["calls"]
        for call in open_calls(self._messages):
            waited = [decode_pending(known, request) for request in record["waiting"].get(call.call_id, ())]
            own = next((request for request in waited if request.call_id == call.call_id), None)
            inside = record["suspended"].get(call.call_id)
            self.progress.open_calls[call.call_id] = OpenCall(call, "interrupted", claim=own, record=inside)


@attrs.frozen(eq=False)
class CallHost:
    """What the context of one call asks of the turn that runs the call; implements `ToolHost`."""

    pipeline: Pipeline
    context: TurnContext
    opened: OpenCall
    scope: trio.CancelScope
    """Around the call."""
    run_turn: RunTurn

    async def update(self, todos: Sequence[Todo] | None, metadata: JSON | None, rows: Sequence[Row] = ()) -> None:
        await self.context.update(todos, metadata, rows)

    async def run_agent(
        self, agent: RunnableAgent, prompt: str, name: str, messages: Sequence[Message] = (), *, quiet: bool = False
    ) -> Completed:
        if len(self.pipeline.path) >= MAX_DEPTH:
            raise LimitExceeded("depth", len(self.pipeline.path) + 1, most=MAX_DEPTH)
        check_id("name", name)
        if not isinstance(prompt, str) or not check_text(prompt, "prompt").strip():
            raise ValueError("the prompt of a sub-agent is a text that is not empty")
        if not isinstance(agent, Agent):
            raise TypeError(f"run_agent takes an Agent, not {agent!r}")
        check_first_messages(messages)
        opened = self.opened
        if opened.has_run_agent:
            raise RuntimeError("this call has already run a sub-agent, and a call runs only one; make one call for each sub-agent")
        if self.context.progress.open_calls.get(opened.call.call_id) is not opened or opened.result is not None:
            raise RuntimeError("this call has ended: a sub-agent runs inside the call whose context it is given")
        opened.has_run_agent = True
        record, opened.record = opened.record, None
        path = (*self.pipeline.path, name)
        context = self.context

        async def run(nursery: trio.Nursery) -> Completed:
            turn = context.progress
            progress = Progress(around=turn, halt=turn.halt, scopes=(*turn.scopes, self.scope))
            nested = NestedTurn(context, opened.call.call_id, name, path, nursery, progress, opened, quiet, messages)
            outer = self.pipeline
            pipeline = Pipeline(agent, path, outer, around=context, conversation_id=outer.conversation_id, watch=outer.watch)
            if record is None:
                nested.ask(prompt)
                nested.tell(
                    {"type": "SubAgentStarted", "prompt": prompt, "model": str(getattr(agent.model, "name", "")), "path": list(path)}
                )
            else:
                nested.wake(record)
                pipeline.continue_from(opened.call.call_id)
                nested.tell({"type": "SubAgentResumed"})
            try:
                await pipeline.start(nested)
                outcome = await self.run_turn(pipeline, nested)
            except BaseException as error:
                if any(isinstance(leaf, Suspended) for leaf in leaves(error)):
                    self.pipeline.remembered.agents[opened.call.call_id] = pipeline
                nested.tell(_last_word(error))
                pipeline.turn_ended(_outcome_of(error, nested), nested, nested.turn_id)
                raise
            assert isinstance(outcome, Completed)
            pipeline.turn_ended(outcome, nested, nested.turn_id)
            if outcome.cut is not None:
                raise _half_an_answer(outcome, nested)
            nested.tell({"type": "SubAgentCompleted", "text": outcome.message.text})
            return outcome

        return await in_nursery(run)


def check_first_messages(messages: object) -> None:
    """Raise TypeError or ValueError unless a history can begin with these messages."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise TypeError(f"the first messages of a sub-agent are a sequence of Message, not {type(messages).__name__}")
    for message in messages:
        if not isinstance(message, Message) or message.role not in {"user", "assistant"}:
            raise TypeError(f"the first messages of a sub-agent are Messages of users and assistants, not {message!r}"[:300])
        if message.calls or message.results or not message.parts:
            raise ValueError("the first messages of a sub-agent have text, images or files, and no tool calls")


def _half_an_answer(outcome: Completed, nested: NestedTurn) -> ModelFailed:
    """Return the error for a sub-agent whose answer is not whole: its parent must not take half an answer for a result."""
    said = outcome.message.text.strip()
    error = ModelFailed(f"the answer of the sub-agent {nested.name!r} was cut off ({outcome.cut}). It said: {said}", kind="incomplete")
    nested.tell(_last_word(error))
    return error


def _outcome_of(error: BaseException, nested: NestedTurn) -> TurnOutcome:
    found = leaves(error)
    suspended = next((leaf for leaf in found if isinstance(leaf, Suspended)), None)
    if suspended is not None:
        return Interrupted(Interrupt("", nested.turn_id, suspended.requests, interrupt_kind(suspended.requests)))
    failed = next((leaf for leaf in found if isinstance(leaf, Exception)), None)
    return Cancelled(CancelCause.HOST_CANCELLED) if failed is None else Failed(failed)


def _last_word(error: BaseException) -> JSON:
    found = leaves(error)
    if any(isinstance(leaf, Suspended) for leaf in found):
        return {"type": "SubAgentInterrupted"}
    if any(isinstance(leaf, trio.Cancelled) for leaf in found):
        return {"type": "SubAgentCancelled"}
    return {"type": "SubAgentFailed", "error": type(found[0]).__name__}

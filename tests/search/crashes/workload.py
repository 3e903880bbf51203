"""What the processes do that are killed: busy conversations in `open_sessions`, on the library's own SqliteStore.

In each of several conversations two people post, cancel, stop and post again, a scripted model talks and calls tools, and whatever
the library acknowledges is noted *after* it did so. A note is one line, written in one go to a pipe (or to a list, where the
disk is recorded), so what was noted had been acknowledged, whatever happens to the process then:

    posted     conversation message_id                 `post` returned
    again      conversation message_id                 `post` returned, of what was posted before, or was to be
    outcome    conversation message_id kind detail     `receipt.wait` returned: the id of the answer, or the cause
    cancelled  conversation kind                       `cancel_turn` returned
    asking     conversation cause                      somebody is about to cut a turn, which will have this cause
    started    conversation call_id                    a tool began (noted *before* it has an effect)
    finished   conversation call_id                    it is about to return (noted *after* it had its effect)
    stopped    conversation                            `stop` returned
    deciding   conversation call_id kind amount        a person is about to decide about a payment of that amount
    decided    conversation call_id kind               `resume` returned
    paid       conversation call_id amount             the payment began, with that amount
"""

import functools
import itertools
import math
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Literal, Protocol, TypeAlias, assert_never, get_args

import attrs
import trio
import trio.testing

from trio_sagents import (
    Agent,
    Approvals,
    Approve,
    Cancelled,
    Completed,
    Decision,
    Edit,
    Failed,
    Interrupted,
    ModelFailed,
    QueueFull,
    Receipt,
    Reject,
    SagentsError,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    SqliteStore,
    ToolContext,
    TurnOutcome,
    Unanswered,
    open_sessions,
)
from trio_sagents.abc import Overlap
from trio_sagents.data.requests import ModelRequest
from trio_sagents.testing import Call, ScriptedModel
from trio_sagents.testing._scripted import Reply


class Note(Protocol):
    """Notes one line with these words."""

    def __call__(self, *words: str) -> None: ...


Ending: TypeAlias = Literal["drain", "leave", "cancel", "raise"]
"""What a host does on SIGTERM: it drains; or leaves the block of `open_sessions`, which is cancelled, or raises."""
PEOPLE: Final = ("a", "b")


@attrs.frozen(kw_only=True)
class Life:
    """One process: what it is to do."""

    path: str
    number: int
    """Which life of this file it is; in the ids of its messages."""
    seed: int
    conversations: int = 6
    synchronous: str = "FULL"
    posts: int | None = None
    """How many messages each person posts; None continues until something ends the process."""
    is_last: bool = False
    """Whether every turn is to be completed: no model fails then, and nothing waits for a person, for both hold the queue."""

    grace: float = 30.0
    """Seconds that turns may take to finish when `open_sessions` is left, or on `drain`."""

    @property
    def policy(self) -> SessionPolicy:
        """Drafts often; no bound on settling that a busy machine could reach. In every second life the windows are small."""
        window = 8 if self.number % 2 else math.inf
        return SessionPolicy(draft_interval=0.005, settle_timeout=60.0, queue_limit=8, grace_period=self.grace, window=window)

    def store(self) -> SqliteStore:
        """Return the store, not open."""
        return SqliteStore(self.path, synchronous=self.synchronous)  # type: ignore[arg-type]  # one of the two


def noting_to(pipe: int) -> Note:
    """Return a function that notes to a pipe: a line at once, which no kill can cut."""

    def note(*words: str) -> None:
        os.write(pipe, (" ".join(words) + "\n").encode())

    return note


def names(life: Life) -> Sequence[str]:
    """Return the ids of the conversations."""
    return [f"c{n}" for n in range(life.conversations)]


@functools.lru_cache(maxsize=10_000)
def text_of(message_id: str) -> str:
    """Return what a message says: made from its id alone, so that anybody can check it."""
    return f"{message_id} " + "x" * random.Random(message_id).choice((5, 50, 3000))


# ── the agent


def agent_of(life: Life, note: Note) -> Agent:
    """Return an agent that talks, calls tools, and sometimes fails."""
    choose = random.Random(f"model {life.seed}")

    def reply(request: ModelRequest) -> Reply:
        last = request.messages[-1]
        if last.text.startswith("closing"):
            return f"goodbye {last.message_id}"
        if choose.random() < 0.05 and not life.is_last:
            return ModelFailed("the provider is ill today")
        said = f"answer to {last.message_id} " + "y" * choose.choice((0, 20, 400, 5000))
        if choose.random() < 0.45:
            tools = choose.choices(
                ("walk", "run", "think", "nothing", "pay"), (5, 3, 2, 1, 0 if life.is_last else 3), k=choose.randint(1, 3)
            )
            pauses = [choose.choice((0, 1, 4, 20)) for _ in tools]
            return [
                said,
                *(
                    Call(tool, amount=pause) if tool == "pay" else Call(tool, pause=pause)
                    for tool, pause in zip(tools, pauses, strict=True)
                ),
            ]
        return said

    async def walk(pause: int, context: ToolContext) -> str:
        """Wait."""
        note("started", context.conversation_id, context.call_id)
        await trio.sleep(pause / 1000)
        note("finished", context.conversation_id, context.call_id)
        return f"walked {pause}"

    async def run(pause: int, context: ToolContext) -> str:
        """Count."""
        note("started", context.conversation_id, context.call_id)
        for _ in range(pause):
            await trio.lowlevel.checkpoint()
        if pause == 4:
            raise ValueError("stumbled")
        note("finished", context.conversation_id, context.call_id)
        return "z" * 1000 * pause

    def think(pause: int, context: ToolContext) -> str:
        """Block a thread."""
        note("started", context.conversation_id, context.call_id)
        time.sleep(pause / 1000)
        note("finished", context.conversation_id, context.call_id)
        return "thought"

    async def pay(amount: int, context: ToolContext) -> str:
        """Pay."""
        note("started", context.conversation_id, context.call_id)
        note("paid", context.conversation_id, context.call_id, str(amount))
        await trio.sleep(0.002)
        note("finished", context.conversation_id, context.call_id)
        return f"paid {amount}"

    return Agent(
        model=ScriptedModel(reply, chunk_size=300, chunk_interval=0.001),
        tools=[walk, run, think, pay],
        middleware=[Approvals({"pay": True})],
    )


def config_of(life: Life, note: Note) -> SessionConfig:
    """Return the settings of a life."""
    return SessionConfig(factory_router=SingleFactoryRouter(agent_of(life, note)), store=life.store(), policy=life.policy)


# ── the people


def note_outcome(note: Note, name: str, message_id: str, outcome: TurnOutcome) -> None:
    """Note how a turn ended."""
    match outcome:
        case Completed(message=answer):
            note("outcome", name, message_id, "completed", answer.message_id)
        case Cancelled(cause=cause):
            note("outcome", name, message_id, "cancelled", cause)
        case Failed():
            note("outcome", name, message_id, "failed", "-")
        case Unanswered(reason=reason):
            note("outcome", name, message_id, "unanswered", reason)
        case Interrupted():
            note("outcome", name, message_id, "interrupted", "-")
        case _:
            assert_never(outcome)


async def converse(sessions: Sessions, name: str, person: str, life: Life, note: Note) -> None:
    """Post, wait or not, cancel, stop, and post earlier messages again."""
    choose = random.Random(f"{life.seed} {name} {person}")
    async with trio.open_nursery() as waiting:
        for number in range(3 if life.number else 0):
            # A person who does not know the outcome of a post posts again, and learns the outcome if the message was accepted.
            await again(sessions, name, f"{life.number - 2}.{person}.{number}", note, waiting)
        await decide(sessions, name, choose, note)
        for number in itertools.count() if life.posts is None else range(life.posts):
            message_id = f"{life.number}.{person}.{number}"
            overlap: Overlap = choose.choices(get_args(Overlap), (6, 2, 1, 1))[0]
            if overlap == "interrupt":
                note("asking", name, "superseded")
            try:
                receipt = await sessions.post(name, text_of(message_id), message_id=message_id, overlap=overlap)
            except SagentsError:
                await trio.sleep(0.001)  # busy, full, or stopped by the other person: refused, so there is nothing to note
                continue
            note("posted", name, message_id)

            answered = trio.Event()
            waiting.start_soon(_wait, receipt, name, note, answered)
            deed = choose.random()
            if deed < 0.6:
                with trio.move_on_after(0.05):  # a failed turn may hold it
                    await answered.wait()
            if deed < 0.8:
                await decide(sessions, name, choose, note)
            if deed > 0.95:
                note("asking", name, "stopped")
                await sessions.stop(name, grace_period=choose.choice((0.0, 0.002)))
                note("stopped", name)
            elif deed > 0.9:
                note("asking", name, "user")
                with suppress(SagentsError):
                    outcome = await sessions.cancel_turn(name)
                    note("cancelled", name, type(outcome).__name__)
            elif deed > 0.85:
                await again(sessions, name, message_id, note, waiting)
        # The messages that a failed turn holds in the queue would be waited for until the idle agent leaves.
        note("asking", name, "stopped")
        await sessions.stop(name, grace_period=0.05)


async def _wait(receipt: Receipt, name: str, note: Note, answered: trio.Event) -> None:
    note_outcome(note, name, receipt.message_id, await receipt.wait())
    answered.set()


async def again(sessions: Sessions, name: str, message_id: str, note: Note, waiting: trio.Nursery) -> None:
    """Post again what was posted, or should have been."""
    with suppress(SagentsError):
        receipt = await sessions.post(name, text_of(message_id), message_id=message_id)
        note("again", name, message_id)
        waiting.start_soon(_wait, receipt, name, note, trio.Event())


async def decide(sessions: Sessions, name: str, choose: random.Random, note: Note) -> None:
    """Decide about the pending calls, if there are any: about all, or about the first. Others may do so at the same time."""
    with suppress(SagentsError):
        handle = await sessions.get(name)
        interrupt = (await handle.info()).interrupt
        if interrupt is None:
            return
        decisions: list[Decision] = []
        for call in interrupt.calls[: choose.choice((1, 10))]:
            amount = call.arguments["amount"]
            assert isinstance(amount, int)
            match choose.choices(("approve", "edit", "reject"), (4, 1, 1))[0]:
                case "approve":
                    decisions.append(Approve(call))
                case "edit":
                    amount += 1000
                    decisions.append(Edit(call, {"amount": amount}))
                case _:
                    decisions.append(Reject(call))
            note("deciding", name, call.call_id, decisions[-1].kind, str(amount))
        await sessions.resume(name, decisions)
        for decision in decisions:
            note("decided", name, decision.call_id, decision.kind)
        if choose.random() < 0.3:
            receipt = await sessions.resume(name, decisions)  # a second press of the button
            assert receipt.duplicate


async def live(life: Life, note: Note) -> None:
    """Live until something ends the process, or all is posted and answered."""
    async with open_sessions(config_of(life, note)) as sessions, trio.open_nursery() as nursery:
        for name in names(life):
            for person in PEOPLE:
                nursery.start_soon(converse, sessions, name, person, life, note)


async def close(life: Life, note: Note) -> None:
    """Post one last message in each conversation. Each must be answered. The messages that were left in the queues are answered first."""
    async with open_sessions(config_of(life, note)) as sessions, trio.open_nursery() as nursery:
        for name in names(life):
            nursery.start_soon(_say_goodbye, sessions, name, f"{life.number}.z.0", note)


async def _say_goodbye(sessions: Sessions, name: str, message_id: str, note: Note) -> None:
    while True:
        with suppress(QueueFull):
            receipt = await sessions.post(name, f"closing {message_id}", message_id=message_id)
            break
        await decide(sessions, name, random.Random(message_id), note)  # a queue may be full while a turn waits for a person
        await trio.sleep(0.002)
    note("posted", name, message_id)
    outcome = await receipt.wait()
    note_outcome(note, name, message_id, outcome)
    note("closed", name, type(outcome).__name__)


# ── how it ends


class HostFailed(Exception):
    """What a host's own block raises."""


async def live_until_sigterm(life: Life, note: Note, ending: Ending) -> None:
    """Live until SIGTERM, and then do as hosts do."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals, trio.CancelScope() as host, suppress(HostFailed):
        async with open_sessions(config_of(life, note)) as sessions:
            failed: HostFailed | None = None
            async with trio.open_nursery() as nursery:
                for name in names(life):
                    for person in PEOPLE:
                        nursery.start_soon(converse, sessions, name, person, life, note)
                async for _ in signals:
                    break
                match ending:
                    case "drain":
                        report = await sessions.drain()
                        await trio.testing.wait_all_tasks_blocked()  # everyone who waited for an outcome has noted it
                        note("drained", str(report.cancelled), str(report.queued))
                    case "cancel":
                        host.cancel()
                        await trio.lowlevel.checkpoint()
                    case "raise":
                        failed = HostFailed()
                    case "leave":
                        pass
                    case _:
                        assert_never(ending)
                nursery.cancel_scope.cancel()
            if failed is not None:
                raise failed
    note("left")

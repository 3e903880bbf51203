"""The promise of the README, clause by clause. Each has more tests elsewhere; these are the shortest that can fail."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_sagents
from trio_sagents import (
    Agent,
    AgentShutdown,
    AlreadyDecided,
    Approvals,
    Approve,
    CancelCause,
    Cancelled,
    Completed,
    Edit,
    Failed,
    Gap,
    Interrupted,
    MemoryLeases,
    MemoryStore,
    ModelRequest,
    PendingCall,
    PersistenceError,
    Reject,
    RunsElsewhere,
    SessionConfig,
    SessionPolicy,
    Sessions,
    ShutdownReason,
    SingleFactoryRouter,
    Snapshot,
    StartFailed,
    TextDelta,
    TurnEnded,
    open_sessions,
)
from trio_sagents.testing import Call, Hang, ScriptedModel


def config(agent: Agent, **settings: Any) -> SessionConfig:
    return SessionConfig(factory_router=SingleFactoryRouter(agent), **settings)


def echo(request: ModelRequest) -> str:
    return f"re: {request.messages[-1].text}"


async def test_never_two_agents(autojump_clock: trio.abc.Clock) -> None:
    """In one process: never two agents for one conversation."""
    built: list[str] = []

    async def build(agent_id: str, _config: object) -> Agent:
        built.append(agent_id)
        await trio.sleep(1)
        return Agent(model=ScriptedModel(echo))

    started: list[bool] = []
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(build))) as sessions:

        async def start() -> None:
            info = await sessions.start("c")
            started.append(info.started)

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(start)

    assert ["conversation-c"] == built
    assert 1 == sum(started)


async def test_two_posts_at_once_are_two_turns(autojump_clock: trio.abc.Clock) -> None:
    """Two people who press Enter at once get two whole turns, one after the other."""
    async with open_sessions(config(Agent(model=ScriptedModel(echo, chunk_interval=0.1)))) as sessions:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sessions.post, "c", "one")
            nursery.start_soon(sessions.post, "c", "two")
        handle = await sessions.get("c")
        await handle.wait_idle()
        said = [message.text for message in (await handle.state()).messages]

    assert said in (
        ["one", "two", "re: two"],
        ["two", "one", "re: one"],
        ["one", "re: one", "two", "re: two"],
        ["two", "re: two", "one", "re: one"],
    )


async def test_never_two_effective_writers(autojump_clock: trio.abc.Clock) -> None:
    """Where another process has taken the conversation over, what the old agent tries to save is refused, and its viewers are told."""
    store = MemoryStore()
    slow = Agent(model=ScriptedModel(lambda request: "old" * 100, chunk_interval=1.0))
    fast = Agent(model=ScriptedModel(echo))
    async with open_sessions(config(slow, store=store)) as old, open_sessions(config(fast, store=store)) as new:
        async with old.watch("c") as watch:
            receipt = await old.post("c", "to the old one")
            await trio.sleep(0.5)
            await new.start("c")
            outcome = await receipt.wait()
            events = []
            async for envelope in watch:
                events.append(envelope.event)
                if isinstance(envelope.event, AgentShutdown):
                    break

        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, PersistenceError)
        assert ShutdownReason.FENCED is events[-1].reason
        handle = await new.get("c")
        assert "old" not in "".join(message.text for message in (await handle.state()).messages[1:])


async def test_lost_lease_ends_the_agent_in_time(autojump_clock: trio.abc.Clock) -> None:
    """Where leases cannot be renewed the agent ends within lease_ttl + cancel_grace; viewers are told, and the next process goes on."""

    class Away(MemoryLeases):
        async def renew(self, conversation_ids: Sequence[str], holder: str, ttl: float) -> Sequence[str]:
            raise OSError("the engine is away")

    store, leases = MemoryStore(), Away()
    policy = SessionPolicy(lease_ttl=12.0, cancel_grace=2.0)
    slow = Agent(model=ScriptedModel(lambda request: "old" * 100, chunk_interval=1.0))
    fast = Agent(model=ScriptedModel(echo))
    old_config = config(slow, store=store, leases=leases, policy=policy)
    new_config = config(fast, store=store, leases=leases, policy=policy)
    async with open_sessions(old_config) as old, open_sessions(new_config) as new, old.watch("c") as watch:
        began = trio.current_time()
        receipt = await old.post("c", "to the old one")
        with pytest.raises(StartFailed) as caught:
            await new.start("c")
        assert isinstance(caught.value.__cause__, RunsElsewhere)
        assert ShutdownReason.FENCED is await watch.info.agent.wait_ended()
        assert trio.current_time() - began <= 12.0 + 2.0
        assert Cancelled(CancelCause.FENCED) == await receipt.wait()
        reasons = []
        async for envelope in watch:
            if isinstance(envelope.event, AgentShutdown):
                reasons.append(envelope.event.reason)
                break
        assert [ShutdownReason.FENCED] == reasons
        assert isinstance(await (await new.post("c", "to the new one")).wait(), Completed)


PROGRAM = """
import os, signal, sys
import trio
from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, SqliteStore, open_sessions
from trio_sagents.testing import Call, Hang, ScriptedModel

def die() -> str:
    '''Have an effect, and take the process down.'''
    with open("effects", "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)
    return ""

async def main() -> None:
    model = ScriptedModel([Call("die")] if sys.argv[1] == "tool" else [["half an ans", Hang()]])
    config = SessionConfig(factory_router=SingleFactoryRouter(Agent(model=model, tools=[die])), store=SqliteStore("c.db"))
    async with open_sessions(config) as sessions:
        receipt = await sessions.post("c", "hello")
        print("acknowledged", flush=True)
        if sys.argv[1] == "post":
            os.kill(os.getpid(), signal.SIGKILL)
        await receipt.wait()

trio.run(main)
"""

READER = """
import json
import trio
from trio_sagents import Agent, SessionConfig, SingleFactoryRouter, SqliteStore, open_sessions
from trio_sagents.testing import ScriptedModel

def die() -> str:
    '''Must not run again.'''
    with open("effects", "a") as file:
        file.write("x")
    return ""

async def main() -> None:
    agent = Agent(model=ScriptedModel(lambda request: "answered later"), tools=[die])
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=SqliteStore("c.db"))
    async with open_sessions(config) as sessions:
        handle = (await sessions.start("c")).agent
        await handle.wait_idle()
        state = await handle.state()
        print(json.dumps([[message.role, message.text, [one.status for one in message.results]] for message in state.messages]))

trio.run(main)
"""


def killed(what: str, folder: Path, program: str = PROGRAM, reader: str = READER) -> Any:
    """Run a program that is killed, then one that reads what is left; return what that says."""
    environ = {**os.environ, "PYTHONPATH": str(Path(trio_sagents.__file__).parents[1])}
    command = [sys.executable, "-c", program, what]
    first = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert (-signal.SIGKILL, "acknowledged\n") == (first.returncode, first.stdout), first.stderr
    second = subprocess.run([sys.executable, "-c", reader], cwd=folder, env=environ, capture_output=True, text=True, check=False)
    assert 0 == second.returncode, second.stderr
    return json.loads(second.stdout)


def test_what_returned_is_durable(tmp_path: Path) -> None:
    """A message whose `post` returned survives a kill -9; the next agent answers it, or shows the turn that was cut."""
    messages = killed("post", tmp_path)

    assert [["user", "hello", []]] == messages[:1]
    assert messages[1:] in ([["assistant", "answered later", []]], [["assistant", "", []]])


def test_outcome_is_unknown_after_a_kill(tmp_path: Path) -> None:
    """If the process dies while a tool runs, the outcome is shown as "unknown", and nobody runs it again."""
    messages = killed("tool", tmp_path)

    assert "x" == (tmp_path / "effects").read_text()
    assert [["unknown"]] == [statuses for role, _, statuses in messages if role == "tool"]


DECIDER = """
import os, signal, sys
import trio
from trio_sagents import Agent, Approvals, Approve, SessionConfig, SingleFactoryRouter, SqliteStore, open_sessions
from trio_sagents.testing import Call, ScriptedModel

def pay(amount: int) -> str:
    '''Have an effect.'''
    with open("effects", "a") as file:
        file.write(f"{amount};")
    if sys.argv[1] == "tool":
        os.kill(os.getpid(), signal.SIGKILL)
    return "paid"

async def main() -> None:
    calls = [Call("pay", amount=10)] if sys.argv[1] == "tool" else [Call("pay", amount=10), Call("pay", amount=20)]
    agent = Agent(model=ScriptedModel([calls]), tools=[pay], middleware=[Approvals({"pay": True})])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=SqliteStore("c.db"))) as sessions:
        interrupt = (await (await sessions.post("c", "pay")).wait()).interrupt
        print("acknowledged", flush=True)
        receipt = await sessions.resume("c", [Approve(interrupt.calls[0])])
        if sys.argv[1] == "decision":  # one of two calls is decided: nothing runs yet
            os.kill(os.getpid(), signal.SIGKILL)
        await receipt.wait()

trio.run(main)
"""

DECISION_READER = """
import json
import trio
from trio_sagents import Agent, AlreadyDecided, Approvals, Approve, Reject
from trio_sagents import SessionConfig, SingleFactoryRouter, SqliteStore, open_sessions
from trio_sagents.testing import ScriptedModel

async def pay(amount: int) -> str:
    '''Have an effect.'''
    with open("effects", "a") as file:
        file.write(f"{amount};")
    return "paid"

async def main() -> None:
    said = {}
    agent = Agent(model=ScriptedModel(lambda request: "ok"), tools=[pay], middleware=[Approvals({"pay": True})])
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=SqliteStore("c.db"))) as sessions:
        handle = (await sessions.start("c")).agent
        interrupt = (await handle.info()).interrupt
        said["waits"] = [] if interrupt is None else [call.arguments["amount"] for call in interrupt.calls]
        messages = (await handle.state()).messages
        records = [] if interrupt is None else [(one.interrupt_id, one.call_id, one.digest) for one in interrupt.decided]
        records += [(one["interrupt_id"], one["call_id"], one["digest"]) for m in messages for one in m.metadata.get("decisions", ())]
        (known,) = records
        said["again"] = (await sessions.resume("c", [Approve(*known)])).duplicate
        try:
            await sessions.resume("c", [Reject(*known)])
        except AlreadyDecided as exc:
            said["other"] = exc.decided
        if interrupt is not None:
            await (await sessions.resume("c", [Approve(call) for call in interrupt.calls])).wait()
        await handle.wait_idle()
        said["statuses"] = [result.status for message in (await handle.state()).messages for result in message.results]
    print(json.dumps(said))

trio.run(main)
"""


def test_decision_that_returned_is_durable(tmp_path: Path) -> None:
    """A decision whose `resume` returned survives a kill -9: it stands, and the rest waits for its own."""
    said = killed("decision", tmp_path, DECIDER, DECISION_READER)

    assert {"waits": [20], "again": True, "other": "approve", "statuses": ["completed", "completed"]} == said
    assert ["10", "20"] == sorted((tmp_path / "effects").read_text().strip(";").split(";"))


def test_approved_call_is_unknown_after_a_kill(tmp_path: Path) -> None:
    """If the process dies while an approved call runs, its outcome is "unknown", and the same approval again does not run it again."""
    said = killed("tool", tmp_path, DECIDER, DECISION_READER)

    assert {"waits": [], "again": True, "other": "approve", "statuses": ["unknown"]} == said
    assert "10;" == (tmp_path / "effects").read_text()


async def asked(sessions: Sessions) -> PendingCall:
    """Post, and return the one call that waits."""
    outcome = await (await sessions.post("c", "pay")).wait()
    assert isinstance(outcome, Interrupted)
    (call,) = outcome.interrupt.calls
    return call


@pytest.mark.parametrize("edited", [False, True])
async def test_approved_call_runs_with_the_approved_arguments(autojump_clock: trio.abc.Clock, edited: bool) -> None:
    """A call runs with exactly the arguments that were shown, or that the person wrote; what is done to them meanwhile changes nothing."""
    ran: list[dict[str, Any]] = []

    async def pay(amount: int, to: list[str]) -> str:
        """Pay."""
        ran.append({"amount": amount, "to": to})
        return "paid"

    agent = Agent(model=ScriptedModel([Call("pay", amount=10, to=["Ann"]), "ok"]), tools=[pay], middleware=[Approvals({"pay": True})])
    async with open_sessions(config(agent)) as sessions:
        call = await asked(sessions)
        wanted: dict[str, Any] = {"amount": 5, "to": ["Bob"]} if edited else {"amount": 10, "to": ["Ann"]}
        assert {"amount": 10, "to": ["Ann"]} == call.arguments
        decision = Edit(call, wanted) if edited else Approve(call)
        expected = json.loads(json.dumps(wanted))
        wanted["to"].append("Eve")
        receipt = await sessions.resume("c", [decision])
        await receipt.wait()

    assert [expected] == ran


async def test_approved_call_does_not_run_when_its_arguments_were_changed(autojump_clock: trio.abc.Clock) -> None:
    """An approval is of what was shown: a call whose arguments were changed afterwards, in memory, is not run at all."""
    ran: list[list[str]] = []

    async def pay(to: list[str]) -> str:
        """Pay."""
        ran.append(to)
        return "paid"

    agent = Agent(model=ScriptedModel([Call("pay", to=["Ann"]), "ok"]), tools=[pay], middleware=[Approvals({"pay": True})])
    async with open_sessions(config(agent)) as sessions:
        decision = Approve(await asked(sessions))
        handle = await sessions.get("c")
        (call,) = (await handle.state()).messages[-1].calls
        call.arguments["to"].append("Eve")
        await (await sessions.resume("c", [decision])).wait()

    assert [] == ran


async def test_approved_call_is_started_at_most_once(autojump_clock: trio.abc.Clock) -> None:
    """However many people approve, at once, again, and after a restart: the call is started once, and all learn the same."""
    ran: list[int] = []

    async def pay(amount: int) -> str:
        """Pay."""
        ran.append(amount)
        await trio.sleep(1)
        return "paid"

    store = MemoryStore()
    duplicates: list[bool] = []
    refused: list[str] = []
    agent = Agent(model=ScriptedModel([Call("pay", amount=10), "ok"]), tools=[pay], middleware=[Approvals({"pay": True})])
    async with open_sessions(config(agent, store=store)) as sessions:
        call = await asked(sessions)

        async def approve() -> None:
            receipt = await sessions.resume("c", [Approve(call)])
            duplicates.append(receipt.duplicate)
            assert isinstance(await receipt.wait(), Completed)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(approve)
    async with open_sessions(config(agent, store=store)) as sessions:
        await approve()
        try:
            await sessions.resume("c", [Reject(call)])
        except AlreadyDecided as exc:
            refused.append(exc.decided)

    assert [10] == ran
    assert 1 == duplicates.count(False)
    assert 51 == len(duplicates)
    assert ["approve"] == refused


async def test_slow_subscriber_slows_nobody_and_is_told(autojump_clock: trio.abc.Clock) -> None:
    """A subscriber that does not read costs the agent nothing, and is told exactly which events it missed."""
    calls = [["", Call("nothing")] for _ in range(40)]

    async def nothing() -> str:
        """Do nothing."""
        return "done"

    agent = Agent(model=ScriptedModel([*calls, "the end"]), tools=[nothing])
    async with open_sessions(config(agent, policy=SessionPolicy(subscriber_events=16))) as sessions:
        async with sessions.watch("c") as slow, sessions.watch("c") as fast:
            first = await anext(slow)
            assert isinstance(first.event, Snapshot)
            receipt = await sessions.post("c", "go")
            seen = 0
            async for envelope in fast:
                assert envelope.first_seq >= seen
                seen = envelope.seq
                if isinstance(envelope.event, TurnEnded):
                    break
            assert isinstance(await receipt.wait(), Completed)
            await wait_all_tasks_blocked()

            gap = await anext(slow)
            assert isinstance(gap.event, Gap)
            fresh = await anext(slow)

    assert first.seq + 1 == gap.event.first
    assert isinstance(fresh.event, Snapshot)
    assert fresh.seq == gap.event.last
    assert fresh.seq >= seen


async def test_stopped_means_stopped(autojump_clock: trio.abc.Clock) -> None:
    """When `stop` returns, no task of that session lives: the model's stream, tools and their children have ended."""
    ended: list[str] = []

    async def work() -> str:
        """Work, with a child."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                ended.append("tool")
        return ""

    async with open_sessions(config(Agent(model=ScriptedModel([[Call("work"), Call("work")], Hang()]), tools=[work]))) as sessions:
        before = trio.lowlevel.current_statistics().tasks_living
        receipt = await sessions.post("c", "go")
        await wait_all_tasks_blocked()

        assert await sessions.stop("c")

        assert ["tool", "tool"] == ended
        assert before == trio.lowlevel.current_statistics().tasks_living
        assert isinstance(await receipt.wait(), Cancelled)


async def test_sync_tool_in_a_thread_is_marked_unknown() -> None:
    """A sync tool's thread may finish on its own: its result is discarded, and the call is marked unknown."""
    begun, release = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def slow() -> str:
        """Take a while, in a thread."""
        token.run_sync_soon(begun.set)
        release.wait(10)
        return "too late"

    try:
        store = MemoryStore()
        async with open_sessions(config(Agent(model=ScriptedModel([Call("slow"), "?"]), tools=[slow]), store=store)) as sessions:
            await sessions.post("c", "go")
            await begun.wait()
            assert await sessions.stop("c")
            page = await sessions.history("c")
    finally:
        release.set()

    shown = [(row.content_type, row.status) for row in page.rows]
    assert ("tool_call", "unknown") in shown
    assert "too late" not in str(page.rows)


async def test_streaming_text_is_seen_in_order(autojump_clock: trio.abc.Clock) -> None:
    """Every viewer sees the same text, in order, however it is cut into events."""
    async with open_sessions(config(Agent(model=ScriptedModel(["the whole answer"], chunk_interval=0.1)))) as sessions:

        async def read(pause: float, texts: list[str]) -> None:
            async with sessions.watch("c") as watch:
                async for envelope in watch:
                    if isinstance(envelope.event, TextDelta):
                        texts.append(envelope.event.text)
                    if isinstance(envelope.event, TurnEnded):
                        return
                    await trio.sleep(pause)

        texts: tuple[list[str], list[str]] = ([], [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 0, texts[0])
            nursery.start_soon(read, 0.3, texts[1])
            await wait_all_tasks_blocked()
            await sessions.post("c", "go")

    assert ["the whole answer"] * 2 == ["".join(text) for text in texts]
    assert len(texts[1]) <= len(texts[0])


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

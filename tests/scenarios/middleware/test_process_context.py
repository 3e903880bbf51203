"""`ProcessContext`: which context variables of the posting call reach tools and their threads."""

import contextvars
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support.middleware import StrictModel, agent_with, on_file
from tests.support.scenarios import ask, opened, state_of
from trio_sagents import Cancelled, Completed, Middleware, ModelRequest, ToolContext
from trio_sagents.middleware import ProcessContext, SubAgents, Task
from trio_sagents.testing import Call
from trio_sagents.testing._threads import lockstep_threads

tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret")
Seen = list[tuple[str, str, str]]


def look(seen: Seen, place: str) -> None:
    seen.append((place, tenant.get(), secret.get("unset")))


def lookers(seen: Seen) -> list[Any]:
    """Return tools that look at the variables: in a task, a thread, and the children of both."""

    async def in_task() -> str:
        """Look."""
        look(seen, "task")
        tenant.set("changed")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        return await trio.to_thread.run_sync(in_thread_of_task)

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        look(seen, "child")

    def in_thread_of_task() -> str:
        look(seen, "thread of a task")
        return "ok"

    def in_thread() -> str:
        """Look."""
        look(seen, "thread")
        assert threading.current_thread() is not threading.main_thread()
        return "ok"

    return [in_task, in_thread]


class Looks(Middleware):
    """Looks at the variables around a tool and a model call."""

    def __init__(self, seen: Seen) -> None:
        self.seen = seen

    async def around_tool(self, context: Any, call: Any, call_next: Any) -> Any:
        look(self.seen, "around tool")
        result = await call_next(call)
        look(self.seen, "after tool")
        return result

    async def before_model(self, context: Any, request: ModelRequest) -> ModelRequest:
        look(self.seen, "model")
        return request


class LooksFirst(Looks):
    """Likewise, outside of the other."""


async def post_as(sessions: Any, name: str, text: str = "go") -> Any:
    tenant.set(name)
    secret.set(f"secret of {name}")
    return await ask(sessions, text)


async def test_variables_when_allowed(autojump_clock: Any, database: Path) -> None:
    """Those on the list reach tools, threads and what they start; others look unset; also in a new process."""
    for name in ("alice", "bob"):
        seen: Seen = []
        agent = agent_with(
            LooksFirst(before := []),
            ProcessContext(tenant),
            Looks(behind := []),
            replies=[[Call("in_task"), Call("in_thread")], "ok"],
            tools=lookers(seen),
        )
        async with on_file(database, agent) as sessions:
            outcome = await post_as(sessions, name)

        assert isinstance(outcome, Completed)
        assert {
            ("task", name, "unset"),
            ("child", "changed", "unset"),
            ("thread of a task", "changed", "unset"),
            ("thread", name, "unset"),
        } == set(seen)
        assert {(place, name, f"secret of {name}") for place in ("model", "around tool", "after tool")} == set(before)
        assert {("model", name, f"secret of {name}"), ("around tool", name, "unset")} == {
            place for place in behind if place[0] != "after tool"
        }


@pytest.mark.parametrize(
    ("middleware", "expected"),
    [
        ([], ("alice", "secret of alice")),
        ([ProcessContext()], ("nobody", "unset")),
        ([ProcessContext(secret)], ("nobody", "secret of alice")),
    ],
)
async def test_variables_when_lists_differ(middleware: list[Any], expected: tuple[str, str]) -> None:
    """Without the middleware all reach tools; without a variable in it none does. In real threads."""
    seen: Seen = []
    agent = agent_with(*middleware, replies=[[Call("in_task"), Call("in_thread")], "ok"], tools=lookers(seen))
    async with opened(agent) as sessions:
        await post_as(sessions, "alice")

    assert {("task", *expected), ("thread", *expected)} == {entry for entry in seen if entry[0] in {"task", "thread"}}


async def test_variables_when_another_one_posts(autojump_clock: Any) -> None:
    """Each turn has those of the call that brought its first message."""
    seen: Seen = []
    replies = [Call("in_task"), "ok", Call("in_task"), "ok"]
    with lockstep_threads():
        async with opened(agent_with(ProcessContext(tenant), replies=replies, tools=lookers(seen))) as sessions:
            await post_as(sessions, "alice")
            await post_as(sessions, "bob")

    assert ["alice", "bob"] == [entry[1] for entry in seen if entry[0] == "task"]


async def test_variables_when_a_sub_agent_runs(autojump_clock: Any) -> None:
    """What a tool does not see its sub-agent does not see either."""
    seen: Seen = []
    task = Task(name="look", description="look", tools=lookers(seen), model=StrictModel([Call("in_task"), "seen"]))
    agent = agent_with(
        ProcessContext(tenant),
        SubAgents((task,), general_purpose=False),
        replies=[Call("task", name="look", instructions="Look."), "ok"],
    )
    with lockstep_threads():
        async with opened(agent) as sessions:
            await post_as(sessions, "alice")

    assert ("task", "alice", "unset") in seen


async def test_tool_when_it_is_cancelled_raises_or_is_refused(autojump_clock: Any) -> None:
    """The task of its own is no wall: cancellation, errors, the context of the call and `stop` from inside pass as without it."""
    ended: list[str] = []

    async def wait() -> str:
        """Wait."""
        try:
            await trio.sleep_forever()
        finally:
            ended.append("wait")
        return ""

    async def fails() -> str:
        """Fail."""
        raise KeyError("no such thing")

    async def note(context: ToolContext) -> str:
        """Note."""
        await context.update(metadata={"noted": True})
        return context.call_id

    async def leave() -> str:
        """Stop the agent from inside."""
        return str(await sessions.stop("c"))

    replies = [[Call("fails"), Call("note"), Call("unknown")], Call("wait"), Call("leave")]
    async with opened(agent_with(ProcessContext(tenant), replies=replies, tools=[wait, fails, note, leave])) as sessions:
        receipt = await sessions.post("c", "go")
        await trio.sleep(1)
        await sessions.cancel_turn("c")
        outcome = await receipt.wait()
        state = await state_of(sessions)
        results = {result.name: result for message in state.messages for result in message.results}
        with trio.fail_after(10):
            left = await ask(sessions, "leave")

    assert isinstance(outcome, Cancelled)
    assert ["wait"] == ended
    assert "KeyError: 'no such thing'" == results["fails"].content
    assert ("completed", results["note"].call_id) == (results["note"].status, results["note"].content)
    assert "failed" == results["unknown"].status
    assert True is state.metadata["noted"]
    assert isinstance(left, Cancelled)


def test_process_context_when_given_names() -> None:
    """Variables are given, not their names."""
    with pytest.raises(TypeError, match="takes ContextVars, not 'tenant'"):
        ProcessContext("tenant")  # type: ignore[arg-type]

    assert {"allowed": ["tenant"]} == ProcessContext(tenant).debug_summary()

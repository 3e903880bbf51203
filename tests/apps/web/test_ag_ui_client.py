"""AG-UI's own client against the routes: running, interrupts, joining late, stopping."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio

from tests.apps.web._front_ends import HeldModel, House, open_house, require_clients
from trio_sagents import Agent, Approvals, AskUser, Sessions, SubAgents, Task, TodoList
from trio_sagents.testing import Call, Hang, ScriptedModel
from trio_sagents.web import AgUiRoutes, Visitor, WebRequest

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _clients() -> None:
    require_clients()


def _routes(sessions: Sessions) -> AgUiRoutes:
    def authenticate(request: WebRequest) -> Visitor | None:
        return Visitor(request.bearer, request.bearer, may_debug=True) if request.bearer else None

    return AgUiRoutes(sessions, authenticate, sub_agents=True, state_keys=["title"])


def house(replies: Any, **settings: Any) -> AbstractAsyncContextManager[House]:
    """Open sessions, the routes before them, and a client."""
    return open_house(_routes, "ag_ui.mjs", replies, **settings)


def said(answer: Any) -> list[str]:
    """Return the texts that the client shows of the agent."""
    return [message["content"] for message in answer["messages"] if message["role"] == "assistant" and message.get("content")]


def roles(answer: Any) -> list[str]:
    return [message["role"] for message in answer["messages"]]


def is_clean(answer: Any) -> bool:
    """Return whether the client has met nothing that it had to repair or refuse, and has no message twice."""
    ids = [message["id"] for message in answer["messages"]]
    assert [] == answer["errors"]
    assert [] == answer["warnings"]
    return len(ids) == len(set(ids))


async def test_client_when_it_runs() -> None:
    """Two runs with a tool call: the messages of the client are those of the history, in its order."""
    async with house([["Let me see", Call("look", x=1)], "It is 1", "Bye"]) as here:
        await here.client("open", agent="a", id="c")
        first = await here.client("run", agent="a", text="look")
        second = await here.client("run", agent="a", text="bye")

        assert is_clean(second)
        assert ["user", "assistant", "tool", "assistant"] == roles(first)
        assert [*roles(first), "user", "assistant"] == roles(second)
        assert ["Let me see", "It is 1", "Bye"] == said(second) == await here.stored()
        (call,) = second["messages"][1]["toolCalls"]
        assert ("look", '{"x":1}') == (call["function"]["name"], call["function"]["arguments"])
        assert "saw 1" == second["messages"][2]["content"]
        assert ["RUN_STARTED", "RUN_FINISHED"] == [second["events"][0]["type"], second["events"][-1]["type"]]


@pytest.mark.parametrize(
    ("payload", "results"),
    [
        ({"approved": True}, ["paid 3", "paid 4"]),
        ({"approved": True, "editedArgs": {"amount": 1}}, ["paid 1", "paid 1"]),
        ({"approved": False, "reason": "no"}, ["This call was not run: a person rejected it: no"] * 2),
        (None, ["This call was not run: a person rejected it."] * 2),
    ],
)
async def test_client_when_it_resumes(payload: Any, results: list[str]) -> None:
    """What waits is an interrupt for each call; its answers let the turn continue, as a second run."""
    async with house([["Paying", Call("pay", amount=3), Call("pay", amount=4)], "Done"], middleware=[Approvals({"pay": True})]) as here:
        await here.client("open", agent="a", id="c")
        waiting = await here.client("run", agent="a", text="pay")
        interrupts = waiting["pendingInterrupts"]
        assert ["tool_call"] * 2 == [interrupt["reason"] for interrupt in interrupts]
        assert all(interrupt["metadata"]["digest"] in interrupt["id"] for interrupt in interrupts)
        status = {"status": "cancelled"} if payload is None else {"status": "resolved", "payload": payload}
        done = await here.client("run", agent="a", resume=[{"interruptId": each["id"], **status} for each in interrupts])

        assert is_clean(done)
        assert [] == done["pendingInterrupts"]
        assert ["user", "assistant", "tool", "tool", "assistant"] == roles(done)
        assert results == sorted(message["content"] for message in done["messages"] if message["role"] == "tool")
        assert ["Paying", "Done"] == said(done) == await here.stored()


async def test_client_when_it_answers_a_question() -> None:
    """A question is an interrupt whose payload is the answer."""
    async with house([Call("ask_user", question="Which colour?", kind="text"), "Blue it is"], middleware=[AskUser()]) as here:
        await here.client("open", agent="a", id="c")
        waiting = await here.client("run", agent="a", text="paint")
        (interrupt,) = waiting["pendingInterrupts"]
        assert ("input_required", "Which colour?") == (interrupt["reason"], interrupt["message"])
        answer = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"value": "blue"}}
        done = await here.client("run", agent="a", resume=[answer])

        assert is_clean(done)
        assert "blue" in done["messages"][2]["content"]


async def test_client_when_it_joins_late() -> None:
    """Whoever joins in the middle of an answer gets the past once, and the rest as it comes."""
    async with house(HeldModel("first", ["x" * 20, Call("look", x=1)], "0123456789" * 60)) as here:
        await here.client("open", agent="a", id="c")
        await here.client("run", agent="a", text="one")
        await here.client("run", agent="a", text="count", wait=False)
        await here.client("until", agent="a", text="0123456789")
        await here.client("open", agent="b", id="c", path="/connect")
        await here.client("run", agent="b", wait=False)
        await here.client("until", agent="b", text="0123456789" * 39)
        here.go_on()
        await here.client("ended", agent="b")
        second = await here.client("state", agent="b")
        await here.client("ended", agent="a")
        first = await here.client("state", agent="a")

        assert is_clean(second)
        assert is_clean(first)
        assert first["messages"] == [
            {key: value for key, value in message.items() if key != "metadata"}
            | ({"metadata": own["metadata"]} if "metadata" in own else {})
            for message, own in zip(second["messages"], first["messages"], strict=True)
        ]
        assert ["first", "x" * 20, "0123456789" * 60] == said(second) == await here.stored()


async def test_client_when_it_is_cut_and_joins_again() -> None:
    """Cut by a reset in the middle of an answer, the client connects again: nothing is lost, and nothing is shown twice."""
    async with house(HeldModel("0123456789" * 60)) as here:
        await here.client("open", agent="a", id="c")
        here.proxy.left = 1200
        cut = await here.client("run", agent="a", text="count")
        assert 1 == here.proxy.cuts == len(cut["errors"])
        await here.client("open", agent="b", id="c", path="/connect", messages=cut["messages"])
        await here.client("run", agent="b", wait=False)
        await here.client("until", agent="b", text="0123456789" * 39)
        here.go_on()
        await here.client("ended", agent="b")
        again = await here.client("state", agent="b")

        assert [] == again["errors"]
        assert ["Agent execution failed: TypeError: terminated"] == again["warnings"]  # of the cut
        assert ["user", "assistant"] == roles(again)
        assert ["0123456789" * 60] == said(again) == await here.stored()


async def test_client_when_it_runs_again_after_a_lost_answer() -> None:
    """The same message sent again does nothing twice: the client gets the conversation as it is."""
    async with house(lambda request: f"answer {len(request.messages)}", chunk_size=100) as here:
        await here.client("open", agent="a", id="c")
        first = await here.client("run", agent="a", text="hello", messageId="m-1")
        await here.client("open", agent="b", id="c")
        again = await here.client("run", agent="b", text="hello", messageId="m-1")

        assert is_clean(again)
        assert first["messages"] == again["messages"]
        assert 1 == len(await here.stored())


async def test_client_when_it_joins_what_waits() -> None:
    """Whoever joins a conversation that waits for people learns of it, and may answer."""
    async with house([["Paying", Call("pay", amount=3)], "Done"], middleware=[Approvals({"pay": True})]) as here:
        await here.client("open", agent="a", id="c")
        await here.client("run", agent="a", text="pay")
        await here.client("open", agent="b", id="c")
        joined = await here.client("run", agent="b")
        (interrupt,) = joined["pendingInterrupts"]
        answer = {"interruptId": interrupt["id"], "status": "resolved", "payload": {"approved": True}}
        done = await here.client("run", agent="b", resume=[answer])

        assert is_clean(done)
        assert ["Paying", "Done"] == said(done)
        assert ["user", "assistant", "tool", "assistant"] == roles(done)


async def test_client_when_it_leaves_and_when_it_stops() -> None:
    """Aborting the run only disconnects; the route to stop cancels the turn, and the run ends as cancelled."""
    async with house([["x" * 400, Hang()]], chunk_size=4, chunk_interval=0.02) as here:
        await here.client("open", agent="a", id="c")
        await here.client("run", agent="a", text="count", wait=False)
        await here.client("until", agent="a", text="xxxx")
        await here.client("disconnect", agent="a")
        await trio.sleep(0.1)
        assert "running" == (await here.sessions.agent_info("c", scope="alice")).status
        await here.client("open", agent="b", id="c")
        await here.client("run", agent="b", wait=False)
        shown = await here.client("until", agent="b", text="xxxx")
        turn_id = next(event["value"]["turnId"] for event in shown["events"] if event.get("name") == "turn")
        late = await here.client("stop", agent="b", turnId="another-turn")
        assert {"stopped": False} == late["answer"]
        await here.client("stop", agent="b", turnId=turn_id)
        await here.client("ended", agent="b")
        ended = await here.client("state", agent="b")

        assert {"type": "cancelled"} == ended["events"][-1]["outcome"]
        assert said(ended) == await here.stored()


async def test_client_when_the_turn_fails() -> None:
    """A failed turn is an error of the run, in words that anybody may read; the next run works."""
    async with house([["half", ValueError("secret")], "better"]) as here:
        await here.client("open", agent="a", id="c")
        failed = await here.client("run", agent="a", text="try")
        better = await here.client("run", agent="a", text="again")

        assert ("RUN_ERROR", "the model 'scripted' raised ValueError") == tuple(failed["events"][-1][key] for key in ("type", "message"))
        assert ["half", "better"] == said(better)
        assert "secret" not in str(better)


async def test_client_when_there_are_todos_and_sub_agents() -> None:
    """Todos are the shared state, and a sub-agent begins and ends inside its call."""
    worker = Agent(model=ScriptedModel(["worked"]))
    todos = Call("write_todos", todos=[{"id": 1, "content": "work", "status": "in_progress"}])
    async with house(
        [todos, Call("task", name="worker", instructions="work"), "Done"],
        middleware=[TodoList(), SubAgents([Task(name="worker", description="Works.", agent=worker)], general_purpose=False)],
    ) as here:
        await here.client("open", agent="a", id="c")
        done = await here.client("run", agent="a", text="work")

        assert is_clean(done)
        assert ["work"] == [todo["content"] for todo in done["state"]["todos"]]
        kinds = [event["type"] for event in done["events"]]
        assert kinds.index("SUBAGENT_STARTED") < kinds.index("SUBAGENT_FINISHED") < len(kinds) - 1

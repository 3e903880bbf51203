"""The Vercel AI SDK's own client against the routes: sending, approving, coming back, watching, stopping."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio

from tests.apps.web._front_ends import HeldModel, House, open_house, require_clients
from trio_sagents import Approvals, AskUser
from trio_sagents.testing import Call, Hang
from trio_sagents.web import VercelRoutes

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _clients() -> None:
    require_clients()


def house(replies: Any, **settings: Any) -> AbstractAsyncContextManager[House]:
    """Open sessions, the routes before them, and a client."""
    return open_house(lambda sessions: VercelRoutes(sessions, lambda request: request.bearer), "vercel.mjs", replies, **settings)


def parts(answer: Any, kind: str) -> list[Any]:
    """Return the parts of one type, of all messages of the assistant."""
    return [part for message in answer["messages"] if message["role"] == "assistant" for part in message["parts"] if part["type"] == kind]


def texts(answer: Any) -> list[str]:
    """Return the texts that the client shows of the agent."""
    return [part["text"] for part in parts(answer, "text")]


async def test_client_when_it_sends() -> None:
    """Two messages, a tool call and thinking arrive as the client's own parts, without an error."""
    async with house([["Let me see", Call("look", x=1)], "It is 1", "Bye"]) as here:
        await here.client("open", chat="a", id="c")
        first = await here.client("send", chat="a", text="look", messageId="m-1")
        second = await here.client("send", chat="a", text="bye")

        assert [] == first["errors"] == second["errors"]
        assert ["user", "assistant", "user", "assistant"] == [message["role"] for message in second["messages"]]
        assert ["Let me see", "It is 1", "Bye"] == texts(second) == await here.stored()
        (tool,) = parts(second, "dynamic-tool")
        assert ("look", "output-available", {"x": 1}, "saw 1") == (tool["toolName"], tool["state"], tool["input"], tool["output"])
        assert "completed" == second["messages"][-1]["metadata"]["outcome"]
        assert ["stop", "stop"] == [finish["finishReason"] for finish in second["finishes"]]


@pytest.mark.parametrize("approved", [True, False])
async def test_client_when_it_approves(approved: bool) -> None:
    """The client answers two calls that wait, sends by itself, once, and goes on in the same message."""
    async with house([["Paying", Call("pay", amount=3), Call("pay", amount=4)], "Done"], middleware=[Approvals({"pay": True})]) as here:
        await here.client("open", chat="a", id="c")
        asked = await here.client("send", chat="a", text="pay")
        assert ["approval-requested"] * 2 == [tool["state"] for tool in parts(asked, "dynamic-tool")]
        assert "approval" == parts(asked, "dynamic-tool")[0]["approval"]["descriptor"]["kind"]

        done = await here.client("approve", chat="a", approved=approved, reason="because")

        assert [] == done["errors"]
        assert 2 == done["requests"]
        assert ["user", "assistant"] == [message["role"] for message in done["messages"]]
        assert ["Paying", "Done"] == texts(done) == await here.stored()
        expected = ["output-available"] * 2 if approved else ["output-denied"] * 2
        assert expected == [tool["state"] for tool in parts(done, "dynamic-tool")]


async def test_client_when_it_answers_a_question() -> None:
    """A question is answered by the output of its tool."""
    asked = [Call("ask_user", question="Which colour?", kind="text")]
    async with house([asked, "Blue it is"], middleware=[AskUser()]) as here:
        await here.client("open", chat="a", id="c")
        waiting = await here.client("send", chat="a", text="paint")
        assert "Which colour?" == parts(waiting, "dynamic-tool")[0]["toolMetadata"]["waits"]["question"]["text"]
        done = await here.client("answer", chat="a", output="blue")

        assert [] == done["errors"]
        assert ["Blue it is"] == texts(done)
        (result,) = [row for row in (await here.sessions.history("c", scope="alice")).rows if row.content_type == "tool_result"]
        assert "blue" in result.content["content"]


async def test_client_when_it_is_cut_and_resumes() -> None:
    """Cut by a reset in the middle of an answer, the client resumes: nothing is lost, and nothing is shown twice."""
    async with house(HeldModel("0123456789" * 60)) as here:
        await here.client("open", chat="a", id="c")
        here.proxy.left = 1200
        cut = await here.client("send", chat="a", text="count")
        assert "error" == cut["status"]
        await here.client("resume", chat="a", wait=False)
        await here.client("until", chat="a", text="0123456789" * 39)
        here.go_on()
        resumed = await here.client("idle", chat="a")

        assert 1 == here.proxy.cuts
        assert ["user", "assistant"] == [message["role"] for message in resumed["messages"]]
        assert ["0123456789" * 60] == texts(resumed) == await here.stored()


async def test_client_when_it_is_cut_and_the_turn_ends() -> None:
    """A client that comes back when the turn is over asks for the turn by its id, and gets all of it."""
    async with house(["0123456789" * 20], chunk_size=4, chunk_interval=0.005) as here:
        await here.client("open", chat="a", id="c")
        here.proxy.left = 1500
        cut = await here.client("send", chat="a", text="count")
        while await here.stored() != ["0123456789" * 20]:
            await trio.sleep(0.01)
        nothing = await here.client("resume", chat="a")
        assert cut["messages"] == nothing["messages"]
        resumed = await here.client("resume", chat="a", turn=cut["messages"][-1]["id"])

        assert ["user", "assistant"] == [message["role"] for message in resumed["messages"]]
        assert ["0123456789" * 20] == texts(resumed)


async def test_client_when_it_is_cut_before_an_approval() -> None:
    """A client that was cut before it could see what waits sees it when it comes back, and can approve it."""
    async with house(
        [["x" * 4000, Call("pay", amount=3)], "Done"], middleware=[Approvals({"pay": True})], chunk_size=100, chunk_interval=0.005
    ) as here:
        await here.client("open", chat="a", id="c")
        here.proxy.left = 2500
        cut = await here.client("send", chat="a", text="pay")
        assert [] == parts(cut, "dynamic-tool")
        while "interrupted" != (await here.sessions.agent_info("c", scope="alice")).status:  # noqa: ASYNC110  # nobody watches
            await trio.sleep(0.01)
        await here.client("resume", chat="a", turn=cut["messages"][-1]["id"])
        done = await here.client("approve", chat="a", approved=True)

        assert ["x" * 4000, "Done"] == texts(done) == await here.stored()
        assert ["output-available"] == [tool["state"] for tool in parts(done, "dynamic-tool")]
        assert ["user", "assistant"] == [message["role"] for message in done["messages"]]


async def test_client_when_it_sends_again_after_a_lost_answer() -> None:
    """The same message sent again does nothing twice: the client gets the answer to the first one."""
    async with house(lambda request: f"answer {len(request.messages)}", chunk_size=100) as here:
        await here.client("open", chat="a", id="c")
        first = await here.client("send", chat="a", text="hello", messageId="m-1")
        await here.client("open", chat="b", id="c")
        again = await here.client("send", chat="b", text="hello", messageId="m-1")

        assert [] == again["errors"]
        assert texts(first) == texts(again) == await here.stored()
        assert [message["id"] for message in first["messages"]] == [message["id"] for message in again["messages"]]


async def test_client_when_a_second_one_watches() -> None:
    """A second viewer opens the page in the middle of an answer: it gets the past, and the running message from its start."""
    async with house(HeldModel("first", "0123456789" * 60)) as here:
        await here.client("open", chat="a", id="c")
        await here.client("send", chat="a", text="one")
        await here.client("send", chat="a", text="count", wait=False)
        await here.client("until", chat="a", text="0123456789")
        await here.client("open", chat="b", id="c")
        await here.client("load", chat="b")
        await here.client("resume", chat="b", wait=False)
        await here.client("until", chat="b", text="0123456789" * 39)
        here.go_on()
        second = await here.client("idle", chat="b")
        first = await here.client("idle", chat="a")

        assert [] == first["errors"] == second["errors"]
        assert ["first", "0123456789" * 60] == texts(first) == texts(second) == await here.stored()
        assert [message["id"] for message in first["messages"]] == [message["id"] for message in second["messages"]]


async def test_client_when_it_leaves() -> None:
    """The client's own stop only disconnects: the turn goes on, and a resumed stream has all of it."""
    async with house(HeldModel("0123456789" * 60)) as here:
        await here.client("open", chat="a", id="c")
        await here.client("send", chat="a", text="count", wait=False)
        await here.client("until", chat="a", text="0123")
        await here.client("disconnect", chat="a")
        await here.client("resume", chat="a", wait=False)
        await here.client("until", chat="a", text="0123456789" * 39)
        here.go_on()
        resumed = await here.client("idle", chat="a")

        assert [] == resumed["errors"]
        assert ["0123456789" * 60] == texts(resumed) == await here.stored()


async def test_client_when_it_stops() -> None:
    """The route to stop cancels the turn; what was said stays, and the message says that it was cancelled."""
    async with house([["x" * 400, Hang()]], chunk_size=4, chunk_interval=0.02) as here:
        await here.client("open", chat="a", id="c")
        await here.client("send", chat="a", text="count", wait=False)
        shown = await here.client("until", chat="a", text="xxxx")
        late = await here.client("stop", chat="a", turnId="another-turn")
        assert {"stopped": False} == late["answer"]
        stopped = await here.client("stop", chat="a", turnId=shown["messages"][-1]["id"])
        ended = await here.client("idle", chat="a")

        assert {"stopped": True} == stopped["answer"]
        assert [] == ended["errors"]
        assert ("cancelled", "user") == tuple(ended["messages"][-1]["metadata"][key] for key in ("outcome", "cause"))
        assert texts(ended) == await here.stored()


async def test_client_when_the_turn_fails() -> None:
    """A failed turn is an error for the client, in words that anybody may read; the next message works."""
    async with house([["half", ValueError("secret")], "better"]) as here:
        await here.client("open", chat="a", id="c")
        failed = await here.client("send", chat="a", text="try")
        better = await here.client("send", chat="a", text="again")

        assert "error" == failed["status"]
        assert ["Error: the model 'scripted' raised ValueError"] == failed["errors"]
        assert ["half", "better"] == texts(better)
        assert "secret" not in str(better)

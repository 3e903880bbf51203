"""The chat's loop in virtual time, with a keyboard and a screen made of lists."""

import math
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from trio_sagents import (
    Agent,
    Approvals,
    AskUser,
    Halt,
    MemoryStore,
    Model,
    ModelFailed,
    Reject,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
)
from trio_sagents.cli._chat import Chat
from trio_sagents.cli._lines import PROMPT, Line, Read, Signal
from trio_sagents.cli._models import Choice
from trio_sagents.cli._screen import Screen
from trio_sagents.cli._setup import Setup
from trio_sagents.cli._words import Piece
from trio_sagents.models._offline_words import MARK, story_sentences
from trio_sagents.models.offline import OfflineModel
from trio_sagents.testing import Call, ScriptedModel

STORY = MARK + " ".join(story_sentences(60))


class Page(Screen):
    """Keeps what is shown, and may be slow."""

    def __init__(self, delay: float = 0.0) -> None:
        self.can_redraw = False
        self.text = ""
        self._delay = delay
        self._grown = trio.lowlevel.ParkingLot()

    async def show(self, pieces: Iterable[Piece], live: Sequence[Piece] = ()) -> None:
        self.text += "".join(piece.text for piece in pieces)
        self._grown.unpark_all()
        await trio.sleep(self._delay)

    async def wait_for(self, text: str) -> None:
        """Wait until it is shown."""
        while text not in self.text:
            await self._grown.park()


@attrs.frozen
class Pause:
    """A person who thinks."""

    seconds: float


class Script:
    """A keyboard that types what it is given, in steps that may wait."""

    is_interactive = True
    can_edit = False

    def __init__(self, *steps: Read | Pause) -> None:
        self._steps = list(steps)
        self.prompts: list[str] = []

    async def interject(self, pieces: Sequence[Piece]) -> bool:
        return False

    async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
        self.prompts.append(prompt)
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, Line | Signal):
                return step
            await trio.sleep(step.seconds)
        return Signal.ENDED

    def interrupt(self) -> None:
        pytest.fail("nothing presses Ctrl-C at the prompt here")


def set_up(model: Model, tools: Sequence[Any] = (), middleware: Sequence[Any] = (), **settings: Any) -> Setup:
    """Return what a chat runs on, in memory."""
    agent = Agent(model=model, tools=tools, middleware=middleware)
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), **{"store": MemoryStore(), **settings})
    return Setup(Choice(model, "scripted"), Path("memory"), lambda _: config)


async def talk(
    setup: Setup, page: Page, keyboard: Script, presses: Callable[[Callable[[], Awaitable[None]]], Awaitable[None]] | None = None
) -> Chat:
    """Run a chat to its end; `presses` gets a function that presses Ctrl-C."""
    chat = Chat(setup, page)
    send, receive = trio.open_memory_channel[int](math.inf)
    async with trio.open_nursery() as nursery, send, receive:
        nursery.start_soon(chat.heed, receive, nursery)
        if presses is not None:
            nursery.start_soon(presses, lambda: send.send(signal.SIGINT))
        async with setup.open() as opened:
            await chat.run(opened, keyboard, "c")
        nursery.cancel_scope.cancel()
    return chat


async def test_an_agent_that_left_comes_back_at_the_next_line(autojump_clock: MockClock) -> None:
    """A person may think for longer than the agent waits."""
    page = Page()
    setup = set_up(OfflineModel(), inactivity_timeout=10)
    await talk(setup, page, Script(Line("hello"), Pause(1_000), Line("thanks")))

    assert page.text.count("Hello!") == 1
    assert page.text.count("(offline) You are welcome.\n") == 1


@pytest.mark.parametrize("delay", [0.0, 0.5, 20.0])
async def test_a_slow_screen_shows_each_character_once(autojump_clock: MockClock, delay: float) -> None:
    """Where events were dropped, the snapshot and the history fill the hole."""
    page = Page(delay)
    setup = set_up(OfflineModel(), policy=SessionPolicy(subscriber_events=1, subscriber_text=64, replay_events=1))
    await talk(setup, page, Script(Line("tell me a long story"), Line("thanks")))

    assert f"new one.\n{STORY}\n(offline) You are welcome.\n" in page.text


class SlowStore(MemoryStore):
    """Takes a second for each commit."""

    async def commit(self, *args: Any, **kwargs: Any) -> int:
        await trio.sleep(1)
        return await super().commit(*args, **kwargs)


async def test_ctrl_c_before_the_turn_began_still_cancels_it(autojump_clock: MockClock) -> None:
    """A press that comes while the message is being stored is not lost."""
    page = Page()

    async def press(ctrl_c: Callable[[], Awaitable[None]]) -> None:
        await trio.sleep(10.5)
        assert page.text.endswith("a new one.\n")
        await ctrl_c()

    setup = set_up(OfflineModel(chunk_interval=1), store=SlowStore())
    began = trio.current_time()
    chat = await talk(setup, page, Script(Pause(10), Line("tell me a long story"), Line("thanks")), press)

    assert trio.current_time() - began < 60
    assert "[cancelled]\n" in page.text
    assert "You are welcome" in page.text
    assert chat.exit_status == 0


async def test_the_third_press_leaves_a_turn_that_does_not_end(autojump_clock: MockClock) -> None:
    """A tool that shields itself holds the turn; the person is told, and is not held."""
    page = Page()

    async def stubborn() -> str:
        """Do not stop."""
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        return "at last"

    async def press(ctrl_c: Callable[[], Awaitable[None]]) -> None:
        await page.wait_for("stubborn() runs")
        await ctrl_c()
        await trio.sleep(1)
        assert "[still cancelling" not in page.text
        await ctrl_c()
        await page.wait_for("[still cancelling; Ctrl-C once more leaves]")
        await page.wait_for("stubborn does not stop")
        await ctrl_c()

    setup = set_up(ScriptedModel([Call("stubborn"), "Done."]), [stubborn])
    chat = await talk(setup, page, Script(Line("go")), press)

    assert chat.exit_status == 130
    assert "Saved" not in page.text


async def test_a_refused_message_is_told_and_the_chat_goes_on(autojump_clock: MockClock) -> None:
    """An error of a `post` is a line, not the end."""
    page = Page()
    setup = set_up(OfflineModel(), policy=SessionPolicy(max_message_bytes=100))
    await talk(setup, page, Script(Line("x" * 101), Line("bad \udcff text"), Line("thanks")))

    assert "error: max_message_bytes" in page.text
    assert "error: message: the text has lone surrogates" in page.text
    assert "You are welcome" in page.text


async def test_a_failed_turn_is_told_and_the_chat_goes_on(autojump_clock: MockClock) -> None:
    """The provider's error is on the screen once."""
    page = Page()
    await talk(set_up(ScriptedModel([ModelFailed("no such model"), "Here I am."])), page, Script(Line("hello"), Line("again")))

    assert page.text.count("no such model") == 1
    assert "Here I am.\n" in page.text


async def test_a_queue_left_by_a_crash_is_answered_before_the_first_prompt(autojump_clock: MockClock) -> None:
    """The message is shown with its answer. Ctrl-C would cancel that answer as well."""
    page = Page()
    setup = set_up(OfflineModel(chunk_interval=5))

    async def leave_a_message(sessions: Sessions) -> None:
        await sessions.post("c", "tell me a story")
        await sessions.post("c", "thanks")

    with trio.move_on_after(1):
        async with setup.open() as opened:
            await leave_a_message(opened.sessions)
            await trio.sleep_forever()
    await talk(setup, page, Script())

    assert "> tell me a story\n" in page.text
    assert "> thanks\n" in page.text
    assert "You are welcome.\n" in page.text


def pay(amount: int) -> str:
    """Pay."""
    if amount > 100:
        raise ValueError("too much")
    return f"paid {amount}"


def stop_all() -> Halt:
    """Stop."""
    return Halt("mind the gap")


ASKING = Approvals({"pay": True})


async def test_each_call_is_recorded_before_the_next_is_asked_about(autojump_clock: MockClock) -> None:
    """A person who leaves in the middle is asked only about the rest. A mixture of calls and questions is one batch."""
    question = Call("ask_user", question="Which?", kind="multi", options=["a", "b", "c"])
    model = ScriptedModel([[Call("pay", amount=1), question, Call("pay", amount=2)], "Done."])
    setup = set_up(model, [pay], [ASKING, AskUser()])
    first = Page()
    await talk(setup, first, Script(Line("go"), Line("r"), Line("no"), Line("1, 3"), Signal.ENDED))
    second = Page()
    keyboard = Script(Signal.INTERRUPTED, Line("/decide"), Line("a"), Line("thanks"))
    await talk(setup, second, keyboard)

    assert "(1 of 3)\n" in first.text
    assert "(2 of 3)\n" in first.text
    assert "(3 of 3)\n" in first.text
    assert "(1 of 3)" not in second.text
    assert second.text.count("(3 of 3)\n") == 2
    assert "It stays open" in second.text
    assert "pay completed: paid 2\n" in second.text
    assert "Done.\n" in second.text
    assert "paid 1" not in first.text + second.text


async def test_arguments_that_do_not_fit_the_tool_are_asked_for_again(autojump_clock: MockClock) -> None:
    """With the tool's own words, and the text that was typed."""
    page = Page()
    keyboard = Script(Line("go"), Line("e"), Line('{"sum": 5}'), Line("e"), Line('{"amount": 7}'))
    await talk(set_up(ScriptedModel([Call("pay", amount=1), "Done."]), [pay], [ASKING]), page, keyboard)

    assert "was not accepted" in page.text
    assert page.text.count('  {"sum": 5}\n') == 1
    assert "pay completed: paid 7\n" in page.text


async def test_a_halt_ends_what_waits_beside_it(autojump_clock: MockClock) -> None:
    """The halt is acknowledged. The other call does not run, and the person is told so beforehand."""
    page = Page()
    model = ScriptedModel([[Call("pay", amount=1), Call("stop_all")], "On we go."])
    keyboard = Script(Line("go"), Signal.INTERRUPTED, Line("/decide"), Line(""), Line("go on"))
    await talk(set_up(model, [pay, stop_all], [ASKING]), page, keyboard)

    assert page.text.count("Halted by a tool:\n  mind the gap\n") == 2
    assert "1 more call waited, and will not be run." in page.text
    assert "[acknowledged]\n" in page.text
    assert "On we go.\n" in page.text
    assert "paid" not in page.text


async def test_a_call_that_somebody_else_decided_is_not_asked_about_for_ever(autojump_clock: MockClock) -> None:
    """The refusal is told, and what came of the other decision is shown."""
    page = Page()
    setup = set_up(ScriptedModel([Call("pay", amount=1), "Done."]), [pay], [ASKING])

    class Meddled(Script):
        sessions: Sessions

        async def read(self, prompt: str = PROMPT, text: str | None = None) -> Read:
            if "pprove" in prompt:
                info = await (await self.sessions.get("c")).info()
                assert info.interrupt is not None
                receipt = await self.sessions.resume("c", [Reject(info.interrupt.calls[0], "not today")])
                await receipt.wait()
            return await super().read(prompt, text)

    keyboard = Meddled(Line("go"), Line("a"))
    chat = Chat(setup, page)
    async with setup.open() as opened:
        keyboard.sessions = opened.sessions
        await chat.run(opened, keyboard, "c")

    assert "was decided before: reject" in page.text
    assert "not today" in page.text
    assert "Done.\n" in page.text


async def test_an_agent_that_left_is_woken_by_a_decision(autojump_clock: MockClock) -> None:
    """A person may think about a call for longer than the agent waits."""
    page = Page()
    setup = set_up(ScriptedModel([Call("pay", amount=1), "Done."]), [pay], [ASKING], inactivity_timeout=10)
    await talk(setup, page, Script(Line("go"), Pause(10_000), Line("a")))

    assert "pay completed: paid 1\n" in page.text
    assert "Done.\n" in page.text


async def test_ctrl_c_cancels_the_turn_that_goes_on_after_a_decision(autojump_clock: MockClock) -> None:
    """As it does any other."""
    page = Page()

    async def wait_long() -> str:
        """Wait."""
        await trio.sleep(1_000)
        return "at last"

    async def press(ctrl_c: Callable[[], Awaitable[None]]) -> None:
        await page.wait_for("wait_long() runs")
        await ctrl_c()

    setup = set_up(ScriptedModel([Call("wait_long"), "Done."]), [wait_long], [Approvals({"wait_long": True})])
    chat = await talk(setup, page, Script(Line("go"), Line("a")), press)

    assert "[cancelled]\n" in page.text
    assert chat.exit_status == 0


async def test_news_at_the_prompt_are_shown_by_the_keyboard(autojump_clock: MockClock) -> None:
    """A title that comes while a person types is shown by the keyboard, which owns the screen, or later if it cannot be shown then."""
    from trio_sagents.middleware import ConversationTitle

    told: list[str] = []

    class Typing(Script):
        def __init__(self, *steps: Read | Pause, can: bool) -> None:
            super().__init__(*steps)
            self.can = can

        async def interject(self, pieces: Sequence[Piece]) -> bool:
            told.extend(piece.text for piece in pieces)
            return self.can

    for can in (True, False):
        page = Page()
        setup = set_up(ScriptedModel(["Hello.", "A title", "Bye."]), (), [ConversationTitle()])
        await talk(setup, page, Typing(Line("hi"), Pause(10), Line("bye"), can=can))

        assert ("[title: A title]\n" in page.text) is not can

    assert told == ["[title: A title]\n"] * 2


async def test_a_model_that_is_asked_again_is_told(autojump_clock: MockClock) -> None:
    """What it said before is not taken for the answer."""
    page = Page()
    model = ScriptedModel([ModelFailed("overloaded", retryable=True), "Here I am."])
    await talk(set_up(model), page, Script(Line("hello")))

    assert "failed: overloaded; retrying in 1 s]\nHere I am.\n" in page.text

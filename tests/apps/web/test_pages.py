"""The pages in a real browser: a conversation with an approval and a question, cuts, long histories, the keyboard, and accessibility."""

import faulthandler
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

from tests.apps.web._browser import browse, needs_browser, open_page, served
from tests.apps.web._front_ends import HeldModel
from trio_sagents import Agent, MemoryStore, SessionConfig, SingleFactoryRouter
from trio_sagents.middleware import Approvals, AskUser
from trio_sagents.testing import Call, Hang, ScriptedModel

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(autouse=True)
def _patience() -> None:
    """A browser takes real time: a test of it may take longer than others until it counts as hanging."""
    faulthandler.dump_traceback_later(120, exit=True)


MARKED: Final = (
    "Here is **bold**, `code`, a [link](https://example.org), a [trap](javascript:alert(1)), ![image](https://example.org/x.png)\n\n"
    "```python\nprint('🍾')\n```\n\n<script>document.title = 'broken into'</script>\n"
)
SONG: Final = "".join(f"{number} bottles 🍾 of beer. " for number in range(80))


async def replace_file_text(path: str, old_text: str, new_text: str) -> str:
    """Edit a file.

    Args:
        path: which file
        old_text: what goes
        new_text: what comes
    """
    await trio.lowlevel.checkpoint()
    return f"{path}: {old_text!r} is {new_text!r} now"


def config_of(answers: Any, **settings: Any) -> SessionConfig:
    model = ScriptedModel(answers, **settings)
    agent = Agent(model=model, tools=[replace_file_text], middleware=[Approvals({"replace_file_text": True}), AskUser()])
    return SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())


def editing() -> list[Any]:
    edit = Call("replace_file_text", path="a.md", old_text="one\ntwo", new_text="one\n2")
    ask = Call("ask_user", question="Which colour?", kind="single", options=[{"value": "red"}, {"value": "blue"}])
    return [["I edit.", edit], ["I ask.", ask], MARKED, "Bye."]


def say(page: Any, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def wait_for_count(page: Any, selector: str, count: int) -> None:
    """Wait until so many elements are on the page."""
    from playwright.sync_api import expect  # only where there is a browser

    expect(page.locator(selector)).to_have_count(count, timeout=60_000)


async def test_chat(tmp_path: Path) -> None:
    """A message, an approval with what it changes, a question and an answer in Markdown, which runs nothing of what the model wrote."""
    async with served(config_of(editing())) as site:

        def visit(browser: Any) -> None:
            with open_page(browser, f"{site.address}#42") as page:
                say(page, "Please edit 😀")
                assert page.locator(".waits .old").inner_text().strip().endswith("two")
                page.get_by_role("button", name="Approve").click()
                page.get_by_role("radio", name="blue").check()
                page.get_by_role("button", name="Answer", exact=True).click()
                page.locator(".row.assistant").get_by_text("bold").wait_for()
                answer = page.locator(".row.assistant .markdown").last
                assert "42" == page.title()
                assert "javascript" not in (answer.evaluate("node => node.outerHTML"))
                assert 0 == answer.locator("img, script").count()
                assert "print('🍾')" == answer.locator("pre code").inner_text().strip()
                assert "https://example.org/x.png" == answer.get_by_role("link", name="image").get_attribute("href")
                wait_for_count(page, ".waits", 0)
                page.reload()
                page.locator(".row.assistant").get_by_text("bold").wait_for()
                wait_for_count(page, ".row", 7)

        await browse(visit)
        rows = (await site.sessions.history("42")).rows
        assert ["Please edit 😀", "I edit.", "I ask.", MARKED] == [row.content["text"] for row in rows if row.content_type == "text"]


async def test_cuts() -> None:
    """An answer is cut twenty times by connections that are reset: the text on the page is the stored text."""
    async with served(config_of([SONG], chunk_size=8, chunk_interval=0.02)) as site:

        async def cut() -> None:
            while site.proxy.cuts < 20:
                await trio.sleep(0.15)
                site.proxy.cut()

        def visit(browser: Any) -> None:
            with open_page(browser, f"{site.address}#42") as page:
                page.evaluate("Math.random = () => 0")  # come back at once, or the song is over before the cuts
                say(page, "sing")
                trio.from_thread.run(cut)
                wait_for_count(page, ".streaming", 0)
                wait_for_count(page, ".row", 2)
                text = page.locator(".row.assistant .markdown").inner_text()
                assert SONG.strip() == text.strip()

        await browse(visit)
        assert 20 == site.proxy.cuts
        assert SONG == (await site.sessions.history("42")).rows[-1].content["text"]


class _Store(MemoryStore):
    """A store of which the transcript cannot be read for a while."""

    is_down = False

    async def history(self, *arguments: Any, **options: Any) -> Any:
        if self.is_down:
            await trio.lowlevel.checkpoint()
            raise OSError("the disk does not answer")
        return await super().history(*arguments, **options)


async def test_history_when_it_cannot_be_read() -> None:
    """While the store cannot be read, what events have brought stays, and the page says that it is not all; then the page catches up."""
    store = _Store()
    config = attrs.evolve(config_of(lambda _: "fine"), store=store)
    async with served(config) as site:

        async def ask(text: str) -> None:
            await (await site.sessions.post("42", text)).wait()

        def visit(browser: Any) -> None:
            with open_page(browser, f"{site.address}#42") as page:
                page.get_by_text("The server cannot read this conversation now").wait_for()
                trio.from_thread.run(ask, "second")
                page.get_by_text("second", exact=True).wait_for()
                wait_for_count(page, ".row", 2)
                store.is_down = False
                page.get_by_text("first", exact=True).wait_for()
                wait_for_count(page, ".row", 4)
                wait_for_count(page, ".banner", 0)

        await ask("first")
        store.is_down = True

        await browse(visit)


async def test_stop_and_queue_by_keyboard() -> None:
    """Without a mouse: a message is sent, another one waits in the queue, Stop cuts the turn, and an approval is given."""
    edit = Call("replace_file_text", path="a.md", old_text="a", new_text="b")
    async with served(config_of([[SONG, Hang()], [edit], "Done."])) as site:

        def visit(browser: Any) -> None:
            with open_page(browser, f"{site.address}#42") as page:
                page.get_by_label("Message", exact=True).focus()
                page.keyboard.type("sing")
                page.keyboard.press("Enter")
                page.locator(".streaming").wait_for()
                page.keyboard.type("then edit")
                page.keyboard.press("Enter")
                page.get_by_text("waits in the queue", exact=True).wait_for()
                reach(page, "Stop")
                page.keyboard.press("Enter")
                page.get_by_role("button", name="Approve").wait_for()
                reach(page, "Approve", back=True)
                page.keyboard.press("Enter")
                page.get_by_role("region", name="Messages").get_by_text("Done.").wait_for()

        await browse(visit)
        stopped = [row.content.get("stop_reason") for row in (await site.sessions.history("42")).rows]
        assert "cancelled" in stopped


def reach(page: Any, name: str, *, back: bool = False) -> None:
    """Press Tab until the focus is on the button."""
    for _ in range(30):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if name == page.evaluate("document.activeElement.textContent"):
            return
    raise AssertionError(f"the keyboard does not reach {name}")


async def test_long_history() -> None:
    """Of 240 messages the page draws the last 100 rows first, and older ones on demand; a delta draws no row again."""
    store_size = 120
    model = HeldModel(*["yes"] * store_size, SONG)
    async with served(SessionConfig(factory_router=SingleFactoryRouter(Agent(model=model)), store=MemoryStore())) as site:
        for number in range(store_size):
            await (await site.sessions.post("42", f"question {number}")).wait()

        def visit(browser: Any) -> None:
            with open_page(browser, f"{site.address}#42") as page:
                page.get_by_text(f"question {store_size - 1}", exact=True).wait_for()
                wait_for_count(page, ".row", 100)
                page.evaluate(
                    "window.drawn = 0; new MutationObserver((all) => window.drawn += all.length)"
                    ".observe(document.querySelector('.items'), {childList: true, subtree: true, characterData: true, attributes: true})"
                )
                say(page, "sing")
                page.locator(".streaming").wait_for()
                drawn = page.evaluate("window.drawn")
                trio.from_thread.run_sync(model.may_go_on.set)
                wait_for_count(page, ".row", 102)
                wait_for_count(page, ".streaming", 0)
                assert page.evaluate("window.drawn") - drawn <= 10
                page.get_by_role("button", name="Older messages").click()
                wait_for_count(page, ".row", 202)

        await browse(visit)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_accessibility(scheme: str) -> None:
    """axe-core finds nothing on both pages, on a desktop and on a telephone, with everything on them that can be there."""
    from axe_core_python.base import AXE_FILE_PATH  # only here

    axe = Path(AXE_FILE_PATH).read_text(encoding="utf-8")
    async with served(config_of(editing())) as site:

        def violations(page: Any) -> Sequence[str]:
            page.evaluate(axe)
            found = page.evaluate("axe.run()")
            return [f"{item['id']}: {node['html']}" for item in found["violations"] for node in item["nodes"]]

        def visit(browser: Any) -> None:
            for width in (1100, 360):
                with open_page(browser, f"{site.address}#42", color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
                    if width == 1100:
                        say(page, "Please edit")
                    page.get_by_role("button", name="Approve").wait_for()
                    assert [] == violations(page)
                    if width == 360:
                        assert page.evaluate("document.documentElement.scrollWidth") <= 360
                        page.get_by_role("button", name="Conversations").click()
                        assert [] == violations(page)
                with open_page(browser, f"{site.address}debug#42", color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
                    page.get_by_role("tab", name="Middleware").click()
                    page.get_by_text("Approvals").first.wait_for()
                    assert [] == violations(page)

        await browse(visit)


async def test_debugger() -> None:
    """The debugger shows the model's exact request, the tools and sub-agents on a timeline, and the state with what has changed."""
    async with served(config_of(lambda _: "Hello.")) as site:
        await (await site.sessions.post("42", "first")).wait()

        def visit(browser: Any) -> None:
            with open_page(browser, f"{site.address}debug") as page:
                page.get_by_role("link", name="42").click()
                page.get_by_role("tab", name="Middleware").click()
                page.get_by_text("Approvals").first.wait_for()
                page.get_by_role("button", name="Follow the next new agent").click()
                trio.from_thread.run(ask)
                page.get_by_role("heading", name="second").wait_for()
                trio.from_thread.run(ask)
                trio.from_thread.run(ask)
                page.get_by_role("tab", name="Requests").click()
                page.get_by_text("5 messages").wait_for()
                page.get_by_role("tab", name="State").click()
                page.get_by_text("/messages/").first.wait_for()
                page.get_by_role("tab", name="Timeline").click()
                page.locator("svg rect.model").first.wait_for(state="attached")

        async def ask() -> None:
            await (await site.sessions.post("second", "hello")).wait()

        await browse(visit)

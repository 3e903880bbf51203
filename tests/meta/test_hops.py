"""The way of one post through the modules, as the page about the design tells of it, compared with the modules that are entered."""

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import trio
import trio.testing

import trio_sagents
from trio_sagents import Agent, Completed, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.testing import ScriptedModel

ROOT: Final = Path(trio_sagents.__file__).parents[1]
PAGE: Final = (Path(__file__).parents[2] / "docs" / "explanation" / "design.md").read_text(encoding="utf-8")
HOPS: Final = re.findall(r"^\| \d \| .* \| `(trio_sagents/[\w/]+\.py)` \|$", PAGE, re.MULTILINE)
COUNT: Final = re.compile(r"this post enters (\d+) modules")


async def _entered_modules() -> list[str]:
    """Return the modules that one post enters, from the handle until everything has come to rest, by their first entry."""
    entered: dict[str, None] = {}

    def note(frame: FrameType, event: str, _arg: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(ROOT / "trio_sagents") and "testing" not in path.parts:
            entered.setdefault(path.relative_to(ROOT).as_posix())

    agent = Agent(model=ScriptedModel(["Good morning.", "Good evening."]))
    async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))) as sessions:
        # The first post fills caches, which earlier tests may have filled already.
        await (await sessions.post("1", "Good morning")).wait()
        handle = await sessions.get("1")
        await trio.testing.wait_all_tasks_blocked()
        earlier = sys.getprofile()
        sys.setprofile(note)
        try:
            outcome = await (await handle.post("Good evening")).wait()
            await trio.testing.wait_all_tasks_blocked()
        finally:
            sys.setprofile(earlier)
    assert isinstance(outcome, Completed)
    return list(entered)


async def test_post_when_it_takes_its_hops() -> None:
    """A post enters each module that the page names, in the order of the page."""
    entered = await _entered_modules()

    assert HOPS == [module for module in entered if module in HOPS]


async def test_post_when_its_modules_are_counted() -> None:
    """The page says how many modules a post enters in all."""
    entered = await _entered_modules()

    assert [str(len(entered))] == COUNT.findall(PAGE), "\n".join(entered)


def test_hops_when_the_diagram_shows_them() -> None:
    """There are at most eight hops, and the diagram shows each of them under its number."""
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)

    assert 0 < len(HOPS) <= 8
    assert [f"{number} {module.removeprefix('trio_sagents/')}" for number, module in enumerate(HOPS, 1)] == re.findall(
        r'"([^"]+)"', diagram
    )

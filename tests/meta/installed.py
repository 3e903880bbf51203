"""Tries an installed library with no extra, far from its sources: `python installed.py`, in an empty folder. Run by `nox -s package`."""

import importlib
import pkgutil
import sys
from pathlib import Path

import trio

import trio_sagents
from trio_sagents import Agent, Completed, SessionConfig, SingleFactoryRouter, SqliteStore, TextDelta, TurnEnded, open_sessions
from trio_sagents.models.offline import OfflineModel

MAY_NEED = {
    "cli": {"hypercorn", "prompt_toolkit", "rich"},
    "models": {"anthropic", "httpx2", "openai"},
    "testing": {"hypothesis", "pytest"},
    "web": {"quart"},
}
"""By subpackage: the packages of extras that its private modules may ask for."""


def check_modules() -> int:
    """Import every module, and return how many there are. Only a module of an extra may say that the extra is missing."""
    count = 0
    for module in pkgutil.walk_packages(trio_sagents.__path__, "trio_sagents."):
        if module.name.endswith("__main__"):
            continue
        count += 1
        try:
            importlib.import_module(module.name)
        except ImportError as exc:
            unit = module.name.split(".")[1]
            if module.ispkg or (exc.name or "").partition(".")[0] not in MAY_NEED.get(unit, set()):
                raise
    return count


def double(number: int) -> int:
    """Double a number."""
    return 2 * number


async def converse() -> str:
    """Hold a conversation, leave it, and come back to it."""
    agent = Agent(model=OfflineModel(chunk_interval=0), tools=[double])
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), store=SqliteStore("smoke.db"))
    text = ""
    async with open_sessions(config) as sessions, sessions.watch("c", viewer="smoke") as watch:
        await sessions.post("c", "Hello")
        async for envelope in watch:
            if isinstance(envelope.event, TextDelta):
                text += envelope.event.text
            if isinstance(envelope.event, TurnEnded):
                assert isinstance(envelope.event.outcome, Completed)
                break
    async with open_sessions(config) as sessions:
        page = await sessions.history("c")
        assert text == page.rows[-1].content["text"]
    return text


if __name__ == "__main__":
    inside = Path(trio_sagents.__file__).resolve()
    assert "site-packages" in inside.parts, f"{inside} is not what was installed"
    assert (inside.parent / "py.typed").is_file()
    modules = check_modules()
    answer = trio.run(converse)
    print(f"trio_sagents {trio_sagents.__version__} on Python {sys.version.split()[0]}: {modules} modules, and it said {answer[:20]!r}")

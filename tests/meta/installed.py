"""Tries an installed library with no extra, far from its sources: `python installed.py`, in an empty folder. Run by `nox -s package`."""

import importlib
import pkgutil
import sys
from pathlib import Path

import trio

import trio_sagents
from trio_sagents import Agent, Completed, SessionConfig, SingleFactoryRouter, SqliteStore, TextDelta, TurnEnded, open_sessions
from trio_sagents.models.offline import OfflineModel

NEEDS_EXTRA = {
    "trio_sagents.models._answer": "httpx2",
    "trio_sagents.models._errors": "httpx2",
    "trio_sagents.models._tls": "httpx2",
    "trio_sagents.models.anthropic": "anthropic",
    "trio_sagents.models.openai": "openai",
    "trio_sagents.testing._store_pages": "pytest",
    "trio_sagents.testing.conformance_store": "pytest",
}
"""Modules that say which package is missing, and that alone."""


def check_modules() -> int:
    """Import every module; return how many there are."""
    count = 0
    for module in pkgutil.walk_packages(trio_sagents.__path__, "trio_sagents."):
        if module.name.endswith("__main__"):
            continue
        count += 1
        try:
            importlib.import_module(module.name)
        except ImportError as exc:
            package = (exc.name or "").partition(".")[0]
            if NEEDS_EXTRA.get(module.name) != package and not (
                module.name.startswith("trio_sagents.testing") and package in {"hypothesis", "pytest"}
            ):
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

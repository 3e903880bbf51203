"""The command `trio-sagents`: arguments in, exit status out, and no traceback for what people can correct themselves."""

import argparse
import contextlib
import functools
import importlib.metadata
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import trio

from trio_sagents import MiddlewareError, PersistenceError, SagentsError, StartFailed, UserMessage
from trio_sagents.cli._chat import run_chat
from trio_sagents.cli._migrate import run_migrate
from trio_sagents.cli._models import UsageError
from trio_sagents.cli._nodes import run_nodes
from trio_sagents.cli._once import FAILED, USAGE, read_text, run_once
from trio_sagents.cli._screen import Screen, silence
from trio_sagents.cli._setup import Options, Setup, set_up
from trio_sagents.cli._words import error_text
from trio_sagents.models import PROVIDERS

_EPILOG: Final = """\
Exit status of --once: 0 answered, 1 failed, 2 usage, 3 a person must decide, 4 cancelled, 130 Ctrl-C.
The chat exits with 0, or with 3 if its lines do not come from a terminal and a call waits for a person: decide at a terminal.
The model: that of ANTHROPIC_API_KEY, else that of OPENAI_API_KEY or OPENAI_BASE_URL, else an embedded offline model.
The database: --db, else TRIO_SAGENTS_DB, else trio-sagents/chat.db in XDG_DATA_HOME (~/.local/share).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: the arguments; None uses those of the process.

    Raises:
        SystemExit: with status 2 for wrong arguments, with 0 for --help and --version.
    """
    parser = _parser()
    given = parser.parse_args(argv)
    match given.command:
        case "serve":
            return _serve(given)
        case "migrate":
            return _run(functools.partial(run_migrate, given.file, sys.stdout))
        case "nodes":
            return _run(functools.partial(run_nodes, given.place, sys.stdout))
        case _:
            return _chat(given)


def _serve(given: argparse.Namespace) -> int:
    """Run `trio-sagents serve`."""
    try:
        from trio_sagents.cli._serve import ServeOptions, run_serve  # noqa: PLC0415  # the extra `web`
    except ModuleNotFoundError as exc:
        _complain(f"trio-sagents: serving needs the extra `web`: pip install 'trio-sagents[web]' ({exc})")
        return USAGE
    options = ServeOptions(
        target=given.config,
        host=given.host,
        port=given.port,
        auth=given.auth,
        allowed_hosts=tuple(given.allow_host),
        allowed_origins=tuple(given.allow_origin),
        may_debug=given.debug,
        prices=given.prices,
        currency=given.currency,
    )
    status = 130
    # The first Ctrl-C ends the streams and lets turns finish. A second one comes while the sessions wait for these turns: in a group.
    with contextlib.suppress(KeyboardInterrupt):
        try:
            status = _run(functools.partial(run_serve, options, functools.partial(print, flush=True)))
        except BaseExceptionGroup as group:
            _, other = group.split(KeyboardInterrupt)
            if other is not None:
                raise
    return status


def _chat(given: argparse.Namespace) -> int:
    """Run `trio-sagents chat`."""
    log = logging.getLogger("trio_sagents")
    log.addHandler(logging.StreamHandler() if given.verbose else logging.NullHandler())
    if given.verbose:
        log.setLevel(logging.DEBUG)  # among other things, the standard error of MCP servers is only there
    options = Options(
        once=given.once,
        conversation_id=given.conversation,
        is_new=given.new,
        database=given.db,
        provider=given.provider,
        model=given.model,
        is_plain=given.plain,
        folder=given.files,
        servers=tuple(given.mcp),
        allowed=tuple(given.allow),
    )
    try:
        text = None if options.once is None else _text(options.once)
        setup = set_up(options)
        return _run(_command(setup, options, text), setup.database)
    except UsageError as exc:
        _complain(f"trio-sagents: {exc}")
        return USAGE
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("trio-sagents", description="Conversations with agents that survive being killed.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    migrate = commands.add_parser(
        "migrate",
        help="rewrite a database of an earlier version",
        description="Rewrite a database of an earlier version, so that each turn writes a third of the bytes. Nobody may have it open.",
    )
    migrate.add_argument("file", metavar="FILE", type=Path, help="the SQLite file; make a copy before")
    chat = commands.add_parser(
        "chat",
        help="talk to an agent",
        description="Talk to an agent.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    chat.add_argument("--once", metavar="TEXT", help="send one message, print the answer, and exit; - reads it from standard input")
    which = chat.add_mutually_exclusive_group()
    which.add_argument("--conversation", metavar="ID", help="the conversation to continue (default: the last one; with --once, a new one)")
    which.add_argument("--new", action="store_true", help="begin a new conversation")
    chat.add_argument("--db", metavar="PATH", type=Path, help="the SQLite file in which everything is stored")
    chat.add_argument("--provider", choices=PROVIDERS, help="default: the first provider whose key is set, else offline")
    chat.add_argument("--model", metavar="NAME", help="the model, by its provider's name for it or as provider:model")
    chat.add_argument(
        "--files",
        metavar="DIR",
        type=Path,
        help="the folder whose files the agent reads, and changes if you approve (default: the current folder)",
    )
    chat.add_argument(
        "--mcp",
        metavar="COMMAND",
        action="append",
        default=[],
        help="start an MCP server and use its tools, if you approve; may be repeated",
    )
    chat.add_argument("--allow", metavar="TOOL", action="append", default=[], help="run calls of this tool without asking; may be repeated")
    chat.add_argument("--plain", action="store_true", help="read plain lines, without prompt_toolkit")
    chat.add_argument("--verbose", action="store_true", help="write the library's log to stderr")
    nodes = commands.add_parser(
        "nodes",
        help="show the nodes of a cluster",
        description="Show the nodes of a cluster: which are live, draining or dead, and how many conversations each of them has.",
    )
    nodes.add_argument("place", metavar="PLACE", help="the path of the SqliteCluster's file, or the URL of the PostgresCluster's database")
    _add_serve(commands.add_parser("serve", help="put conversations on the web", description="Put conversations on the web."))
    return parser


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("config", metavar="CONFIG", help="module:name of a SessionConfig, or of a function that returns one")
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1); any other needs --auth")
    serve.add_argument("--port", type=int, default=8000, help="the port (default: 8000; 0 takes a free one)")
    serve.add_argument("--auth", metavar="FUNCTION", help="module:name of a function from a request to a Visitor, a scope, or None")
    serve.add_argument("--allow-host", metavar="NAME", action="append", default=[], help="a name of this server; may be repeated")
    serve.add_argument("--allow-origin", metavar="ORIGIN", action="append", default=[], help="an origin of its pages; may be repeated")
    serve.add_argument("--prices", metavar="TABLE", help="module:name of prices by model name, (input, output) per million tokens")
    serve.add_argument("--currency", default="USD", help="the currency of the prices (default: USD)")
    serve.add_argument("--debug", action="store_true", help="let visitors see the debug channel")


def _version() -> str:
    try:
        return f"trio-sagents {importlib.metadata.version('trio-sagents')}"
    except importlib.metadata.PackageNotFoundError:
        return "trio-sagents (not installed)"


def _text(given: str) -> str:
    text = read_text(given)
    try:
        return UserMessage(text).text
    except ValueError as exc:
        raise UsageError(f"--once: {exc}") from exc


def _command(setup: Setup, options: Options, text: str | None) -> Callable[[], Awaitable[int]]:
    if text is None and sys.stdin is None:
        raise UsageError("there is no standard input to read lines from; use --once, which does not need one")
    if text is None:
        return functools.partial(run_chat, setup, options, Screen(sys.stdout))
    return functools.partial(run_once, setup, options, text, Screen(sys.stdout), Screen(sys.stderr))


def _run(command: Callable[[], Awaitable[int]], database: Path | None = None) -> int:
    """Run the command; an error that people can correct becomes a line on stderr."""
    status = FAILED
    try:
        status = trio.run(_awaited, command)
    except* UsageError as group:
        status = USAGE
        _report(group)
    except* BrokenPipeError:
        silence(sys.stdout)
    except* (SagentsError, OSError) as group:
        _report(group)
        if database is not None and group.subgroup(_is_of_the_database):
            _complain(f"The database is {database}; --db PATH uses another one.")
    return status


def _is_of_the_database(error: BaseException) -> bool:
    """Return whether another database might help: not if a server or another part of the agent could not start."""
    return isinstance(error, PersistenceError) or (isinstance(error, StartFailed) and not isinstance(error.__cause__, MiddlewareError))


async def _awaited(command: Callable[[], Awaitable[int]]) -> int:
    return await command()


def _report(group: BaseExceptionGroup[BaseException]) -> None:
    for error in _leaves(group):
        _complain(f"trio-sagents: {error_text(error)}")


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(text, file=sys.stderr, flush=True)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error

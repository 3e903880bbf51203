"""From the command line and the environment to what a chat runs on."""

import os
import shlex
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import attrs

from trio_sagents import SessionConfig, Sessions, SingleFactoryRouter, SqliteStore, open_sessions
from trio_sagents.cli._agent import ASKED, chat_agent
from trio_sagents.cli._folder import SCOPE, files_config
from trio_sagents.cli._models import Choice, Provider, UsageError, choose_model
from trio_sagents.cli._servers import mcp_servers
from trio_sagents.files import FileArea, FilesConfig, FileSystem, open_files


@attrs.frozen(kw_only=True)
class Options:
    """The options of the command line."""

    once: str | None = None
    """The one message to send; None for a conversation."""
    conversation_id: str | None = None
    is_new: bool = False
    """Whether to begin a new conversation."""
    database: Path | None = None
    provider: Provider | None = None
    model: str | None = None
    is_plain: bool = False
    """Whether to read plain lines, without prompt_toolkit."""
    folder: Path | None = None
    """The folder whose files the agent has; None is the current folder."""
    servers: Sequence[str] = ()
    """Commands that start MCP servers."""
    allowed: Sequence[str] = ()
    """The names of tools that run without approval."""


MakeConfig: TypeAlias = Callable[[FileSystem], SessionConfig]


@attrs.frozen
class Opened:
    """The sessions of a chat, and the files that its agents have."""

    sessions: Sessions
    area: FileArea


@attrs.frozen
class Setup:
    """What a chat runs on."""

    choice: Choice
    database: Path
    make_config: MakeConfig
    """The settings of the sessions; called when the files are open."""
    files: FilesConfig = attrs.field(factory=FilesConfig)
    folder: Path | None = None
    """The folder of the files; None if they are in memory."""
    has_titles: bool = False
    """Whether conversations get titles."""
    again: Sequence[str] = ("trio-sagents", "chat")
    """The words of a command that opens the same database, files and servers, from any folder."""

    def command_for(self, conversation_id: str) -> str:
        """Return the line to type at a terminal to return to a conversation, with the same database, files and servers."""
        return shlex.join([*self.again, "--conversation", conversation_id])

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Opened]:
        """Open the files, and the sessions that use them.

        Raises:
            PersistenceError: the folder or the database cannot be used.

        Cancellation: either everything is open, or nothing was done; when the block is left, all agents have ended and all is saved.
        """
        async with open_files(self.files) as files, open_sessions(self.make_config(files)) as sessions:
            yield Opened(sessions, files.area(SCOPE))


def default_database(environ: Mapping[str, str]) -> Path:
    """Return the database that is used if none is named: TRIO_SAGENTS_DB, else a file in the person's data folder."""
    if named := environ.get("TRIO_SAGENTS_DB"):
        return Path(named)
    given = environ.get("XDG_DATA_HOME", "")
    if sys.platform == "win32" and not given:
        given = environ.get("LOCALAPPDATA", "")
    home = Path(given) if given and Path(given).is_absolute() else Path.home() / ".local" / "share"
    return home / "trio-sagents" / "chat.db"


def set_up(options: Options, environ: Mapping[str, str] | None = None) -> Setup:
    """Return what a chat runs on; make the folder of the default database.

    Raises:
        UsageError: the provider, a server or the working folder cannot be used, or the folder of the database does not exist.
    """
    environ = os.environ if environ is None else environ
    choice = choose_model(options.provider, options.model, environ)
    folder = _working_folder(options.folder)
    allowed = frozenset(options.allowed)
    servers = mcp_servers(options.servers, allowed)
    if not servers.middleware and (unknown := sorted(allowed - set(ASKED))):
        raise UsageError(f"--allow {unknown[0]}: no such tool asks; those that do are {', '.join(ASKED)}")
    database = _database(options.database, environ)
    has_titles = options.once is None

    def make_config(files: FileSystem) -> SessionConfig:
        agent = chat_agent(choice, database, files, servers, allowed, has_titles=has_titles)
        return SessionConfig(factory_router=SingleFactoryRouter(agent), store=SqliteStore(database))

    again = _again(options, database, folder)
    return Setup(choice, database, make_config, files_config(folder, database), folder, has_titles, again)


def _again(options: Options, database: Path, folder: Path) -> Sequence[str]:
    """Return the words of a command for the same chat. Tools of `--allow` are left out: they were allowed for one run."""
    called = Path(sys.argv[0]).absolute()
    is_off_path = called.name == "trio-sagents" and shutil.which("trio-sagents") is None  # in a virtual environment that is not active
    words = [str(called) if is_off_path else "trio-sagents", "chat"]
    for option, given in (("--provider", options.provider), ("--model", options.model)):
        words += [] if given is None else [option, given]
    words += [] if options.database is None else ["--db", str(database)]
    words += [] if options.folder is None else ["--files", str(folder)]
    for server in options.servers:
        words += ["--mcp", server]
    return words


def _working_folder(given: Path | None) -> Path:
    folder = (Path.cwd() if given is None else given.expanduser()).absolute()
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; name the folder whose files the agent has with --files")
    return folder


def _database(given: Path | None, environ: Mapping[str, str]) -> Path:
    database = (given or default_database(environ)).expanduser().absolute()
    if database.is_dir():
        raise UsageError(f"{database} is a folder; name a file with --db")
    if given is None and "TRIO_SAGENTS_DB" not in environ:
        _make_folder(database.parent)
    elif not database.parent.is_dir():
        raise UsageError(f"there is no folder {database.parent} for the database; make it, or name another file with --db")
    return database


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(f"cannot make the folder {folder} for the database ({exc.strerror}); name a file with --db") from exc

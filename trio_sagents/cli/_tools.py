"""The tools of the chat, as plain functions: any user of the library writes them like this."""

from collections.abc import Callable, Sequence
from pathlib import Path

from trio_sagents.cli._arithmetic import calculate as _calculate
from trio_sagents.cli._files import Folder
from trio_sagents.cli._notebook import Notebook


def calculate(expression: str) -> str:
    """Do exact arithmetic.

    Args:
        expression: numbers, + - * / // % ** and parentheses, such as "12*(3+4)".
    """
    return _calculate(expression)


def chat_tools(database: Path, folder: Path) -> Sequence[Callable[..., str]]:  # type: ignore[explicit-any]  # their parameters differ
    """Return the tools of a chat.

    Args:
        database: the SQLite file in which todos and notes are kept.
        folder: the one whose files may be read.
    """
    notebook = Notebook(database)
    files = Folder(folder, [database.with_name(database.name + suffix) for suffix in ("", "-wal", "-shm", "-journal")])
    return (
        calculate,
        files.read_file,
        files.list_files,
        notebook.add_todos,
        notebook.list_todos,
        notebook.complete_todos,
        notebook.remove_todos,
        notebook.remember,
        notebook.recall,
    )

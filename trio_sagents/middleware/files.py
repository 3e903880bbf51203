"""Files for a model: tools that read and change a tree of virtual files, and events that tell viewers of changes.

The tree belongs to a scope, not to the agent: agents of the same scope see each other's files, and files live longer than any
agent. If a tool cannot do something, its result says so to the model; the turn continues.

A tool that changes a file returns when the change is stored, so a stored result never speaks of a change that a crash could undo.
If the storage fails, the result says that the change is not stored yet.
"""

import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents.agent import MiddlewareContext, Tool, ToolResult
from trio_sagents.data.config import type_validator
from trio_sagents.data.events import MiddlewareEvent
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.files import FileArea, FileChange, FileError, FilesUnsaved, FileSystem
from trio_sagents.middleware._built_in import BuiltIn

FileScope: TypeAlias = str | tuple[str, ...]
"""The name of a tree, such as "user:42"."""
_Function: TypeAlias = Callable[..., Awaitable[str | ToolResult]]  # type: ignore[explicit-any]  # each tool has its own parameters
MAX_LISTED: Final = 1000
"""How many files a listing shows."""
MAX_LINES: Final = 2000
"""How many lines `read_file` shows, unless the model asks for fewer."""
MAX_CHARS: Final = 60_000
"""How many characters `read_file` shows."""
MAX_FOUND: Final = 200
"""How many lines a search shows."""
MAX_SKIPPED: Final = 20
_SLASHES: Final = re.compile("/{2,}")

PROMPT: Final = """\
You have a file system of your own; its files are not those of a computer. Their paths begin with "/", as in "/notes/plan.md". A \
folder exists as long as there are files in it. The files are still there in later conversations, and others may read and change \
them meanwhile."""
_EDITING: Final = """ Read a file before you change it, and replace small pieces of it. \
To replace its whole content, delete the file and create it again."""


@attrs.frozen
class FilesChanged(MiddlewareEvent):
    """Somebody changed a file of the agent: the agent itself, another agent with the same files, or the host."""

    change: FileChange


class FileTools:
    """The tools for the files of one area. Each method is a tool; its docstring is what the model is told."""

    def __init__(self, area: FileArea) -> None:
        self._area = area

    async def list_files(self, folder: str = "/") -> str:
        """List the files in a folder and in the folders below it, with their sizes.

        Args:
            folder: The path of the folder; "/" for all files.
        """
        infos = await self._area.list(_path(folder))
        if not infos:
            return f"There are no files in {folder!r}."
        lines = [
            f"{info.path} ({info.size} bytes{', read-only' if info.is_read_only else ''}){f': {info.title}' if info.title else ''}"
            for info in infos[:MAX_LISTED]
        ]
        if len(infos) > MAX_LISTED:
            lines.append(f"… and {len(infos) - MAX_LISTED} more; list one of the folders")
        return "\n".join(lines)

    async def read_file(self, path: str, first_line: int = 1, line_count: int = MAX_LINES) -> str:
        """Read a file, or some of its lines. The text is exactly what is in the file.

        Args:
            path: The path of the file.
            first_line: The number of the first line to read; lines count from 1.
            line_count: How many lines to read at most.
        """
        path = _path(path)
        if first_line < 1 or line_count < 1:
            raise ValueError("first_line and line_count must be at least 1")
        found = await self._area.read(path, offset=first_line - 1, limit=min(line_count, MAX_LINES), fresh=True)
        if not found.line_count:
            return f"[{path} is empty]"
        if not found.text:
            return f"[{path} has only {found.line_count} lines; there is no line {first_line}]"
        text = _cut(found.text)
        if found.is_whole and text == found.text:
            return text
        first = found.offset + 1
        if text != found.text and not text.endswith("\n"):
            place = f"{path}, the beginning of line {first} of {found.line_count}"
            return f"[{place}; the line is too long to be shown, so look for text in it]\n{text}"
        last = found.offset + text.count("\n") + (not text.endswith("\n"))
        return f"[{path}, lines {first} to {last} of {found.line_count}]\n{text}"

    async def create_file(self, path: str, content: str) -> str:
        """Create a new file. The file must not exist yet; folders need not be created.

        Args:
            path: The path of the new file.
            content: The whole text of the file.
        """
        path = _path(path)
        await self._area.create(path, content)
        return f"Created {path}."

    async def replace_file_text(self, path: str, old_text: str, new_text: str, replace_all: bool = False) -> str:  # noqa: FBT001, FBT002  # for a model
        """Replace a piece of text in a file.

        Args:
            path: The path of the file.
            old_text: The text to replace, exactly as it is in the file, spaces and line breaks included; it must be in the file once.
            new_text: The text that takes its place; empty to delete old_text.
            replace_all: Whether to replace old_text everywhere in the file; then it may be there more than once.
        """
        path = _path(path)
        try:
            count = await self._area.replace(path, old_text, new_text, all=replace_all, durable=True)
        except FilesUnsaved:  # the edit was made, so this is not a failure of the tool
            return (
                f"Replaced the text in {path}. The storage has not taken the change yet; saving is retried, but the change is lost "
                "if the program ends before that."
            )
        return f"Replaced the text {count} times in {path}." if count > 1 else f"Replaced the text in {path}."

    async def find_in_file(self, text: str, path: str = "/") -> str:
        """Find the lines that contain a text, in a file or in all files of a folder.

        Args:
            text: The text to look for, exactly as it is written, capitals and spaces included; it is not a pattern.
            path: The path of the file or folder; "/" for all files.
        """
        path = _path(path)
        found = await self._area.find(text, path, limit=MAX_FOUND)
        lines = [f"{match.path}:{match.line}: {match.text}" for match in found.matches] or ["The text was not found."]
        if not found.is_complete:
            lines.append("… and more; look for a longer text, or in fewer files")
        if found.skipped:
            more = f" and {len(found.skipped) - MAX_SKIPPED} more" if len(found.skipped) > MAX_SKIPPED else ""
            lines.append(f"Not searched, because they cannot be read: {', '.join(found.skipped[:MAX_SKIPPED])}{more}")
        return "\n".join(lines)

    async def delete_file(self, path: str) -> str:
        """Delete a file. This cannot be undone.

        Args:
            path: The path of the file.
        """
        path = _path(path)
        await self._area.delete(path)
        return f"Deleted {path}."

    async def move_file(self, old_path: str, new_path: str) -> str:
        """Move a file to another path, or move a folder with everything in it. Nothing is overwritten.

        Args:
            old_path: The path of the file or folder.
            new_path: Its new path; there must be nothing at this path yet.
        """
        old_path = _path(old_path)
        moved = await self._area.move(old_path, _path(new_path))
        return f"Moved {old_path} to {moved[0]}." if len(moved) == 1 else f"Moved {len(moved)} files from {old_path} to {_path(new_path)}."


FILE_TOOLS: Final = (
    "list_files",
    "read_file",
    "create_file",
    "replace_file_text",
    "find_in_file",
    "delete_file",
    "move_file",
)
"""The names of all tools, in the order in which the model gets them."""
_CHANGING: Final = frozenset({"create_file", "replace_file_text", "delete_file", "move_file"})


def _path(path: str) -> str:
    """Return a path as a model means it: several slashes in a row count as one. Every other fault of the path is told to the model."""
    return _SLASHES.sub("/", path)


def _cut(text: str) -> str:
    """Return the whole lines that fit; if not even the first line fits, its beginning."""
    if len(text) <= MAX_CHARS:
        return text
    end = text.rfind("\n", 0, MAX_CHARS) + 1
    return text[: end or MAX_CHARS]


def _check_files(_files: object, _field: "attrs.Attribute[Opaque]", files: object) -> None:
    if not isinstance(files, FileSystem):
        raise TypeError(f"Files takes the FileSystem of open_files, as in Files(files, scope='user:42'), not {files!r}")


def _check_scope(_files: object, _field: "attrs.Attribute[Opaque]", scope: object) -> None:
    if not callable(scope) and not isinstance(scope, str | tuple):
        raise TypeError(f"Files.scope must be a str, a tuple of str, or a function of the context that returns one, not {scope!r}")


def _names(tools: object) -> Sequence[str]:
    if isinstance(tools, str) or not isinstance(tools, Sequence | frozenset | set):
        raise TypeError(f"Files.tools must be a sequence of names of tools, not {tools!r}")
    for name in tools:
        if name not in FILE_TOOLS:
            raise ValueError(f"Files.tools names {name!r}, which is not one of its tools: {', '.join(FILE_TOOLS)}")
    return tuple(name for name in FILE_TOOLS if name in tools)


@attrs.frozen(eq=False)
class Files(BuiltIn):
    """Gives the agent files: tools to list, read, create, edit, search, delete and move them.

    `FilesChanged` tells the agent's viewers of every change in the tree, also if somebody else made it.
    """

    files: FileSystem = attrs.field(validator=_check_files)
    """From `open_files`. It must stay open as long as agents use it, so open it around `open_sessions`."""
    scope: FileScope | Callable[[MiddlewareContext], FileScope] = attrs.field(kw_only=True, validator=_check_scope)
    """Whose files the agent gets: the name of one tree for all agents, or a function from the context of each agent to that name, such
    as `lambda context: f"user:{context.scope}"`, so that each tenant has its own tree. It is called when the agent starts. Its
    result must not depend on anything that a model says."""
    tool_names: Sequence[str] = attrs.field(default=FILE_TOOLS, kw_only=True, alias="tools", converter=_names)
    """The tools that the agent gets; without those that change files, it can only read."""
    publish_changes: bool = attrs.field(default=True, kw_only=True, validator=type_validator(bool))
    """Whether viewers get `FilesChanged`."""

    def area(self, context: MiddlewareContext) -> FileArea:
        """Return the files of an agent.

        Raises:
            TypeError: `scope` returned something that cannot name a tree.
            ValueError: the same, for a text or a tuple.
        """
        return self.files.area(self.scope(context) if callable(self.scope) else self.scope)

    async def on_start(self, context: MiddlewareContext) -> None:
        """Find out whose files the agent gets, and begin to publish changes. For a sub-agent, its parent publishes them.

        Cancellation: the agent does not start; nothing is left.
        """
        area = self.area(context)
        if self.publish_changes and not context.path:
            is_listening = trio.Event()
            context.start_soon(_tell, context, area, is_listening)
            await is_listening.wait()

    async def tools(self, context: MiddlewareContext) -> Sequence[Tool]:
        """Return the tools.

        Cancellation: nothing changes.
        """
        # The same object as long as the agent lives: a call that was approved runs on the tool that was shown.
        tools: FileTools = context.memory.setdefault("tools", FileTools(self.area(context)))
        return [Tool.of(_readable(getattr(tools, name))) for name in self.tool_names]

    async def system_prompt(self, context: MiddlewareContext) -> str:
        """Return the instructions for the tools.

        Cancellation: nothing changes.
        """
        return PROMPT + (_EDITING if _CHANGING & set(self.tool_names) else " You can only read them.") if self.tool_names else ""

    def debug_summary(self) -> JSON:
        """Return the names of the tools, and whether changes are published."""
        return {"tools": list(self.tool_names), "publish_changes": self.publish_changes}


def _readable(function: _Function) -> _Function:
    """Return the function, with its errors as results that the model can read."""

    @functools.wraps(function)
    async def run(**arguments: Opaque) -> str | ToolResult:
        try:
            return await function(**arguments)
        except (FileError, ValueError) as exc:
            return ToolResult(str(exc), is_error=True)

    return run


async def _tell(context: MiddlewareContext, area: FileArea, is_listening: trio.Event) -> None:
    async with area.changes() as changes:
        is_listening.set()
        async for change in changes:
            context.publish(FilesChanged(change))

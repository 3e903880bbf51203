"""Files for a model: tools that read and change a tree of virtual files, and events that tell viewers what changed.

The tree belongs to a scope, not to the agent: agents of the same scope see each other's files, and files outlive every agent.
What a tool cannot do is a result that the model can read, never the end of a turn.
"""

import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import attrs
import trio

from trio_sagents.agent import Middleware, MiddlewareContext, Tool, ToolResult
from trio_sagents.data.config import type_validator
from trio_sagents.data.events import MiddlewareEvent
from trio_sagents.data.json import JSON, Opaque
from trio_sagents.files import FileArea, FileChange, FileError, FileSystem

FileScope: TypeAlias = str | tuple[str, ...]
"""What names a tree, as "user:42"."""
_Function: TypeAlias = Callable[..., Awaitable[str | ToolResult]]  # type: ignore[explicit-any]  # each tool has parameters of its own
MAX_LISTED: Final = 1000
"""Files that one listing shows."""
MAX_LINES: Final = 2000
"""Lines that one reading shows, unless the model wants fewer."""
MAX_CHARS: Final = 60_000
"""Characters that one reading shows."""
MAX_FOUND: Final = 200
"""Lines that one search shows."""
MAX_SKIPPED: Final = 20
_SLASHES: Final = re.compile("/{2,}")

PROMPT: Final = """\
You have files, in a file system of your own: they are not those of a computer. Their paths begin with "/", as in "/notes/plan.md"; \
folders come and go with the files in them. The files are still there in later conversations, and others may read and change them \
meanwhile."""
_EDITING: Final = """ Read a file before you change it, and replace small pieces of it. \
To give it another content as a whole, delete it and create it anew."""


@attrs.frozen
class FilesChanged(MiddlewareEvent):
    """Somebody changed a file that the agent has: the agent, another one with the same files, or the host."""

    change: FileChange


class FileTools:
    """What a model may do with the files of one area; each method is a tool, its docstring what the model is told."""

    def __init__(self, area: FileArea) -> None:
        self._area = area

    async def list_files(self, folder: str = "/") -> str:
        """List the files in a folder and in the folders below it, with their sizes.

        Args:
            folder: path of the folder; "/" for all files.
        """
        infos = await self._area.list(_path(folder))
        if not infos:
            return f"There are no files in {folder!r}."
        lines = [f"{info.path} ({info.size} bytes{', read-only' if info.is_read_only else ''})" for info in infos[:MAX_LISTED]]
        if len(infos) > MAX_LISTED:
            lines.append(f"… and {len(infos) - MAX_LISTED} more; list a folder of these")
        return "\n".join(lines)

    async def read_file(self, path: str, first_line: int = 1, line_count: int = MAX_LINES) -> str:
        """Read a file, or some lines of it. The text is exactly what is in the file.

        Args:
            path: path of the file.
            first_line: number of the first line to read; lines count from 1.
            line_count: how many lines to read at most.
        """
        path = _path(path)
        if first_line < 1 or line_count < 1:
            raise ValueError("first_line and line_count must be at least 1")
        found = await self._area.read(path, offset=first_line - 1, limit=min(line_count, MAX_LINES))
        if not found.line_count:
            return f"[{path} is empty]"
        if not found.text:
            return f"[{path} has {found.line_count} lines, there is nothing from line {first_line} on]"
        text = _cut(found.text)
        if found.is_whole and text == found.text:
            return text
        first = found.offset + 1
        if text != found.text and not text.endswith("\n"):
            return (
                f"[{path}, the beginning of line {first} of {found.line_count}, which is too long to be shown; look for text in it]\n{text}"
            )
        last = found.offset + text.count("\n") + (not text.endswith("\n"))
        return f"[{path}, lines {first} to {last} of {found.line_count}]\n{text}"

    async def create_file(self, path: str, content: str) -> str:
        """Create a new file. It must not exist yet; folders need not be created.

        Args:
            path: path of the new file.
            content: the whole text of the file.
        """
        path = _path(path)
        await self._area.create(path, content)
        return f"Created {path}."

    async def replace_file_text(self, path: str, old_text: str, new_text: str, replace_all: bool = False) -> str:  # noqa: FBT001, FBT002  # for a model
        """Replace a piece of text in a file.

        Args:
            path: path of the file.
            old_text: the text to replace, exactly as it is in the file, blanks and line ends included; it must be there once.
            new_text: the text to put in its place; empty to delete it.
            replace_all: replace old_text wherever it is in the file, not only where it is there once.
        """
        path = _path(path)
        count = await self._area.replace(path, old_text, new_text, all=replace_all)
        return f"Replaced it {count} times in {path}." if count > 1 else f"Replaced it in {path}."

    async def find_in_file(self, text: str, path: str = "/") -> str:
        """Find the lines in which a text is, in a file or in all files of a folder.

        Args:
            text: what to look for, exactly as it is written, capitals and blanks included; no pattern.
            path: path of the file or folder; "/" for all files.
        """
        path = _path(path)
        found = await self._area.find(text, path, limit=MAX_FOUND)
        lines = [f"{match.path}:{match.line}: {match.text}" for match in found.matches] or ["It is nowhere."]
        if not found.is_complete:
            lines.append("… and more; look for a longer text, or in fewer files")
        if found.skipped:
            more = f" and {len(found.skipped) - MAX_SKIPPED} more" if len(found.skipped) > MAX_SKIPPED else ""
            lines.append(f"Not looked into, for they cannot be read: {', '.join(found.skipped[:MAX_SKIPPED])}{more}")
        return "\n".join(lines)

    async def delete_file(self, path: str) -> str:
        """Delete a file, for good.

        Args:
            path: path of the file.
        """
        path = _path(path)
        await self._area.delete(path)
        return f"Deleted {path}."

    async def move_file(self, old_path: str, new_path: str) -> str:
        """Give a file another path, or move a folder with all that is in it. Nothing is overwritten.

        Args:
            old_path: path of the file or folder.
            new_path: its new path; nothing may be there yet.
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
"""The names of all tools, in the order in which a model gets them."""
_CHANGING: Final = frozenset({"create_file", "replace_file_text", "delete_file", "move_file"})


def _path(path: str) -> str:
    """Return a path as a model means it: doubled slashes are one. Everything else that is wrong with it is said to the model."""
    return _SLASHES.sub("/", path)


def _cut(text: str) -> str:
    """Return the whole lines that fit; the beginning of the first one, where not even that does."""
    if len(text) <= MAX_CHARS:
        return text
    end = text.rfind("\n", 0, MAX_CHARS) + 1
    return text[: end or MAX_CHARS]


def _check_files(_files: object, _field: "attrs.Attribute[Opaque]", files: object) -> None:
    if not isinstance(files, FileSystem):
        raise TypeError(f"Files takes what open_files gives, as in Files(files, scope='user:42'), not {files!r}")


def _check_scope(_files: object, _field: "attrs.Attribute[Opaque]", scope: object) -> None:
    if not callable(scope) and not isinstance(scope, str | tuple):
        raise TypeError(f"Files.scope must be a str, a tuple of str, or a function of the context that returns one, not {scope!r}")


def _names(tools: object) -> Sequence[str]:
    if isinstance(tools, str) or not isinstance(tools, Sequence | frozenset | set):
        raise TypeError(f"Files.tools must be a sequence of names, not {tools!r}")
    for name in tools:
        if name not in FILE_TOOLS:
            raise ValueError(f"Files.tools has no tool {name!r}; it knows {', '.join(FILE_TOOLS)}")
    return tuple(name for name in FILE_TOOLS if name in tools)


@attrs.frozen(eq=False)
class Files(Middleware):
    """Give the agent files: tools to list, read, create, change, find, delete and move them.

    `FilesChanged` tells the agent's viewers of every change in the tree, whoever made it.
    """

    files: FileSystem = attrs.field(validator=_check_files)
    """From `open_files`; must be open as long as agents use it, so open it around `open_sessions`."""
    scope: FileScope | Callable[[MiddlewareContext], FileScope] = attrs.field(kw_only=True, validator=_check_scope)
    """Whose files: one tree for all agents, or a function that says it of each agent, as `lambda context: f"user:{context.scope}"`, so
    that each tenant has its own. Asked when the agent starts; what it returns must not come from a model."""
    tool_names: Sequence[str] = attrs.field(default=FILE_TOOLS, kw_only=True, alias="tools", converter=_names)
    """The tools that the agent gets; without those that change files it can only read."""
    publish_changes: bool = attrs.field(default=True, kw_only=True, validator=type_validator(bool))
    """Whether viewers get `FilesChanged`."""

    def area(self, context: MiddlewareContext) -> FileArea:
        """Return the files of an agent.

        Raises:
            TypeError: `scope` gave something that names no tree.
            ValueError: likewise.
        """
        return self.files.area(self.scope(context) if callable(self.scope) else self.scope)

    async def on_start(self, context: MiddlewareContext) -> None:
        """Look whose files these are, and begin to tell of changes. A sub-agent leaves that to its parent.

        Cancellation: the agent's start is given up; nothing is left.
        """
        area = self.area(context)
        if self.publish_changes and not context.path:
            is_listening = trio.Event()
            context.start_soon(_tell, context, area, is_listening)
            await is_listening.wait()

    async def tools(self, context: MiddlewareContext) -> Sequence[Tool]:
        """Return the tools.

        Cancellation: nothing was done.
        """
        # The same object as long as the agent lives: a call that was approved runs on the tool that was shown.
        tools: FileTools = context.memory.setdefault("tools", FileTools(self.area(context)))
        return [Tool.of(_readable(getattr(tools, name))) for name in self.tool_names]

    async def system_prompt(self, context: MiddlewareContext) -> str:
        """Teach the tools.

        Cancellation: nothing was done.
        """
        return PROMPT + (_EDITING if _CHANGING & set(self.tool_names) else " You can only read them.") if self.tool_names else ""

    def debug_summary(self) -> JSON:
        """Return the names of the tools."""
        return {"tools": list(self.tool_names), "publish_changes": self.publish_changes}


def _readable(function: _Function) -> _Function:
    """Return the function with its errors as results, in words for the model."""

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

"""The commands of the chat: the lines that they show, and the conversation that they open."""

from collections.abc import Sequence
from typing import Final

import attrs

from trio_sagents import Todo
from trio_sagents.cli._catalogue import Catalogue, new_conversation_id
from trio_sagents.cli._progress import todo_lines
from trio_sagents.cli._setup import Opened, Setup
from trio_sagents.cli._words import Kind

MAX_FILES: Final = 200
"""How many files a listing shows."""
HELP: Final = """\
/list          lists the conversations
/open N or ID  opens one of them
/new           begins a new conversation
/title [TEXT]  shows or sets the title of this conversation
/todos         shows the todo list
/files [PATH]  lists the files of the working folder, or of a folder in it
/decide        asks again about calls that you left open
/help          shows this
/quit          leaves the chat, as Ctrl-D does
Ctrl-C cancels the answer that is on its way, and leaves open what you are asked. At an empty prompt, pressed twice, it leaves the chat.
A line that begins with a space is never a command. Say “help” to read what the agent can do."""


@attrs.frozen
class Done:
    """The result of a command."""

    lines: Sequence[tuple[str, Kind]] = ()
    target: str | None = None
    """The conversation to open; None stays in this one."""
    title: str | None = None
    """The new title of the conversation; an event tells it, too."""
    leaves: bool = False
    """Whether the chat is over."""
    decides: bool = False
    """Whether the person wants to be asked again about open calls."""


def _said(text: str, kind: Kind = "note") -> Done:
    return Done(((text, kind),))


def todos_text(todos: Sequence[Todo]) -> str:
    """Return the todos as text; an empty text if there are none."""
    return "\n".join(todo_lines(todos))


class Commands:
    """The commands of one run of the chat."""

    def __init__(self, opened: Opened, setup: Setup) -> None:
        """Keep the sessions, the files and the setup."""
        self._sessions: Final = opened.sessions
        self._area: Final = opened.area
        self._setup: Final = setup
        self._catalogue: Final = Catalogue(opened.sessions)

    async def run(self, name: str, argument: str, conversation_id: str | None, todos: Sequence[Todo]) -> Done:
        """Do a command.

        Args:
            name: with its slash.
            argument: the rest of the line; may be empty.
            conversation_id: the one that is open; None where there is none.
            todos: of that one.

        Raises:
            SagentsError, ValueError: it could not be done.

        Cancellation: either it was done, or nothing was.
        """
        argument = argument.strip()
        match name:
            case "/quit" | "/exit":
                return Done(leaves=True)
            case "/list":
                return _said(await self._catalogue.listing(conversation_id))
            case "/new":
                return Done(target=new_conversation_id())
            case "/open":
                return await self._open(argument)
            case "/title":
                return await self._title(argument, conversation_id)
            case "/todos":
                return _said(todos_text(todos) or "There are no todos.", "tool")
            case "/files":
                return await self._files(argument)
            case "/decide":
                return Done(decides=True)
            case "/help":
                return _said(HELP)
            case _:
                return _said(
                    f"{name} is not a command; /help lists the commands. To send it as a message, begin the line with a space.", "error"
                )

    async def _open(self, name: str) -> Done:
        if not name:
            return _said("Which conversation? Give /open a number or an id, as /list shows them.", "error")
        target = await self._catalogue.find(name)
        if target is None:
            return _said(f"There is no conversation {name!r}; /list shows them.", "error")
        return Done(target=target)

    async def _title(self, title: str, conversation_id: str | None) -> Done:
        if conversation_id is None or not self._setup.has_titles:
            return _said("No conversation is open: /list, /open or /new.", "error")
        info = await self._sessions.start(conversation_id)
        if not title:
            known = (await info.agent.state()).metadata.get("title")
            return _said(
                f"The title is {known}; /title TEXT sets another one." if known else "There is no title yet; /title TEXT sets one."
            )
        title = " ".join(title.split())
        await info.agent.notify_middleware("ConversationTitle", {"title": title})
        return Done(title=title)

    async def _files(self, prefix: str) -> Done:
        await self._area.refresh()
        found = await self._area.list(f"/{prefix.strip('/')}")
        lines = [f"  {info.path}  {info.size} bytes" for info in found[:MAX_FILES]]
        if len(found) > MAX_FILES:
            lines.append(f"  … and {len(found) - MAX_FILES} more; /files PATH lists a folder of these")
        return _said("\n".join(lines) or "There are no files there.", "tool")

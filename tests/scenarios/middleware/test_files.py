"""Files in the hands of a model: what the tools do and say, whose files they are, and what viewers hear."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.files import FaultyFiles, SharedFiles
from trio_sagents import Agent, Completed, SessionConfig, Sessions, SingleFactoryRouter, open_sessions
from trio_sagents.data.event_wire import event_to_dict
from trio_sagents.files import (
    FileDeleted,
    FileDetails,
    FileMoved,
    FileSaved,
    FileSaveFailed,
    FilesConfig,
    FileSystem,
    FileUpdated,
    MemoryFiles,
    Mount,
    open_files,
)
from trio_sagents.middleware import files as module
from trio_sagents.middleware.files import FILE_TOOLS, Files, FilesChanged, FileTools
from trio_sagents.testing import Call, ScriptedModel


@pytest.fixture
def backend() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def files(backend: FaultyFiles) -> AsyncIterator[FileSystem]:
    async with open_files(FilesConfig(mounts=[Mount("/m", backend)])) as files:
        yield files


def config(agent: Agent) -> SessionConfig:
    return SessionConfig(factory_router=SingleFactoryRouter(agent))


async def results(sessions: Sessions, model: ScriptedModel, scope: object = "alice", conversation_id: str = "c") -> list[tuple[str, bool]]:
    """Post something, wait for the answer, and return what the model read of its calls, and whether these were errors."""
    receipt = await sessions.post(conversation_id, "go", scope=scope)
    assert isinstance(await receipt.wait(), Completed)
    return [(result.content, result.is_error) for message in model.requests[-1].messages for result in message.results]


async def run(files: FileSystem, *calls: Call, **settings: Any) -> list[tuple[str, bool]]:
    """Have a model make these calls, one after the other, and return what it read."""
    model = ScriptedModel([*calls, "done"])
    agent = Agent(model=model, middleware=[Files(files, **{"scope": "s", **settings})])
    async with open_sessions(config(agent)) as sessions:
        return await results(sessions, model)


# --- tools


async def test_tools_when_used(files: FileSystem, autojump_clock: object) -> None:
    """A model lists, makes, reads, changes, finds, moves and deletes files, and reads what came of it."""
    said = await run(
        files,
        Call("list_files"),
        Call("create_file", path="/m//notes/a.md", content="one\ntwo\ntwo\n"),
        Call("replace_file_text", path="/m/notes/a.md", old_text="one", new_text="three"),
        Call("replace_file_text", path="/m/notes/a.md", old_text="two", new_text="2", replace_all=True),
        Call("read_file", path="/m/notes/a.md"),
        Call("read_file", path="/m/notes/a.md", first_line=2, line_count=1),
        Call("find_in_file", text="2"),
        Call("move_file", old_path="/m/notes", new_path="/m/old"),
        Call("list_files", folder="/m/old/"),
        Call("delete_file", path="/m/old/a.md"),
        Call("find_in_file", text="2"),
    )

    assert [
        "There are no files in '/'.",
        "Created /m/notes/a.md.",
        "Replaced the text in /m/notes/a.md.",
        "Replaced the text 2 times in /m/notes/a.md.",
        "three\n2\n2\n",
        "[/m/notes/a.md, lines 2 to 2 of 3]\n2\n",
        "/m/notes/a.md:2: 2\n/m/notes/a.md:3: 2",
        "Moved /m/notes to /m/old/a.md.",
        "/m/old/a.md (10 bytes)",
        "Deleted /m/old/a.md.",
        "The text was not found.",
    ] == [text for text, _ in said]
    assert not any(is_error for _, is_error in said)


async def test_list_when_a_file_has_a_title(files: FileSystem, autojump_clock: object) -> None:
    """A model sees the titles that the host gave to files."""
    await files.area("s").create("/m/a", "one")
    await files.area("s").describe("/m/a", FileDetails(title="The plan"))

    assert [("/m/a (3 bytes): The plan", False)] == await run(files, Call("list_files"))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (Call("read_file", path="/m/b"), "there is no file '/m/b'"),
        (Call("read_file", path="m/b"), "must begin with '/'"),
        (Call("read_file", path="/../etc/passwd"), "the part '..'"),
        (Call("read_file", path="/m/a", first_line=0), "at least 1"),
        (Call("read_file", path="/m/a", line_count=0), "at least 1"),
        (Call("create_file", path="/m/a", content=""), "is taken"),
        (Call("create_file", path="/docs/a", content=""), "read-only"),
        (Call("create_file", path="/m/b", content="x" * 101), "max_file_bytes"),
        (Call("replace_file_text", path="/m/a", old_text="y", new_text=""), "is not in '/m/a'"),
        (Call("replace_file_text", path="/m/a", old_text="x", new_text=""), "2 times"),
        (Call("replace_file_text", path="/m/a", old_text="", new_text="x"), "must not be empty"),
        (Call("find_in_file", text=""), "must not be empty"),
        (Call("find_in_file", text="x", path="/m/b"), "there is no file"),
        (Call("delete_file", path="/m"), "it is a folder"),
        (Call("move_file", old_path="/m/a", new_path="/b"), "different places"),
        (Call("list_files", folder="~"), "must begin with '/'"),
    ],
)
async def test_tools_when_refused(backend: FaultyFiles, autojump_clock: object, call: Call, says: str) -> None:
    """What cannot be done is an error that the model reads, in words that help; the turn goes on."""
    await backend.create(("s",), "/a", "x x")
    mounts = [Mount("/m", backend), Mount("/docs", MemoryFiles(), read_only=True)]
    async with open_files(FilesConfig(mounts=mounts, max_file_bytes=100)) as files:
        ((text, is_error),) = await run(files, call)

    assert is_error
    assert says in text
    assert "x x" == backend.stored("/a")


async def test_tools_when_the_storage_fails(files: FileSystem, backend: FaultyFiles, autojump_clock: object) -> None:
    """A storage that fails is an error that the model reads; it has nothing of what the host's storage said."""
    backend.faults.failing["create"] = 1
    ((text, is_error),) = await run(files, Call("create_file", path="/m/a", content=""))

    assert is_error
    assert "creating '/m/a' failed" in text
    assert "canary" not in text


async def test_edit_when_its_result_is_there(files: FileSystem, backend: FaultyFiles, autojump_clock: object) -> None:
    """An edit of a tool is stored when the model reads its result, whatever `debounce` is."""
    stored: list[str | None] = []

    def reply(_request: object) -> Any:
        stored.append(backend.stored("/a"))
        calls = [
            Call("create_file", path="/m/a", content="one"),
            Call("replace_file_text", path="/m/a", old_text="one", new_text="two"),
        ]
        return calls[len(stored) - 1] if len(stored) <= len(calls) else "done"

    agent = Agent(model=ScriptedModel(reply), middleware=[Files(files, scope="s")])
    async with open_sessions(config(agent)) as sessions:
        await (await sessions.post("c", "go", scope="alice")).wait()

    assert [None, "one", "two"] == stored


async def test_edit_when_the_storage_fails(files: FileSystem, backend: FaultyFiles, autojump_clock: object) -> None:
    """An edit that was made and is not stored is told as that: it is not a failure, and the model need not repeat it."""
    backend.faults.failing["write"] = 1
    _, (text, is_error) = await run(
        files,
        Call("create_file", path="/m/a", content="one"),
        Call("replace_file_text", path="/m/a", old_text="one", new_text="two"),
    )

    assert not is_error
    assert "has not taken the change yet" in text
    await trio.sleep(2)
    assert "two" == backend.stored("/a")


async def test_edit_when_the_storage_does_not_answer(files: FileSystem, backend: FaultyFiles, autojump_clock: object) -> None:
    """A storage that hangs does not hold up the tool for longer than `store_timeout`; the model reads that the edit is not stored."""
    await files.area("s").create("/m/a", "one")
    backend.faults.hanging["write"] = trio.Event()
    start = trio.current_time()
    ((text, is_error),) = await run(files, Call("replace_file_text", path="/m/a", old_text="one", new_text="two"))

    assert not is_error
    assert "has not taken the change yet" in text
    assert 10.0 == trio.current_time() - start
    backend.faults.hanging["write"].set()


async def test_edit_when_somebody_else_changed_the_file(autojump_clock: object) -> None:
    """An edit that would replace what another process has stored meanwhile is refused: the model is told to read the file again."""
    backend = SharedFiles()
    async with open_files(FilesConfig(mounts=[Mount("/m", backend)])) as files:
        await files.area("s").create("/m/a", "one")
        backend.meanwhile = lambda: backend.put("/a", "one, or more")
        ((text, is_error),) = await run(files, Call("replace_file_text", path="/m/a", old_text="one", new_text="two"))
        (read,) = await run(files, Call("read_file", path="/m/a"))

    assert is_error
    assert "the file '/m/a' has changed since it was read, so it was not changed now; read it again" == text
    assert ("one, or more", False) == read
    assert "one, or more" == backend.stored("/a")


async def test_read_when_somebody_else_changed_the_file(autojump_clock: object) -> None:
    """A model reads what is stored, not what was known of it here."""
    backend = SharedFiles()
    async with open_files(FilesConfig(mounts=[Mount("/m", backend)])) as files:
        await files.area("s").create("/m/a", "one")
        backend.put("/a", "two")

        assert [("two", False)] == await run(files, Call("read_file", path="/m/a"))
        backend.put("/new", "made elsewhere")
        assert [("made elsewhere", False)] == await run(files, Call("read_file", path="/m/new"))


async def test_tools_when_texts_are_long(files: FileSystem, autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a model reads is bounded, always says where it stands, and can be read on from there."""
    monkeypatch.setattr(module, "MAX_CHARS", 10)
    monkeypatch.setattr(module, "MAX_LISTED", 2)
    monkeypatch.setattr(module, "MAX_FOUND", 2)
    tools = FileTools(files.area("s"))
    await tools.create_file("/lines", "123\n456\n789\n0")
    await tools.create_file("/long", "a" * 20 + "\nb")
    await tools.create_file("/empty", "")

    assert "[/lines, lines 1 to 2 of 4]\n123\n456\n" == await tools.read_file("/lines")
    assert "[/lines, lines 3 to 4 of 4]\n789\n0" == await tools.read_file("/lines", 3)
    assert "[/lines has only 4 lines; there is no line 5]" == await tools.read_file("/lines", 5)
    assert (
        "[/long, the beginning of line 1 of 2; the line is too long to be shown, so look for text in it]\n" + "a" * 10
        == await tools.read_file("/long")
    )
    assert "[/long, lines 2 to 2 of 2]\nb" == await tools.read_file("/long", 2)
    assert "[/empty is empty]" == await tools.read_file("/empty")
    assert "/empty (0 bytes)\n/lines (13 bytes)\n… and 1 more; list one of the folders" == await tools.list_files()
    for name in "xyz":
        await tools.create_file(f"/f/{name}", "needle")
    assert "/f/x:1: needle\n/f/y:1: needle\n… and more; look for a longer text, or in fewer files" == await tools.find_in_file("needle")
    assert "Moved 3 files from /f to /g." == await tools.move_file("/f", "/g")


async def test_tools_when_files_cannot_be_searched(backend: FaultyFiles, autojump_clock: object) -> None:
    """A search names the files that it could not look into, a few of them."""
    for number in range(module.MAX_SKIPPED + 2):
        await backend.create(("s",), f"/{number:02}", "xx")
    async with open_files(FilesConfig(mounts=[Mount("/", backend)], max_file_bytes=1)) as files:
        text = await FileTools(files.area("s")).find_in_file("x")

    assert text.startswith("The text was not found.\nNot searched, because they cannot be read: /00, /01")
    assert text.endswith("/19 and 2 more")


async def test_tools_when_only_some_are_wanted(files: FileSystem, autojump_clock: object) -> None:
    """An agent gets the tools that the host names, in one order, and a prompt that fits them."""
    model = ScriptedModel(["done"])
    agent = Agent(model=model, middleware=[Files(files, scope="s", tools=["read_file", "list_files"])])
    async with open_sessions(config(agent)) as sessions:
        await results(sessions, model)

    assert ["list_files", "read_file"] == [tool.name for tool in model.requests[0].tools]
    assert "You can only read them." in (model.requests[0].system or "")


async def test_prompt_when_all_tools_are_there(files: FileSystem, autojump_clock: object) -> None:
    """The model is taught how to change files; each tool and each of its arguments is described."""
    model = ScriptedModel(["done"])
    async with open_sessions(config(Agent(model=model, middleware=[Files(files, scope="s")]))) as sessions:
        await results(sessions, model)
    (request,) = model.requests

    assert "Read a file before you change it" in (request.system or "")
    assert list(FILE_TOOLS) == [tool.name for tool in request.tools]
    for tool in request.tools:
        assert tool.description
        assert all(part["description"] for part in tool.parameters["properties"].values())


# --- whose files


async def test_scope_when_a_function(files: FileSystem, autojump_clock: object) -> None:
    """Each tenant has its own files: the scope comes from the session, and nothing a model says changes it."""
    model = ScriptedModel(lambda request: Call("list_files") if request.messages[-1].role == "user" else "done")
    agent = Agent(model=model, middleware=[Files(files, scope=lambda context: ("user", context.scope))])
    await files.area(("user", "alice")).create("/a", "x")
    async with open_sessions(config(agent)) as sessions:
        assert [("/a (1 bytes)", False)] == await results(sessions, model, "alice", "1")
        assert [("There are no files in '/'.", False)] == await results(sessions, model, "bob", "2")


async def test_scope_when_two_agents_share_it(files: FileSystem, autojump_clock: object) -> None:
    """What one agent writes another one reads, also when the first has gone."""
    await run(files, Call("create_file", path="/m/a", content="from one"))

    assert [("from one", False)] == await run(files, Call("read_file", path="/m/a"))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"tools": ["list_files", "rm"]}, ValueError, "'rm', which is not one of its tools: list_files, read_file"),
        ({"tools": "list_files"}, TypeError, "sequence of names"),
        ({"tools": None}, TypeError, "sequence of names"),
        ({"scope": None}, TypeError, "Files.scope"),
        ({"publish_changes": 1}, TypeError, "publish_changes"),
    ],
)
async def test_settings_when_wrong(
    files: FileSystem, settings: dict[str, Any], error: type[Exception], says: str, autojump_clock: object
) -> None:
    """A setting that makes no sense is refused when the middleware is made."""
    await trio.lowlevel.checkpoint()
    with pytest.raises(error, match=says):
        Files(files, **{"scope": "s", **settings})
    with pytest.raises(TypeError, match="open_files"):
        Files("files.db", scope="s")  # type: ignore[arg-type]  # on purpose


async def test_scope_when_it_gives_nonsense(files: FileSystem, autojump_clock: object) -> None:
    """An agent whose files nobody can name does not start."""
    model = ScriptedModel(["done"])
    agent = Agent(model=model, middleware=[Files(files, scope=lambda context: None)])
    async with open_sessions(config(agent)) as sessions:
        with pytest.raises(Exception, match="start") as caught:
            await sessions.post("c", "go", scope="alice")

    assert "Files" in str(caught.value.__cause__)


async def test_summary_when_debugged(files: FileSystem, autojump_clock: object) -> None:
    """People who debug see the tools, and not whose files these are."""
    await trio.lowlevel.checkpoint()
    summary = Files(files, scope="secret", tools=["read_file"]).debug_summary()

    assert {"tools": ["read_file"], "publish_changes": True} == summary


# --- events


async def heard(files: FileSystem, story: Callable[[Sessions], Any], replies: Sequence[Any], **settings: Any) -> list[Any]:
    """Return the changes that a viewer of the conversation hears while `story` runs."""
    agent = Agent(model=ScriptedModel(replies), middleware=[Files(files, scope="s", **settings)])
    async with open_sessions(config(agent)) as sessions, sessions.open_subscriber(scope="alice") as subscriber:
        await sessions.ensure_running("c", subscriber)
        await story(sessions)
        await wait_all_tasks_blocked()
        changes = []
        with trio.move_on_after(1):
            async for envelope in subscriber:
                if isinstance(envelope.event, FilesChanged):
                    assert "main" == envelope.channel
                    json.dumps(event_to_dict(envelope.event))
                    changes.append(envelope.event.change)
        return changes


async def post(sessions: Sessions) -> None:
    await (await sessions.post("c", "go", scope="alice")).wait()


async def test_viewers_when_the_agent_changes_files(files: FileSystem, backend: FaultyFiles, autojump_clock: object) -> None:
    """Viewers hear of each change, and when it is saved, or is not."""
    backend.faults.failing["write"] = 1
    calls = [
        Call("create_file", path="/m/a", content="one"),
        Call("replace_file_text", path="/m/a", old_text="one", new_text="two"),
        Call("move_file", old_path="/m/a", new_path="/m/b"),
    ]

    async def story(sessions: Sessions) -> None:
        await post(sessions)
        await trio.sleep(10)
        await files.area("s").delete("/m/b")

    assert [
        FileUpdated("/m/a"),
        FileSaved("/m/a"),
        FileUpdated("/m/a"),
        FileSaveFailed("/m/a", 1, 1.0),
        FileMoved("/m/a", "/m/b"),
        FileSaved("/m/b"),
        FileDeleted("/m/b"),
    ] == await heard(files, story, [*calls, "done"])


async def test_viewers_when_others_change_files(files: FileSystem, autojump_clock: object) -> None:
    """Viewers hear of changes by the host in the agent's scope, and of none in another."""

    async def story(_sessions: Sessions) -> None:
        await files.area("s").create("/a", "")
        await files.area("t").create("/b", "")

    assert [FileUpdated("/a"), FileSaved("/a")] == await heard(files, story, [])


async def test_viewers_when_they_are_not_to_hear(files: FileSystem, autojump_clock: object) -> None:
    """A host may keep changes from viewers."""

    async def story(_sessions: Sessions) -> None:
        await files.area("s").create("/a", "")

    assert [] == await heard(files, story, [], publish_changes=False)


def test_event_when_on_the_wire() -> None:
    """A browser gets the change with its kind."""
    event = event_to_dict(FilesChanged(FileMoved("/a", "/b")))

    assert {"type": "FilesChanged", "change": {"type": "FileMoved", "old": "/a", "new": "/b"}} == event


async def test_agent_when_it_leaves(files: FileSystem, autojump_clock: object) -> None:
    """Nothing of an agent that has ended listens any more, and its files stay."""
    agent = Agent(model=ScriptedModel([Call("create_file", path="/a", content="x"), "done"]), middleware=[Files(files, scope="s")])
    async with open_sessions(config(agent)) as sessions:
        await post(sessions)
        assert 1 == len(files._services.publisher._listeners)
        await sessions.stop("c", scope="alice")
        assert {} == files._services.publisher._listeners

    assert "x" == (await files.area("s").read("/a")).text


async def test_turn_when_cancelled_in_a_tool(files: FileSystem, backend: FaultyFiles, autojump_clock: object) -> None:
    """A turn that is cancelled while the storage works goes at once; the file is made, or not, as a whole."""
    backend.faults.hanging["create"] = trio.Event()
    model = ScriptedModel([Call("create_file", path="/m/a", content="x"), "done"])
    async with open_sessions(config(Agent(model=model, middleware=[Files(files, scope="s")]))) as sessions:
        receipt = await sessions.post("c", "go", scope="alice")
        await wait_all_tasks_blocked()
        with trio.fail_after(1):
            await sessions.cancel_turn("c", scope="alice")
            await receipt.wait()
        backend.faults.hanging["create"].set()
    await wait_all_tasks_blocked()

    assert "x" == backend.stored("/a") == (await files.area("s").read("/m/a")).text

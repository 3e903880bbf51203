"""The offline model: the same words give the same calls and answers, in a provider's manner."""

import json
import time
from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_sagents.data.messages import Message, TextPart, ToolCall, ToolResult
from trio_sagents.data.requests import FinishChunk, ModelChunk, ModelRequest, TextChunk, ToolCallChunk, ToolSpec, UsageChunk
from trio_sagents.models._offline_asks import MAX_TEXT, read_asks
from trio_sagents.models._offline_jobs import STEPS
from trio_sagents.models.offline import OfflineModel, _pieces

NAMES = {step.tool for steps in STEPS.values() for step in steps if step.tool} | {"some_tool"}
TOOLS = tuple(ToolSpec(name, "", {"type": "object"}) for name in sorted(NAMES))
TODOS = "Be brief.\n\nThe todos now:\n1. [completed] bread\n2. [in_progress] milk\n3. [pending] eggs"
MODEL = OfflineModel(chunk_interval=0)


def user(text: str, message_id: str = "u") -> Message:
    """Return what a person said."""
    return Message(message_id, "user", (TextPart(text),))


async def stream(
    messages: Sequence[Message], tools: Sequence[ToolSpec] = TOOLS, model: OfflineModel = MODEL, system: str = TODOS
) -> list[ModelChunk]:
    """Return all chunks of one answer."""
    async with model.stream(ModelRequest(system, tuple(messages), tools)) as chunks:
        return [chunk async for chunk in chunks]


def calls_of(chunks: Sequence[ModelChunk]) -> list[ToolCall]:
    """Put the fragments of the calls together, as an adapter does."""
    names: dict[int, tuple[str, str]] = {}
    arguments: dict[int, str] = {}
    for chunk in chunks:
        if isinstance(chunk, ToolCallChunk):
            if chunk.name is not None:
                assert chunk.id is not None
                names[chunk.index] = (chunk.id, chunk.name)
            arguments[chunk.index] = arguments.get(chunk.index, "") + chunk.arguments_json
    return [ToolCall(call_id, name, json.loads(arguments[index])) for index, (call_id, name) in names.items()]


def text_of(chunks: Sequence[ModelChunk]) -> str:
    """Return the streamed text."""
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


def answered(calls: Sequence[ToolCall], *contents: str, status: str = "completed") -> list[Message]:
    """Return the messages that a turn adds for some calls and their results."""
    asked = Message(f"a-{calls[0].call_id}", "assistant", tuple(calls), "tool_calls")
    results = [ToolResult(call.call_id, call.name, content, status) for call, content in zip(calls, contents, strict=True)]  # type: ignore[arg-type]  # a str here
    return [asked, *(Message(f"t-{result.call_id}", "tool", (result,)) for result in results)]


def written(*items: str) -> dict[str, object]:
    """Return the arguments that add todos."""
    return {"todos": [{"content": item, "status": "pending"} for item in items], "merge": True}


def completed(number: int, text: str) -> dict[str, object]:
    """Return the arguments that mark a todo as done."""
    return {"todos": [{"id": number, "content": text, "status": "completed"}], "merge": True}


@pytest.mark.parametrize(
    ("said", "calls"),
    [
        ("add milk to my todos", [("write_todos", written("milk"))]),
        ("Please add milk, bread and eggs to the todo list.", [("write_todos", written("milk", "bread", "eggs"))]),
        ('add "salt and pepper" to my todos', [("write_todos", written("salt and pepper"))]),
        ("remind me to call Ann", [("write_todos", written("call Ann"))]),
        ("done 2", [("write_todos", completed(2, "milk"))]),
        ("mark todo 3 as done", [("write_todos", completed(3, "eggs"))]),
        (
            "remove 2 from my todos",
            [
                (
                    "write_todos",
                    {
                        "todos": [
                            {"id": 1, "content": "bread", "status": "completed"},
                            {"id": 3, "content": "eggs", "status": "pending"},
                        ],
                        "merge": False,
                    },
                )
            ],
        ),
        ("what is 12*(3+4)?", [("calculate", {"expression": "12*(3+4)"})]),
        ("what is 15% of 80", [("calculate", {"expression": "15/100*80"})]),
        ("3 plus 4 times 2", [("calculate", {"expression": "3 + 4 * 2"})]),
        ("7 squared", [("calculate", {"expression": "7**2"})]),
        ("2^8", [("calculate", {"expression": "2**8"})]),
        ("read README.md", [("read_file", {"path": "/README.md"})]),
        ("can you read LICENSE please?", [("read_file", {"path": "/LICENSE"})]),
        ('read "my file.txt"', [("read_file", {"path": "/my file.txt"})]),
        ("what does notes/a.txt say?", [("read_file", {"path": "/notes/a.txt"})]),
        ("list files", [("list_files", {})]),
        ("remember that my cat is Tom", [("remember", {"note": "my cat is Tom"})]),
        ("remember that I like tea and cake", [("remember", {"note": "I like tea and cake"})]),
        ("Remember that my cat is Tom. He is black.", [("remember", {"note": "my cat is Tom. He is black"})]),
        ("what do you remember about cat?", [("recall", {"about": "cat"})]),
        ("what do you remember?", [("recall", {"about": ""})]),
        ("what is my cat called?", [("recall", {"about": "cat called"})]),
        ("find out about my cat", [("recall", {"about": "my cat"})]),
        ("find out what 2+2 is", [("calculate", {"expression": "2+2"})]),
        ("write a file hello.txt that says hi", [("create_file", {"path": "/hello.txt", "content": "hi\n"})]),
        ("create notes/a.txt with milk and eggs", [("create_file", {"path": "/notes/a.txt", "content": "milk and eggs\n"})]),
        ("write a file a.txt that says Hello. How are you?", [("create_file", {"path": "/a.txt", "content": "Hello. How are you\n"})]),
        ("save 'the end' in a.txt", [("create_file", {"path": "/a.txt", "content": "the end\n"})]),
        ("replace hi with ho in a.txt", [("replace_file_text", {"path": "/a.txt", "old_text": "hi", "new_text": "ho"})]),
        ('find "the end" in my files', [("find_in_file", {"path": "/", "text": "the end"})]),
        ("search for hi in a.txt", [("find_in_file", {"path": "/a.txt", "text": "hi"})]),
        ("delete hello.txt", [("delete_file", {"path": "/hello.txt"})]),
        ("delete the file LICENSE", [("delete_file", {"path": "/LICENSE"})]),
        ("rename a.txt to b", [("move_file", {"old_path": "/a.txt", "new_path": "/b"})]),
        ("send 20 euros to Ann", [("send_money", {"amount": 20, "currency": "EUR", "to": "Ann"})]),
        ("please pay $5 to Bob", [("send_money", {"amount": 5, "currency": "USD", "to": "Bob"})]),
        ("halt", [("halt", {"reason": "You asked me to halt."})]),
        ("ask me my name", [("ask_user", {"question": "Your name?", "kind": "text"})]),
        (
            "ask me which fruit: apples, pears and plums",
            [("ask_user", {"question": "Which fruit?", "kind": "single", "options": ["apples", "pears", "plums"], "allow_other": False})],
        ),
        ("have a sub-agent find out what 2+2 is", [("task", {"instructions": "find out what 2+2 is", "name": "general-purpose"})]),
        ("hand the sums to a sub-agent", [("task", {"instructions": "the sums", "name": "general-purpose"})]),
        (
            "hand two tasks to sub-agents: list files and what is 6*7?",
            [
                ("task", {"instructions": "list files", "name": "general-purpose"}),
                ("task", {"instructions": "what is 6*7", "name": "general-purpose"}),
            ],
        ),
        ('use some_tool with {"a": [1, "b; c and d"]}', [("some_tool", {"a": [1, "b; c and d"]})]),
        ("call some_tool with a=1, b=two, c='x y'", [("some_tool", {"a": 1, "b": "two", "c": "x y"})]),
        ("use some_tool", [("some_tool", {})]),
    ],
)
async def test_a_sentence_becomes_its_tool_call(said: str, calls: list[tuple[str, object]]) -> None:
    """Each ability is reached by plain sentences."""
    chunks = await stream([user(said)])

    assert calls == [(call.name, call.arguments) for call in calls_of(chunks)]
    assert FinishChunk("tool_calls") == chunks[-1]
    assert text_of(chunks) == ""


async def test_two_asks_joined_by_and_become_parallel_calls() -> None:
    """Asks that do not touch the same thing are called at once, with different ids."""
    calls = calls_of(await stream([user("add milk to my todos and what is 12*7?")]))

    assert ["write_todos", "calculate"] == [call.name for call in calls]
    assert len({call.call_id for call in calls}) == 2


async def test_what_touches_the_same_thing_is_done_one_after_the_other() -> None:
    """Asks about the same file are done in order, so that a read finds what was written."""
    messages = [user("write a file a.txt that says hi and read a.txt and what is 2+2?")]
    first = calls_of(await stream(messages))
    messages += answered(first, "Created /a.txt.")
    second = calls_of(await stream(messages))
    messages += answered(second, "hi\n", "4")
    chunks = await stream(messages)

    assert [["create_file"], ["read_file", "calculate"]] == [[call.name for call in calls] for calls in (first, second)]
    assert text_of(chunks) == "(offline) Created /a.txt.\na.txt has 1 line:\n\nhi\n\n2+2 = 4"
    assert FinishChunk("stop") == chunks[-1]


async def test_a_plan_is_made_in_steps() -> None:
    """The list is written, something is done, and the list says so; the numbers are read from the list as it is then."""
    messages = [user("plan a picnic")]
    lists = [
        "",
        "The todos now:\n7. [in_progress] collect ideas for a picnic\n8. [pending] choose a day for a picnic",
        "The todos now:\n7. [in_progress] collect ideas for a picnic\n8. [pending] choose a day for a picnic",
    ]
    found = []
    for system in lists:
        calls = calls_of(await stream(messages, system=system))
        found += calls
        messages += answered(calls, "ok")
    chunks = await stream(messages)

    assert ["write_todos", "remember", "write_todos"] == [call.name for call in found]
    assert ["in_progress", "pending", "pending", "pending"] == [todo["status"] for todo in found[0].arguments["todos"]]
    assert [(7, "completed"), (8, "in_progress")] == [(todo["id"], todo["status"]) for todo in found[2].arguments["todos"]]
    assert text_of(chunks).startswith("(offline) The plan for a picnic is in your todos.")


async def test_a_todo_that_is_not_there_is_no_call() -> None:
    """A todo that is not in the list is named in the answer, together with what could be done."""
    messages = [user("done 7 and add milk to my todos")]
    calls = calls_of(await stream(messages))
    messages += answered(calls, "The todos now:\n4. [pending] milk")

    assert [written("milk")] == [call.arguments for call in calls]
    assert text_of(await stream(messages)) == "(offline) There is no todo 7.\nAdded to your todos: milk."


@pytest.mark.parametrize("said", ["show todos", "What's on my to-do list?", "my todos"])
async def test_the_todos_are_those_of_the_request(said: str) -> None:
    """The middleware shows them with each request; without it the tool is missing."""
    assert text_of(await stream([user(said)])) == "(offline) Your todos:\n1. [x] bread\n2. [~] milk\n3. [ ] eggs"
    assert text_of(await stream([user(said)], system="")) == "(offline) There are no todos."
    assert "'write_todos'" in text_of(await stream([user(said)], tools=(), system=""))


async def test_a_turn_that_goes_on_later_goes_on_where_it_was() -> None:
    """Calls that were decided by a person count as done, whatever was decided."""
    messages = [user("send 20 euros to Ann and ask me for my favourite colour")]
    calls = calls_of(await stream(messages))
    messages += answered(calls[:1], "This call was not run: a person rejected it", status="cancelled")
    messages[-2] = Message("asked", "assistant", tuple(calls), "tool_calls")
    messages += [Message("t", "tool", (ToolResult(calls[1].call_id, "ask_user", "other: teal"),))]

    assert ["send_money", "ask_user"] == [call.name for call in calls]
    assert text_of(await stream(messages)) == (
        "(offline) send_money was not done. This call was not run: a person rejected it\nYou said: teal"
    )


async def test_a_turn_is_told_from_the_one_before_by_its_id() -> None:
    """A turn that ended without a word is not gone over again."""
    messages = [user("halt", "u1")]
    messages += answered(calls_of(await stream(messages)), "acknowledged", status="cancelled")
    messages = [Message(message.message_id, message.role, message.parts, message.stop_reason, "turn-1") for message in messages]
    messages.append(Message("u2", "user", (TextPart("what is 2+2?"),), None, "turn-2"))
    calls = calls_of(await stream(messages))
    messages += [
        Message(message.message_id, message.role, message.parts, message.stop_reason, "turn-2") for message in answered(calls, "4")
    ]

    assert ["calculate"] == [call.name for call in calls]
    assert text_of(await stream(messages)) == "(offline) 2+2 = 4"


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("please plan a picnic!", "Plan a picnic"),
        ("Hello, could you tell me a very long story about the sea?", "Tell me a very long story"),
        ("hi", "Hi"),
        ("?", "A conversation"),
    ],
)
async def test_a_title_is_the_first_words_of_the_question(question: str, title: str) -> None:
    """The library asks for it without tools; the answer is the title alone."""
    asked = user(f"Question:\n{question}\n\nAnswer:\nyes")

    assert title == text_of(await stream([asked], tools=(), system="You give conversations their titles."))


async def test_a_summary_says_what_was_asked() -> None:
    """The newest requests come last, the last one in a form that this model finds again, in a few hundred characters."""
    transcript = "Person: remember that\nmy cat is Tom\n\nAssistant: Noted.\n\nTool: x\n\nPerson: what is 2+2?"
    system = "You shorten a conversation"
    summary = text_of(await stream([user(transcript)], tools=(), system=system))
    again = text_of(
        await stream([user(f"We said:\n{summary}\n\n" + "\n\n".join(f"Person: {'x' * 90}{n}" for n in range(99)))], (), system=system)
    )
    going_on = [user(f"This is a summary:\n\n{summary}", "summary")]

    assert summary.splitlines() == [
        "- the person said: remember that my cat is Tom",
        "- the person said: what is 2+2?",
        "- the last answer was: Noted.",
        "The last request was: what is 2+2?",
    ]
    assert again.startswith("- before that: The last request was: what is 2+2?")
    assert len(again) < 2_000
    assert ["calculate"] == [call.name for call in calls_of(await stream(going_on))]


async def test_help_names_what_there_are_tools_for() -> None:
    """Nothing is offered that the agent cannot do."""
    everything = text_of(await stream([user("help")]))
    little = text_of(await stream([user("help")], tools=()))

    assert "plan a picnic" in everything
    assert "use NAME" in everything
    assert "plan a picnic" not in little
    assert "story" in little


@pytest.mark.parametrize(
    ("said", "result", "answer"),
    [
        ("what is 6*7?", "42", "(offline) 6*7 = 42"),
        ("done 2", "The list is empty: nothing is left to do.", "(offline) Done: milk. Nothing is left to do."),
        ("remove 2", "The todos now:\n1. [pending] x", "(offline) Removed."),
        ("find hi in my files", "It is nowhere.", "(offline) Found:\nIt is nowhere."),
        ("have a sub-agent rest", "(offline) done", "(offline) The sub-agent says: done"),
        ("ask me my name", "The person declined to answer.", "(offline) You did not want to say."),
        ("use some_tool", "whatever it said", "(offline) whatever it said"),
        ("read a.txt", "one\ntwo\n", "(offline) a.txt has 2 lines:\n\none\ntwo\n"),
        ("what do you remember?", "- my cat is Tom", "(offline) I remember:\n- my cat is Tom"),
        ("list files", "/a.txt (3 bytes)", "(offline) The files here:\n/a.txt (3 bytes)"),
        ("list files", "There are no files in '/'.", "(offline) There are no files in '/'."),
    ],
)
async def test_a_result_becomes_a_sentence(said: str, result: str, answer: str) -> None:
    """What the tool returned is what the answer says."""
    messages = [user(said)]
    messages += answered(calls_of(await stream(messages)), result)

    assert answer == text_of(await stream(messages))


async def test_a_failed_call_is_told() -> None:
    """An error result is passed on, not glossed over."""
    messages = [user("read ../secret")]
    messages += answered(calls_of(await stream(messages)), "it is outside", status="failed")

    assert text_of(await stream(messages)) == "(offline) read_file did not work: it is outside"


async def test_a_long_file_is_quoted_in_part() -> None:
    """An answer repeats only the beginning of a long output, and says so."""
    messages = [user("read a.txt")]
    messages += answered(calls_of(await stream(messages)), "x" * 5_000)

    assert text_of(await stream(messages)).endswith("[… 3000 more characters]")


async def test_arguments_come_in_fragments_that_join_to_json() -> None:
    """As with a provider, the id and the name come first and the arguments in pieces."""
    chunks = [chunk for chunk in await stream([user("remember that my cat is called Tom")]) if isinstance(chunk, ToolCallChunk)]

    assert chunks[0].name == "remember"
    assert chunks[0].arguments_json == ""
    assert len(chunks) > 4
    assert all(chunk.name is None and chunk.id is None for chunk in chunks[1:])
    assert {"note": "my cat is called Tom"} == json.loads("".join(chunk.arguments_json for chunk in chunks))


async def test_the_same_request_gives_the_same_chunks() -> None:
    """Nothing in it is random."""
    for said in ("tell me a story", "add a, b and c to my todos and what is 2+2", "what is love?"):
        assert await stream([user(said)]) == await stream([user(said)])


@pytest.mark.parametrize("said", ["hello", "help", "thanks!", "what is the capital of France?", "?", "x" * (MAX_TEXT + 1)])
async def test_small_talk_needs_no_tool(said: str) -> None:
    """Whatever is said gets an answer that is marked as offline."""
    chunks = await stream([user(said)])

    assert text_of(chunks).startswith("(offline) ")
    assert FinishChunk("stop") == chunks[-1]
    assert isinstance(chunks[-2], UsageChunk)


async def test_an_agent_without_the_tool_says_so() -> None:
    """The model calls only tools that it was given."""
    chunks = await stream([user("what is 2+2?")], tools=())

    assert calls_of(chunks) == []
    assert "'calculate'" in text_of(chunks)


async def test_only_the_running_turn_is_looked_at() -> None:
    """What an earlier turn asked for, answered or cut, is not done again."""
    messages = [user("what is 2+2?")]
    messages += answered(calls_of(await stream(messages)), "4")
    messages.append(Message("cut", "assistant", (TextPart("(offl"),), "crashed"))
    messages.append(user("add milk to my todos", "u2"))

    assert ["write_todos"] == [call.name for call in calls_of(await stream(messages))]


async def test_a_message_that_steers_the_turn_is_answered_beside_the_first() -> None:
    """A user message after the first results adds to the turn's asks."""
    messages = [user("what is 2+2?")]
    messages += answered(calls_of(await stream(messages)), "4")
    messages.append(user("list files", "u2"))
    calls = calls_of(await stream(messages))
    messages += answered(calls, "a.txt")

    assert ["list_files"] == [call.name for call in calls]
    assert text_of(await stream(messages)) == "(offline) 2+2 = 4\nThe files here:\na.txt"


async def test_messages_queued_together_are_answered_together() -> None:
    """Several user messages of one turn are one list of asks."""
    calls = calls_of(await stream([user("what is 2+2?", "u1"), user("what is 3+3?", "u2")]))

    assert ["2+2", "3+3"] == [call.arguments["expression"] for call in calls]


async def test_a_long_story_streams_word_by_word_for_about_twenty_seconds(autojump_clock: object) -> None:
    """The story is long enough to be cut in the middle."""
    began = trio.current_time()
    chunks = await stream([user("tell me a long story")], model=OfflineModel())

    assert 15 < trio.current_time() - began < 60
    assert len(chunks) > 500


async def test_a_plain_answer_takes_a_few_seconds_at_most(autojump_clock: object) -> None:
    """Long tool output is streamed in larger pieces."""
    messages = [user("read a.txt")]
    messages += answered(calls_of(await stream(messages)), "word " * 390)
    began = trio.current_time()
    await stream(messages, model=OfflineModel())

    assert trio.current_time() - began < 3


@pytest.mark.parametrize("interval", [-1, float("inf"), float("nan")])
def test_an_interval_out_of_range_is_refused(interval: float) -> None:
    """The setting is checked when the model is made."""
    with pytest.raises(ValueError, match="chunk_interval"):
        OfflineModel(chunk_interval=interval)


@pytest.mark.parametrize("interval", ["1", True, None])
def test_an_interval_of_another_type_is_refused(interval: object) -> None:
    """The setting is checked when the model is made."""
    with pytest.raises(TypeError, match="chunk_interval"):
        OfflineModel(chunk_interval=interval)  # type: ignore[arg-type]  # the point of the test


@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    """Cutting into pieces loses nothing."""
    assert text == "".join(_pieces(text))


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    """Every text gives at least one ask, with arguments in JSON."""
    asks = read_asks(text)

    assert asks
    assert all(json.dumps(dict(ask.arguments)) for ask in asks)


@given(
    st.lists(
        st.sampled_from(
            [
                "add",
                "milk",
                "to my todos",
                "and",
                "what is",
                "2",
                "+",
                "remember",
                "that",
                "done",
                ",",
                "read",
                "a.b",
                "my",
                "write",
                "file",
                *(
                    "in",
                    "with",
                    "replace",
                    "a sub-agent",
                    "have",
                    "use",
                    "some_tool",
                    "=",
                    "send",
                    "to",
                    "ask me",
                    "which",
                    ":",
                    "find out",
                ),
            ]
        ),
        max_size=30,
    )
)
def test_any_mixture_of_known_words_is_read(words: list[str]) -> None:
    """The patterns end, whatever they meet."""
    assert read_asks(" ".join(words))


@pytest.mark.parametrize(
    "word",
    [
        "add ",
        "a ",
        "what ",
        "1+",
        "and ",
        "and 1 ",
        "remember that a and ",
        "x x and ",
        "to my todos ",
        "what files ",
        "do you know ",
        " ",
        "'a' ",
        "- ",
        "in a.b ",
        "to a sub-agent ",
        "a=b, ",
        "that says ",
        "out ",
    ],
)
@pytest.mark.parametrize(
    "first",
    ["", "add ", "done 1 ", "what is ", "read ", "mark ", "write ", "ask me ", "find out ", "use a_b with ", "hand a tasks to sub-agents "],
)
def test_reading_the_longest_text_is_quick(first: str, word: str) -> None:
    """No pattern runs away on hostile input: it is read in the event loop."""
    text = (first + word * MAX_TEXT)[:MAX_TEXT]
    began = time.process_time()
    read_asks(text)

    assert time.process_time() - began < 0.5

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
from trio_sagents.models._offline_asks import MAX_TEXT, TOOL_KINDS, read_asks
from trio_sagents.models.offline import OfflineModel, _pieces

TOOLS = tuple(ToolSpec(name, "", {"type": "object"}) for name in sorted(TOOL_KINDS))
MODEL = OfflineModel(chunk_interval=0)


def user(text: str, message_id: str = "u") -> Message:
    """Return what a person said."""
    return Message(message_id, "user", (TextPart(text),))


async def stream(messages: Sequence[Message], tools: Sequence[ToolSpec] = TOOLS, model: OfflineModel = MODEL) -> list[ModelChunk]:
    """Return all chunks of one answer."""
    async with model.stream(ModelRequest("", tuple(messages), tools)) as chunks:
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


@pytest.mark.parametrize(
    ("said", "calls"),
    [
        ("add milk to my todos", [("add_todos", {"items": ["milk"]})]),
        ("Please add milk, bread and eggs to the todo list.", [("add_todos", {"items": ["milk", "bread", "eggs"]})]),
        ('add "salt and pepper" to my todos', [("add_todos", {"items": ["salt and pepper"]})]),
        ("remind me to call Ann", [("add_todos", {"items": ["call Ann"]})]),
        ("show todos", [("list_todos", {})]),
        ("What's on my to-do list?", [("list_todos", {})]),
        ("done 2", [("complete_todos", {"numbers": [2]})]),
        ("done 2 and 3", [("complete_todos", {"numbers": [2, 3]})]),
        ("mark todo 2 as done", [("complete_todos", {"numbers": [2]})]),
        ("remove 1 from my todos", [("remove_todos", {"numbers": [1]})]),
        ("what is 12*(3+4)?", [("calculate", {"expression": "12*(3+4)"})]),
        ("what is 15% of 80", [("calculate", {"expression": "15/100*80"})]),
        ("3 plus 4 times 2", [("calculate", {"expression": "3 + 4 * 2"})]),
        ("7 squared", [("calculate", {"expression": "7**2"})]),
        ("2^8", [("calculate", {"expression": "2**8"})]),
        ("read README.md", [("read_file", {"path": "README.md"})]),
        ("can you read LICENSE please?", [("read_file", {"path": "LICENSE"})]),
        ('read "my file.txt"', [("read_file", {"path": "my file.txt"})]),
        ("what does notes/a.txt say?", [("read_file", {"path": "notes/a.txt"})]),
        ("list files", [("list_files", {})]),
        ("remember that my cat is Tom", [("remember", {"note": "my cat is Tom"})]),
        ("remember that I like tea and cake", [("remember", {"note": "I like tea and cake"})]),
        ("Remember that my cat is Tom. He is black.", [("remember", {"note": "my cat is Tom. He is black"})]),
        ("what do you remember about cat?", [("recall", {"about": "cat"})]),
        ("what do you remember?", [("recall", {"about": ""})]),
        ("what is my cat called?", [("recall", {"about": "cat called"})]),
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

    assert ["add_todos", "calculate"] == [call.name for call in calls]
    assert len({call.call_id for call in calls}) == 2


async def test_a_list_after_a_change_is_asked_for_when_the_change_is_done() -> None:
    """Showing what was just changed takes a second round, or it might show the old list."""
    messages = [user("add milk to my todos and show my todos")]
    first = calls_of(await stream(messages))
    messages += answered(first, "added 1. milk")
    second = calls_of(await stream(messages))
    messages += answered(second, "1. [ ] milk")
    chunks = await stream(messages)

    assert ["add_todos"] == [call.name for call in first]
    assert ["list_todos"] == [call.name for call in second]
    assert text_of(chunks) == "(offline) Added 1. milk.\nYour todos:\n1. [ ] milk"
    assert FinishChunk("stop") == chunks[-1]


@pytest.mark.parametrize(
    ("said", "result", "answer"),
    [
        ("what is 6*7?", "42", "(offline) 6*7 = 42"),
        ("show todos", "the todo list is empty", "(offline) The todo list is empty."),
        ("read a.txt", "one\ntwo\n", "(offline) a.txt has 2 lines:\n\none\ntwo\n"),
        ("what do you remember?", "- my cat is Tom", "(offline) I remember:\n- my cat is Tom"),
        ("list files", "a.txt\nb/", "(offline) The files here:\na.txt\nb/"),
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

    assert ["add_todos"] == [call.name for call in calls_of(await stream(messages))]


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
    """It is long enough to be cut in the middle."""
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
    """There is always at least one ask, and its arguments are JSON."""
    asks = read_asks(text)

    assert asks
    assert all(json.dumps(dict(ask.arguments)) for ask in asks)


@given(
    st.lists(
        st.sampled_from(["add", "milk", "to my todos", "and", "what is", "2", "+", "remember", "that", "done", ",", "read", "a.b", "my"]),
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
    ],
)
@pytest.mark.parametrize("first", ["", "add ", "done 1 ", "what is ", "read ", "mark "])
def test_reading_the_longest_text_is_quick(first: str, word: str) -> None:
    """No pattern runs away on hostile input: it is read in the event loop."""
    text = (first + word * MAX_TEXT)[:MAX_TEXT]
    began = time.process_time()
    read_asks(text)

    assert time.process_time() - began < 0.5

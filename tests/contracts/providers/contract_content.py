"""What every model adapter makes of content that is not what it should be, and of content that has to go back."""

import base64
import logging
from abc import abstractmethod
from typing import Any, Final

import pytest
import trio

from tests.support.providers.adapter import PATIENCE, Adapter, ask, chunks_of, failure_of, messages_in, text_of, without_marks
from tests.support.scenarios import answer_to, opened
from trio_sagents import Agent, Completed, FilePart, ImagePart, Message, RetryPolicy, TextPart, ToolCall
from trio_sagents.data.messages import OpaquePart, ThinkingPart, ToolResult
from trio_sagents.data.requests import ModelRequest
from trio_sagents.testing.providers import Provider, Reply

PNG: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(50))).decode()
PDF: Final = base64.b64encode(b"%PDF-1.7\n" + bytes(range(50))).decode()


class ContentContract(Adapter):
    """Ends, usage, results with images, and parts that only a provider can read."""

    @abstractmethod
    def ends(self, reason: str) -> Reply:
        """Return an answer with the text "Hi" that ends for this reason, in the provider's words."""

    @abstractmethod
    def words_for(self, cut: str) -> str:
        """Return the provider's word for a cut."""

    @abstractmethod
    def costs(self, count: int) -> Reply:
        """Return an answer for which the provider reports this many tokens, everywhere."""

    @abstractmethod
    def odd(self) -> list[Reply]:
        """Return answers with content of a type that is not known."""

    @abstractmethod
    def shown(self) -> Any:
        """Return what goes out for a result with the text "two", an image and a PDF: the messages behind the call."""

    @pytest.mark.parametrize("reason", ["an_invention", "STOPPED", "ok"])
    async def test_reason_that_is_not_known(self, provider: Provider, reason: str) -> None:
        """An answer that ends for an unknown reason has failed, in its own words, and may be asked for again."""
        provider.replies.append(self.ends(reason))

        failure = await failure_of(self.model(provider))

        assert ("protocol", True) == (failure.kind, failure.retryable)
        assert reason in str(failure)

    @pytest.mark.parametrize("number", range(3))
    async def test_content_of_an_unexpected_type(self, provider: Provider, number: int) -> None:
        """Content that cannot be understood fails the answer: without it, half an answer would pass for a whole one."""
        provider.replies.append(self.odd()[number])

        failure = await failure_of(self.model(provider))

        assert ("protocol", True) == (failure.kind, failure.retryable)
        assert "unexpected type" in str(failure)

    @pytest.mark.parametrize("count", [0, 5])
    async def test_usage_that_is_missing(self, provider: Provider, count: int, caplog: pytest.LogCaptureFixture) -> None:
        """A provider that reports no tokens is named in the log, once; zeros are no report."""
        model = self.model(provider)
        with caplog.at_level(logging.WARNING, "trio_sagents"):
            for _ in range(2):
                provider.replies.append(self.costs(count))
                await chunks_of(model)

        assert ([] if count else [True]) == ["does not report" in record.getMessage() for record in caplog.records]

    async def test_result_with_images_and_files(self, provider: Provider) -> None:
        """What a tool returns beside its text is shown to the model, as images and files and never as text of base64."""
        history = [
            Message("1", "user", (TextPart("Go"),)),
            Message("2", "assistant", (ToolCall("a", "f"),), "tool_calls"),
            Message(
                "3",
                "tool",
                (ToolResult("a", "f", "two", media=(ImagePart("image/png", PNG), FilePart("a.pdf", "application/pdf", PDF))),),
            ),
        ]
        provider.replies.append(self.says("Seen."))

        await chunks_of(self.model(provider), ModelRequest("", history))

        assert self.shown() == messages_in(without_marks(provider.bodies[0]))[2:]

    async def test_note_on_what_is_left_out(self, provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
        """What only another provider can read is left out, with one note in the log."""
        sealed = OpaquePart("elsewhere", {"type": "seal", "data": "SEAL"})
        parts = (ThinkingPart("Hm", "SEAL", "elsewhere"), sealed, TextPart("Hi"), ToolCall("a", "f", opaque=sealed))
        history = [
            Message("1", "user", (TextPart("Go"),)),
            Message("2", "assistant", parts, "tool_calls"),
            Message("3", "tool", (ToolResult("a", "f", "1"),)),
        ]
        model = self.model(provider)
        with caplog.at_level(logging.INFO, "trio_sagents"):
            for _ in range(2):
                provider.replies.append(self.says("Hi"))
                await chunks_of(model, ModelRequest("", history))

        assert "SEAL" not in str(provider.bodies)
        assert ["left out 3 parts" in record.getMessage() for record in caplog.records if "elsewhere" in record.getMessage()] == [True]

    async def test_hundreds_of_turns_on_one_model(self, provider: Provider) -> None:
        """One model serves any number of turns at once, over as many connections as it may have."""
        most = 0

        def respond(exchange: Any) -> Reply:
            nonlocal most
            most = max(most, provider.open_connections)
            return self.says("You said ", str(messages_in(exchange.body)[-1]["content"])[-9:])

        provider.respond = respond
        model = self.model(provider, max_connections=8, read_timeout=PATIENCE)
        answers: list[str] = []

        async def converse(number: int) -> None:
            answers.append(text_of(await chunks_of(model, ask(f"number {number}"))))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(converse, number)
            await provider.wait_no_connections()

        assert 300 == len(answers)
        assert 8 >= most
        assert 8 >= provider.connection_count

    @pytest.mark.parametrize("cut", ["length", "content_filtered"])
    async def test_cut_answer_as_an_outcome(self, provider: Provider, cut: str) -> None:
        """The outcome of a turn whose answer was cut says so in its type."""
        provider.replies.append(self.ends(self.words_for(cut)))
        with trio.fail_after(PATIENCE):
            async with opened(Agent(model=self.model(provider))) as sessions:
                outcome = await (await sessions.post("c", "Hi")).wait()

        assert isinstance(outcome, Completed)
        assert (cut, "Hi") == (outcome.cut, outcome.message.text)

    async def test_turn_after_an_empty_answer(self, provider: Provider) -> None:
        """An empty answer is asked for again, once."""
        provider.replies += [self.says(""), self.says("There.")]
        with trio.fail_after(PATIENCE):
            async with opened(Agent(model=self.model(provider), retry=RetryPolicy(first_delay=0.001))) as sessions:
                assert "There." == await answer_to(sessions)

        assert 2 == len(provider.exchanges)

"""`AdapterContract`: everything that each model adapter promises, tested over the wire."""

import pytest
import trio

from tests.contracts.providers.contract_attempts import AttemptContract
from tests.contracts.providers.contract_content import ContentContract
from tests.contracts.providers.contract_errors import ErrorContract
from tests.contracts.providers.contract_leaving import LeavingContract
from tests.contracts.providers.contract_parts import PartContract
from tests.support.providers.adapter import KEY, PATIENCE, Adapter, ask, chunks_of, messages_in, text_of
from trio_sagents.data.requests import FinishChunk
from trio_sagents.testing.providers import Exchange, Gate, Provider, Reply


class AnswerContract(Adapter):
    """Answers, connections and settings."""

    @pytest.mark.parametrize("size", [None, 1, 2, 7, 100, 100_000])
    async def test_text_is_whole_when_chunks_split_anywhere(self, provider: Provider, size: int | None) -> None:
        """Text arrives whole and unchanged, wherever the bytes were cut, with a finish as the last chunk."""
        words = ("Grüße, ", "\u2028\x85 ", "🌍\r\n\n", "data: [DONE]\n\n", '{"x":1}')
        reply = self.says(*words)
        provider.replies.append(reply if size is None else reply.split(size))

        chunks = await chunks_of(self.model(provider))

        assert "".join(words) == text_of(chunks)
        assert FinishChunk("stop") == chunks[-1]

    async def test_answer_without_length_is_read_to_its_end(self, provider: Provider) -> None:
        """A body that ends with its connection is an answer like any other."""
        provider.replies.append(Reply(self.says("Hello").steps, is_chunked=False))

        chunks = await chunks_of(self.model(provider))

        assert text_of(chunks) == "Hello"
        assert FinishChunk("stop") == chunks[-1]

    async def test_fifty_parallel_answers_do_not_mix(self, provider: Provider) -> None:
        """Fifty answers at a time each get their own words, and nothing stays open after the last."""
        provider.respond = lambda exchange: self.says("You said ", _last_words(exchange)).split(11)
        model = self.model(provider)
        answers: dict[int, str] = {}

        async def converse(number: int) -> None:
            answers[number] = text_of(await chunks_of(model, ask(f"number {number}")))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(converse, number)
            await provider.wait_no_connections()

        assert {number: f"You said number {number}" for number in range(50)} == answers

    async def test_idle_model_holds_no_connection(self, provider: Provider) -> None:
        """When the last answer is over the model's client is closed; the next answer makes another."""
        model = self.model(provider)
        for _ in range(2):
            provider.replies.append(self.says("Hello"))
            await chunks_of(model)
            with trio.fail_after(PATIENCE):
                await provider.wait_no_connections()

        assert provider.connection_count == 2

    async def test_connection_is_used_again_while_the_model_is_in_use(self, provider: Provider) -> None:
        """Answers one after the other share a connection while another answer is open."""
        gate = Gate()
        model = self.model(provider)
        provider.replies.append(self.says("Hello", "there").until(4, gate))
        provider.replies.extend([self.says("a"), self.says("b"), self.says("c")])

        async with model.stream(ask()) as answer:
            await anext(answer)
            for _ in range(3):
                await chunks_of(model)

        assert [exchange.connection for exchange in provider.exchanges] == [0, 1, 1, 1]

    async def test_hosts_client_is_used_and_not_closed(self, provider: Provider) -> None:
        """A host's client is used as it is, keeps its connections, and stays open."""
        client = self.client(provider)
        async with client:
            model = self.model_of(client)
            for word in ("a", "b"):
                provider.replies.append(self.says(word))
                assert word == text_of(await chunks_of(model))

            assert not client.is_closed()
            assert provider.connection_count == 1

    async def test_settings_go_into_the_body(self, provider: Provider) -> None:
        """Settings are fields of the body, also ones that the SDK does not know; those of the request win."""
        provider.replies.append(self.says("a"))
        model = self.model(provider, settings={"temperature": 0.5, "top_k": 3, "novel": {"deep": [1]}})

        await chunks_of(model, ask(settings={"top_k": 4, "max_tokens": 77}))

        body = provider.bodies[0]
        assert {name: body.get(name) for name in ("temperature", "top_k", "novel", "max_tokens")} == {
            "temperature": 0.5,
            "top_k": 4,
            "novel": {"deep": [1]},
            "max_tokens": 77,
        }

    @pytest.mark.parametrize("name", ["model", "messages", "stream", "system", "tools"])
    async def test_what_every_request_has_is_no_setting(self, provider: Provider, name: str) -> None:
        """A setting that would replace a part of the request is refused before anything is sent."""
        with pytest.raises(ValueError, match=name):
            self.model(provider, settings={name: "x"})
        with pytest.raises(ValueError, match=name):
            await chunks_of(self.model(provider), ask(settings={name: "x"}))

        assert provider.exchanges == []

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    def test_timeout_must_be_positive(self, timeout: float) -> None:
        """A silence of no length is refused when the model is described."""
        with pytest.raises(ValueError, match="read_timeout"):
            self.model(Provider("http://127.0.0.1:9"), read_timeout=timeout)

    async def test_request_was_made_with_the_key(self, provider: Provider) -> None:
        """The key is in the header that the provider reads."""
        provider.replies.append(self.says("a"))

        await chunks_of(self.model(provider))

        headers = provider.exchanges[0].headers
        assert KEY in {headers.get("x-api-key"), headers.get("authorization", "").removeprefix("Bearer ")}


class AdapterContract(AnswerContract, AttemptContract, ContentContract, ErrorContract, LeavingContract, PartContract):
    """The tests; each is run for each provider."""


def _last_words(exchange: Exchange) -> str:
    content = messages_in(exchange.body)[-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]

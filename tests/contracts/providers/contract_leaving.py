"""A model adapter leaves nothing when an answer is cancelled, left early, or left by an error."""

import gc
import warnings

import pytest
import trio

from tests.support.providers.adapter import PATIENCE, Adapter, ask, chunks_of, failure_of
from trio_sagents.exceptions import ModelFailed
from trio_sagents.testing.providers import HANG, Gate, Provider, Reply


class LeavingContract(Adapter):
    """Silence, cancellation and early ends."""

    @pytest.mark.parametrize("place", ["before headers", "in the stream"])
    async def test_silence_is_given_up(self, provider: Provider, place: str) -> None:
        """A provider that falls silent for longer than `read_timeout` has failed, and may be tried again."""
        hang = Reply(before_headers=[HANG]) if place == "before headers" else self.says("Hello").until(4, HANG)
        provider.replies.append(hang)

        failure = await failure_of(self.model(provider, read_timeout=0.3))
        with trio.fail_after(PATIENCE):
            while not provider.exchanges:  # noqa: ASYNC110  # on a machine that stops, the server reads the request later than that
                await trio.sleep(0.001)

        assert failure.retryable
        assert len(provider.exchanges) == 1

    @pytest.mark.parametrize("place", ["before headers", "in the stream"])
    async def test_cancel_ends_a_hang_at_once(self, provider: Provider, place: str) -> None:
        """A cancelled answer returns at once, and the provider sees the client leave."""
        gate = Gate()
        gate.go_on.set()
        steps = self.says("Hello").until(4, gate, HANG)
        provider.replies.append(Reply(before_headers=[gate, HANG]) if place == "before headers" else steps)
        model = self.model(provider)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chunks_of, model)
                await gate.reached.wait()
                exchange = await provider.exchange()
                nursery.cancel_scope.cancel()
            await exchange.disconnected.wait()
            await provider.wait_no_connections()

        assert not exchange.finished.is_set()

    async def test_cancel_between_chunks_closes_the_connection(self, provider: Provider) -> None:
        """A reader that is cancelled while it does something else leaves no connection and no warning."""
        provider.replies.append(self.says("Hello", "there").until(5, HANG))
        model = self.model(provider)

        with warnings.catch_warnings(record=True) as caught, trio.fail_after(PATIENCE):
            warnings.simplefilter("always")
            with trio.CancelScope() as scope:
                async with model.stream(ask()) as answer:
                    async for _ in answer:
                        scope.cancel()
                        await trio.sleep_forever()
            await provider.exchanges[0].disconnected.wait()
            gc.collect()

        assert scope.cancelled_caught
        assert [str(warning.message) for warning in caught] == []

    @pytest.mark.parametrize("count", [1, 3])
    async def test_leaving_early_leaves_nothing(self, provider: Provider, count: int) -> None:
        """A reader may stop after any chunk: no warning, and the provider sees the client leave."""
        provider.replies.append(Reply([*self.says("Hello ", "there ", "and ", "more").steps[:-3], HANG]))
        model = self.model(provider)

        with warnings.catch_warnings(record=True) as caught, trio.fail_after(PATIENCE):
            warnings.simplefilter("always")
            async with model.stream(ask()) as answer:
                for _ in range(count):
                    await anext(answer)
            await provider.exchanges[0].disconnected.wait()
            await provider.wait_no_connections()
            gc.collect()

        assert [str(warning.message) for warning in caught] == []

    async def test_answer_read_to_its_end_leaves_no_warning(self, provider: Provider) -> None:
        """A whole answer leaves no async generator."""
        provider.replies.append(self.says("Hello"))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            await chunks_of(self.model(provider))
            gc.collect()

        assert [str(warning.message) for warning in caught] == []

    async def test_unread_answer_is_closed(self, provider: Provider) -> None:
        """An answer that nobody reads is closed like any other."""
        provider.replies.append(self.says("Hello").until(4, HANG))
        model = self.model(provider)

        with trio.fail_after(PATIENCE):
            async with model.stream(ask()):
                pass
            await provider.exchanges[0].disconnected.wait()

    async def test_readers_error_passes_unchanged(self, provider: Provider) -> None:
        """What the reader raises leaves the context as that object, also when its scope was cancelled meanwhile."""
        provider.replies.append(self.says("Hello", "there").until(5, HANG))
        error = OSError("of the reader's own")

        with trio.fail_after(PATIENCE), pytest.raises(OSError, match="of the reader's own") as caught, trio.CancelScope() as scope:
            async with self.model(provider).stream(ask()) as answer:
                async for _ in answer:
                    scope.cancel()
                    raise error

        assert error is caught.value
        await provider.exchanges[0].disconnected.wait()

    async def test_iterator_is_at_its_end_after_the_finish_and_after_an_error(self, provider: Provider) -> None:
        """After its last chunk, or its error, the iterator has ended for good."""
        provider.replies.append(self.says("Hello"))
        provider.replies.append(self.says("Hello").until(2))
        model = self.model(provider)

        async with model.stream(ask()) as answer:
            _ = [chunk async for chunk in answer]
            assert [chunk async for chunk in answer] == []
        async with model.stream(ask()) as answer:
            with pytest.raises(ModelFailed):
                _ = [chunk async for chunk in answer]
            assert [chunk async for chunk in answer] == []
        assert [chunk async for chunk in answer] == []

"""What every model adapter makes of errors, breaks and nonsense."""

import traceback
from typing import Any

import pytest
import trio

from tests.support.providers.adapter import KEY, PATIENCE, Adapter, ask, chunks_of, failure_of, text_of
from trio_sagents.data.requests import FinishChunk, ModelChunk
from trio_sagents.exceptions import ModelFailed
from trio_sagents.models import _sse
from trio_sagents.testing.providers import CLOSE, HANG, RESET, Gate, Provider, Reply, open_provider


class ErrorContract(Adapter):
    """Every error is a `ModelFailed` that says whether to try again, and gives no secret away."""

    @pytest.mark.parametrize(
        ("status", "kind", "retryable"),
        [
            (400, "invalid_request_error", False),
            (401, "authentication_error", False),
            (402, "billing_error", False),
            (403, "permission_error", False),
            (404, "not_found_error", False),
            (408, "timeout_error", True),
            (409, "conflict_error", True),
            (413, "request_too_large", False),
            (422, "invalid_request_error", False),
            (429, "rate_limit_error", True),
            (500, "api_error", True),
            (502, "api_error", True),
            (503, "api_error", True),
            (504, "timeout_error", True),
            (529, "overloaded_error", True),
        ],
    )
    async def test_status_says_whether_to_retry(self, provider: Provider, status: int, kind: str, retryable: bool) -> None:
        """A refused request fails at once, after one attempt, says what the provider said, and whether trying again may help."""
        provider.replies.append(self.error(status, kind, "So it is."))

        failure = await failure_of(self.model(provider))

        assert retryable == failure.retryable
        assert failure.retry_after is None
        assert str(status) in str(failure)
        assert "So it is." in str(failure)
        assert len(provider.exchanges) == 1

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry_after": "7"}, 7.0),
            ({"retry_after": "0.5"}, 0.5),
            ({"retry_after": "-3"}, 0.0),
            ({"retry_after_ms": "250", "retry_after": "1"}, 0.25),
            ({"retry_after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
            ({"retry_after": "Wed, 21 Oct 2015 07:28:00 -0000"}, 0.0),
            ({"retry_after": "soon"}, None),
            ({"retry_after": "nan"}, None),
            ({"retry_after": "inf"}, None),
            ({"retry_after": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}, None),
            ({"retry_after": "Fri, 31 Dec 2199 23:59:59 +99999999999999999"}, None),
        ],
    )
    async def test_retry_after_is_handed_on(self, provider: Provider, headers: dict[str, str], seconds: float | None) -> None:
        """How long the provider asks to wait is in the error, in seconds; nonsense counts as nothing."""
        provider.replies.append(self.error(429, "rate_limit_error", "Slow down.", **headers))

        failure = await failure_of(self.model(provider))

        assert failure.retryable
        assert seconds == failure.retry_after

    async def test_retry_after_in_the_future_is_a_duration(self, provider: Provider) -> None:
        """A date to wait for becomes the seconds until then."""
        provider.replies.append(self.error(503, "api_error", "Later.", retry_after="Fri, 31 Dec 2199 23:59:59 GMT"))

        failure = await failure_of(self.model(provider))

        assert failure.retry_after is not None
        assert failure.retry_after > 1e9

    @pytest.mark.parametrize(("status", "advice", "retryable"), [(429, "false", False), (400, "true", True), (429, "perhaps", True)])
    async def test_providers_own_advice_wins(self, provider: Provider, status: int, advice: str, retryable: bool) -> None:
        """A provider that says itself whether to try again is believed."""
        provider.replies.append(self.error(status, "api_error", "No.", x_should_retry=advice))

        assert retryable == (await failure_of(self.model(provider))).retryable

    async def test_page_of_a_proxy_is_not_quoted(self, provider: Provider) -> None:
        """An HTML error page fails the call with its status, and without the page."""
        provider.replies.append(Reply([b"<html>Bad gateway at nginx</html>"], 502, {"content-type": "text/html"}))

        failure = await failure_of(self.model(provider))

        assert failure.retryable
        assert "502" in str(failure)
        assert "nginx" not in str(failure)

    async def test_long_error_is_cut(self, provider: Provider) -> None:
        """What a provider says in an error goes into the message up to a bound."""
        provider.replies.append(self.error(500, "api_error", "blah " * 10_000))

        assert len(str(await failure_of(self.model(provider)))) < 1000

    @pytest.mark.parametrize("where", ["status", "event"])
    async def test_key_is_in_no_text(self, provider: Provider, where: str) -> None:
        """A key that the provider repeats is neither in the error nor in its traceback."""
        words = f"Incorrect API key provided: {KEY}, or sk-proj-abc12345678."
        provider.replies.append(
            self.error(401, "authentication_error", words)
            if where == "status"
            else self.says("a", "b").until(4, self.error_event("api_error", words)),
        )

        failure = await failure_of(self.model(provider))

        printed = "".join(traceback.format_exception(failure)) + repr(failure)
        assert KEY in str(provider.exchanges[0].headers)
        assert KEY not in printed
        assert "abc12345678" not in printed
        assert "Incorrect API key provided: [redacted]" in printed

    def test_repr_has_no_key(self) -> None:
        """A model can be printed without giving its key away."""
        assert KEY not in repr(self.model(Provider("http://127.0.0.1:9")))

    @pytest.mark.parametrize(
        ("kind", "retryable"),
        [
            ("overloaded_error", True),
            ("api_error", True),
            ("rate_limit_error", True),
            ("server_error", True),
            ("invalid_request_error", False),
            ("authentication_error", False),
        ],
    )
    @pytest.mark.parametrize("size", [None, 100_000])
    async def test_error_event_fails_the_answer(self, provider: Provider, kind: str, retryable: bool, size: int | None) -> None:
        """An error inside the stream fails the answer after the text before it, and says whether trying again may help."""
        reply = self.says("Before ", "after").until(4, self.error_event(kind, "It broke."), HANG)
        provider.replies.append(reply if size is None else reply.split(size))
        said: list[ModelChunk] = []

        with trio.fail_after(PATIENCE), pytest.raises(ModelFailed, match=r"It broke\.") as caught:
            async with self.model(provider).stream(ask()) as answer:
                async for chunk in answer:
                    said.append(chunk)  # what came before the error is looked at

        assert text_of(said) == "Before "
        assert retryable == caught.value.retryable

    @pytest.mark.parametrize("count", [0, 1, 4])
    @pytest.mark.parametrize("size", [None, 5])
    async def test_answer_that_just_ends_fails(self, provider: Provider, count: int, size: int | None) -> None:
        """A body that ends in order, but before the finish, is a failure and no short answer."""
        reply = self.says("Hello", "there").until(count)
        provider.replies.append(reply if size is None else reply.split(size))

        failure = await failure_of(self.model(provider))

        assert failure.retryable
        assert "ended before" in str(failure)

    @pytest.mark.parametrize(
        "garbage",
        [
            b"data: {nonsense\n\n",
            b"data: [1, 2]\n\n",
            b'data: "text"\n\n',
            b"event: message_start\ndata: \xff\xfe\n\n",
            b"data: " + b"[" * 100_000 + b"\n\n",
        ],
    )
    async def test_garbage_fails_the_answer(self, provider: Provider, garbage: bytes) -> None:
        """An event that cannot be read fails the answer. The error repeats none of its bytes."""
        provider.replies.append(self.says("Hello", "there").until(4, garbage, HANG))

        failure = await failure_of(self.model(provider))

        assert failure.retryable
        assert "cannot be read" in str(failure)

    @pytest.mark.parametrize(
        "odd",
        [
            b"data: {}\n\n",
            b": a comment\n\n",
            b"retry: 10\nid: 4\n\n",
            b'data: {"type": 7, "choices": 3, "index": "x", "delta": [], "usage": null}\n\n',
            b'data: {"choices": [null, 4, {"delta": null, "index": true}], "usage": {"prompt_tokens": "many"}}\n\n',
            b'event: later_invention\ndata: {"type": "later_invention", "index": 99}\n\n',
        ],
    )
    async def test_unknown_events_are_passed_over(self, provider: Provider, odd: bytes) -> None:
        """Valid events that say nothing known change nothing."""
        steps = self.says("Hello ", "there").steps
        provider.replies.append(Reply([*steps[:4], odd, *steps[4:]]))

        assert text_of(await chunks_of(self.model(provider))) == "Hello there"

    async def test_endless_event_fails_the_answer(self, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
        """An event without an end is given up at a bound, before it fills the memory."""
        monkeypatch.setattr(_sse, "MAX_EVENT_BYTES", 100_000)
        provider.replies.append(self.says("Hello", "there").until(4, b"data: ", *[b"x" * 10_000] * 30, HANG))

        assert "cannot be read" in str(await failure_of(self.model(provider)))

    async def test_page_instead_of_a_stream_fails(self, provider: Provider) -> None:
        """A page with status 200 is not an answer."""
        provider.replies.append(Reply([b"<html>Please log in</html>"], 200, {"content-type": "text/html"}))

        assert "text/html" in str(await failure_of(self.model(provider)))

    @pytest.mark.parametrize("end", [CLOSE, RESET])
    @pytest.mark.parametrize("count", [0, 1, 4])
    async def test_death_in_the_stream_fails_the_answer(self, provider: Provider, end: Any, count: int) -> None:
        """A connection that breaks in the answer is a failure that may be tried again."""
        gate = Gate()
        provider.replies.append(self.says("Hello", "there").until(count, gate, end))
        gate.go_on.set()

        failure = await failure_of(self.model(provider))

        assert failure.retryable
        assert failure.retry_after is None

    @pytest.mark.parametrize("end", [CLOSE, RESET])
    async def test_death_before_the_answer_fails_it(self, provider: Provider, end: Any) -> None:
        """A connection that breaks before the first byte is a failure that may be tried again."""
        provider.replies.append(Reply(before_headers=[end]))

        failure = await failure_of(self.model(provider))

        assert failure.retryable
        assert len(provider.exchanges) == 1

    @pytest.mark.parametrize("end", [CLOSE, RESET])
    async def test_error_that_breaks_off_fails_the_answer(self, provider: Provider, end: Any) -> None:
        """An error whose body is cut is a failure like any other."""
        provider.replies.append(Reply([b'{"error', end], 500, {"content-type": "application/json"}))

        failure = await failure_of(self.model(provider))

        assert failure.retryable
        assert len(provider.exchanges) == 1

    async def test_no_http_fails_the_answer(self, provider: Provider) -> None:
        """Something that is not HTTP is a failure that may be tried again."""
        provider.replies.append(Reply(before_headers=[b"SSH-2.0-OpenSSH_9.2\r\n", CLOSE]))

        assert (await failure_of(self.model(provider))).retryable

    async def test_nobody_there_is_retryable(self) -> None:
        """A refused connection is a failure that may be tried again."""
        async with open_provider() as provider:
            pass

        assert (await failure_of(self.model(provider))).retryable

    async def test_death_after_the_finish_is_none(self, provider: Provider) -> None:
        """What breaks after the provider said why it stopped takes nothing from the answer."""
        steps = self.says("Hello").steps
        provider.replies.append(Reply([*steps[:-1], RESET]))

        chunks = await chunks_of(self.model(provider))

        assert text_of(chunks) == "Hello"
        assert FinishChunk("stop") == chunks[-1]

    async def test_body_that_never_ends_delays_nothing(self, provider: Provider) -> None:
        """A finished answer is finished, even if its body stays open."""
        provider.replies.append(Reply([*self.says("Hello").steps, HANG]))

        assert FinishChunk("stop") == (await chunks_of(self.model(provider)))[-1]
        with trio.fail_after(PATIENCE):
            await provider.exchanges[0].disconnected.wait()

"""Claude, through Anthropic's official SDK."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NoReturn

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.requests import ModelChunk, ModelRequest
from trio_sagents.exceptions import ModelFailed

try:
    import anthropic as sdk
except ImportError as _exc:
    if _exc.name != "anthropic":
        raise
    raise ImportError('AnthropicModel needs the SDK "anthropic": pip install "trio-sagents[anthropic]"', name="anthropic") from _exc

import httpx2

from trio_sagents.models._answer import SharedClient, open_answer
from trio_sagents.models._anthropic_events import AnthropicEvents
from trio_sagents.models._anthropic_request import PROVIDER, CacheTime, anthropic_body, anthropic_thinking
from trio_sagents.models._environment import check_base_url, check_key, checked_client
from trio_sagents.models._errors import connection_failure, public_cause, redacted, status_failure
from trio_sagents.models._notices import Notices
from trio_sagents.models._settings import (
    MAX_CONNECTIONS,
    READ_TIMEOUT,
    check_connections,
    check_name,
    check_own_client,
    check_patience,
    check_settings,
    client_limits,
    with_thinking,
)
from trio_sagents.models._thinking import Thinking
from trio_sagents.models._tls import tls_context

DEFAULT_MAX_TOKENS = 16_384


class AnthropicModel:
    """A model of Anthropic's, or of a server that speaks Anthropic's Messages API.

    One object serves any number of turns at once. Thinking comes with the provider's signature, and goes back with it, in its place;
    thinking without a signature is not sent back. Usage is as Anthropic counts: `input_tokens` are those neither read from nor written
    to the cache.
    """

    def __init__(  # noqa: PLR0913  # each is a setting of its own, and most hosts give one or two
        self,
        name: str,
        client: sdk.AsyncAnthropic | None = None,
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        thinking: Thinking | None = None,
        cache: CacheTime | None = "5m",
        settings: Mapping[str, JSONValue] | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        provider: str | None = None,
        first_timeout: float | None = None,
        read_timeout: float = READ_TIMEOUT,
        read_interval: float = 0.0,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """Describe a model; nothing is opened.

        Args:
            name: such as "claude-sonnet-4-5".
            client: the host's own, used as it is, with its own retries and timeouts, and never closed here. Without one,
                a client without retries is made when an answer is asked for and closed when no answer is being read.
            max_tokens: the most tokens of one answer, thinking included; at least 1.
            thinking: how much to think; None leaves that to the provider.
            cache: how long the provider keeps the prompt, the tools and the history so far, which makes the next request cheaper;
                None asks for no cache.
            settings: more fields of the request's body, such as {"temperature": 0.2}; copied. The settings of a request override them.
            api_key: None takes the credentials that the SDK finds: ANTHROPIC_API_KEY, or its other sources.
            base_url: of the API; None takes ANTHROPIC_BASE_URL, else Anthropic's own.
            provider: tells who gets back what was handed out to be returned, such as signatures: models with the same text share it.
                None is "anthropic" for Anthropic's own address and for a client of the host's, else the address of the server.
            first_timeout: the longest wait for the first piece of content, in seconds, more than 0; None is `read_timeout`.
            read_timeout: the longest wait for a further piece of content, in seconds, more than 0; math.inf never gives up. What is
                not content, such as a ping, does not count.
            read_interval: how long pieces may wait in the buffer of the connection, in seconds, at least 0 and finite, so that one read
                takes many of them: 0.1 to 0.2 halves the processor time of a token. The first piece of an answer is never late.
            max_connections: answers that are read at a time, at least 1; further requests wait for their turn.

        Raises:
            ValueError: an argument is out of range; a client is given and also a value that it has itself; the provider has no words
                for `thinking`; there is no key; or the environment's address, proxy or certificates cannot be used.
        """
        self.name: str = check_name(name)
        who = f"model {self.name!r}"
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens!r}")
        if cache not in {None, "5m", "1h"}:
            raise ValueError(f"cache must be '5m', '1h' or None, not {cache!r}")
        self._max_tokens = max_tokens
        self._settings = with_thinking(check_settings(settings), anthropic_thinking(thinking, max_tokens))
        self._cache: CacheTime | None = cache
        self._patience = check_patience(first_timeout, read_timeout, read_interval)
        most = check_connections(max_connections)
        self._shared = SharedClient(lambda: _make_client(api_key, base_url, most), most)
        self._client = client
        self._notices = Notices(who)
        if client is not None:
            check_own_client(api_key=api_key, base_url=base_url)
            self._provider = provider or PROVIDER
        else:
            self._provider = provider or _provider_of(_checked(who, api_key, base_url, most))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[ModelChunk]]:
        """Open one answer; leaving the context, early or not, closes its connection or gives it back.

        Args:
            request: its history may be any; what is sent is valid for the API.

        Yields:
            The chunks in order, the last one a `FinishChunk`; to be read inside the context, by one task at a time.

        Raises:
            ModelFailed: the provider refused, failed, could not be reached, stayed silent or broke off; also from the iterator.
            ValueError: a setting of the request is a part of every request.

        Cancellation: the provider may have begun to answer, and count it; the connection is closed.
        """
        who = f"model {self.name!r}"
        body = self._body(request)
        self._notices.left_out(request.messages, self._provider)
        events = AnthropicEvents(self._provider)
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                try:
                    client = await stack.enter_async_context(self._shared.use())
                except sdk.AnthropicError as exc:
                    raise ModelFailed(_NO_KEY.format(who), kind="auth") from public_cause(exc, None)
                if not _has_credentials(client):
                    raise ModelFailed(_NO_KEY.format(who), kind="auth")
            # The body goes as extra fields: settings may name fields that this version of the SDK does not know.
            opening = client.messages.with_streaming_response.create(
                model=self.name, max_tokens=self._max_tokens, messages=[], stream=True, extra_body=body
            )
            yield await stack.enter_async_context(open_answer(who, opening, events, self._patience, _ERRORS, _explain))
            self._notices.answered(has_usage=events.has_usage, is_complete=events.is_complete)

    def _body(self, request: ModelRequest) -> JSON:
        settings = {**self._settings, **check_settings(request.settings)}
        return anthropic_body(self.name, request, self._max_tokens, settings, provider=self._provider, cache=self._cache)


_NO_KEY = "{}: there is no API key; give api_key, or set ANTHROPIC_API_KEY"
_ERRORS = (sdk.AnthropicError, httpx2.HTTPError, OSError)
_OWN_HOST = "api.anthropic.com"


def _make_client(api_key: str | None, base_url: str | None, most: int) -> sdk.AsyncAnthropic:
    timeout, limits = client_limits(most)
    http_client = sdk.DefaultAsyncHttpxClient(verify=tls_context(), timeout=timeout, limits=limits)
    return sdk.AsyncAnthropic(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0, http_client=http_client)


def _checked(who: str, api_key: str | None, base_url: str | None, most: int) -> httpx2.URL:
    """Return the address that will be asked. ValueError if the key or something in the environment is missing or wrong."""
    if base_url is not None:
        check_base_url(who, base_url)
    if api_key is not None:
        check_key(who, api_key)

    try:
        client = checked_client(who, lambda: _make_client(api_key, base_url, most))
    except sdk.AnthropicError as exc:
        raise ValueError(f"{_NO_KEY.format(who)} ({redacted(str(exc), None)})") from None
    if not _has_credentials(client):
        raise ValueError(_NO_KEY.format(who))
    if client.api_key is not None:
        check_key(who, client.api_key)
    address = str(client.base_url).rstrip("/")
    check_base_url(who, address)
    if address.endswith("/v1"):
        raise ValueError(f"{who}: base_url must end before '/v1', which is added to it, with '/messages'")
    return client.base_url


def _has_credentials(client: sdk.AsyncAnthropic) -> bool:
    return client.api_key is not None or client.auth_token is not None or client.credentials is not None


def _provider_of(url: httpx2.URL) -> str:
    return PROVIDER if url.host == _OWN_HOST else url.netloc.decode()


def _explain(who: str, exc: Exception) -> NoReturn:
    match exc:
        case sdk.APIStatusError():
            raise status_failure(who, exc.response, exc.body) from public_cause(exc, exc.request)
        case sdk.APITimeoutError():
            failure = connection_failure(who, exc.__cause__ or exc, exc.request, "the provider did not answer in time", "timeout")
            raise failure from public_cause(exc, exc.request)
        case sdk.APIConnectionError():
            raise connection_failure(who, exc.__cause__ or exc, exc.request) from public_cause(exc, exc.request)
        case sdk.AnthropicError():
            failure = ModelFailed(f"{who}: the SDK could not make the request ({type(exc).__name__})", kind="invalid_request")
            raise failure from public_cause(exc, None)
        case _:
            raise connection_failure(who, exc, None) from public_cause(exc, None)

"""Claude, through Anthropic's official SDK."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NoReturn

from trio_sagents.data.json import JSONValue
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
from trio_sagents.models._anthropic_request import anthropic_body
from trio_sagents.models._errors import connection_failure, public_cause, status_failure
from trio_sagents.models._settings import CONNECT_TIMEOUT, READ_TIMEOUT, check_name, check_own_client, check_settings, finite_or_none
from trio_sagents.models._tls import tls_context

DEFAULT_MAX_TOKENS = 16_384


class AnthropicModel:
    """A model of Anthropic's, or of a server that speaks Anthropic's Messages API.

    Thinking comes with the provider's signature, and goes back with it; thinking without one is not sent back. Usage is
    as Anthropic counts: `input_tokens` are those neither read from nor written to the cache.
    """

    def __init__(
        self,
        name: str,
        client: sdk.AsyncAnthropic | None = None,
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        settings: Mapping[str, JSONValue] | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        """Describe a model; nothing is opened.

        Args:
            name: such as "claude-sonnet-4-5".
            client: the host's own, used as it is, with its own retries and timeouts, and never closed here. Without one,
                a client without retries is made when an answer is asked for and closed when no answer is being read.
            max_tokens: the most tokens of one answer, thinking included; at least 1.
            settings: more fields of the request's body, such as {"thinking": {"type": "enabled", "budget_tokens": 2048}}
                or {"cache_control": {"type": "ephemeral"}}; copied. Those of a request go on top.
            api_key: None takes what the SDK finds: ANTHROPIC_API_KEY, or its other sources of credentials.
            base_url: of the API; None is Anthropic's.
            read_timeout: the longest silence of the provider, in seconds, more than 0; math.inf never gives up.

        Raises:
            ValueError: an argument is out of range, or a client is given and also what it has itself.
        """
        self.name: str = check_name(name)
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens!r}")
        if client is not None:
            check_own_client(api_key=api_key, base_url=base_url)
        self._max_tokens = max_tokens
        self._settings = check_settings(settings)
        self._client = client
        timeout = httpx2.Timeout(finite_or_none(read_timeout, "read_timeout"), connect=CONNECT_TIMEOUT)
        self._shared = SharedClient(lambda: _make_client(api_key, base_url, timeout))

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
            ModelFailed: the provider refused, failed, could not be reached or broke off; also from the iterator.
            ValueError: a setting of the request is a part of every request.

        Cancellation: the provider may have begun to answer, and count it; the connection is closed.
        """
        who = f"model {self.name!r}"
        body = anthropic_body(self.name, request, self._max_tokens, {**self._settings, **check_settings(request.settings)})
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                try:
                    client = await stack.enter_async_context(self._shared.use())
                except sdk.AnthropicError as exc:
                    raise ModelFailed(_NO_KEY.format(who)) from public_cause(exc, None)
                if client.api_key is None and client.auth_token is None and client.credentials is None:
                    raise ModelFailed(_NO_KEY.format(who))
            # The body goes as extra fields: settings may name fields that this version of the SDK does not know.
            opening = client.messages.with_streaming_response.create(
                model=self.name, max_tokens=self._max_tokens, messages=[], stream=True, extra_body=body
            )
            yield await stack.enter_async_context(open_answer(who, opening, AnthropicEvents(), _ERRORS, _explain))


_NO_KEY = "{}: there is no API key; give api_key, or set ANTHROPIC_API_KEY"
_ERRORS = (sdk.AnthropicError, httpx2.HTTPError, OSError)


def _make_client(api_key: str | None, base_url: str | None, timeout: httpx2.Timeout) -> sdk.AsyncAnthropic:
    http_client = sdk.DefaultAsyncHttpxClient(verify=tls_context(), timeout=timeout)
    return sdk.AsyncAnthropic(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0, http_client=http_client)


def _explain(who: str, exc: Exception) -> NoReturn:
    match exc:
        case sdk.APIStatusError():
            raise status_failure(who, exc.response, exc.body) from public_cause(exc, exc.request)
        case sdk.APITimeoutError():
            raise connection_failure(who, exc, exc.request, "the provider did not answer in time") from public_cause(exc, exc.request)
        case sdk.APIConnectionError():
            raise connection_failure(who, exc.__cause__ or exc, exc.request) from public_cause(exc, exc.request)
        case sdk.AnthropicError():
            raise ModelFailed(f"{who}: the SDK could not make the request ({type(exc).__name__})") from public_cause(exc, None)
        case _:
            raise connection_failure(who, exc, None) from public_cause(exc, None)

"""Models behind the chat completions API, through OpenAI's official SDK: OpenAI's own, Ollama, vLLM, llama.cpp and others."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NoReturn

from trio_sagents.data.json import JSONValue
from trio_sagents.data.requests import ModelChunk, ModelRequest
from trio_sagents.exceptions import ModelFailed

try:
    import openai as sdk
except ImportError as _exc:
    if _exc.name != "openai":
        raise
    raise ImportError('OpenAIModel needs the SDK "openai": pip install "trio-sagents[openai]"', name="openai") from _exc

import httpx2

from trio_sagents.models._answer import SharedClient, open_answer
from trio_sagents.models._errors import connection_failure, public_cause, status_failure
from trio_sagents.models._openai_events import OpenAIEvents
from trio_sagents.models._openai_request import openai_body
from trio_sagents.models._settings import CONNECT_TIMEOUT, READ_TIMEOUT, check_name, check_own_client, check_settings, finite_or_none
from trio_sagents.models._tls import tls_context

NO_KEY = "none"
"""Sent to a `base_url` for which no key was given: the SDK wants one, local servers do not look at it."""


class OpenAIModel:
    """A model of OpenAI's, or of any server that speaks the chat completions API.

    Thinking is read from `reasoning_content` or `reasoning`, where a server sends it. Usage is as the server counts:
    `input_tokens` are all of the prompt, those read from a cache included.
    """

    def __init__(
        self,
        name: str,
        base_url: str | None = None,
        client: sdk.AsyncOpenAI | None = None,
        *,
        settings: Mapping[str, JSONValue] | None = None,
        api_key: str | None = None,
        reasoning_field: str | None = None,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        """Describe a model; nothing is opened.

        Args:
            name: as the server knows it.
            base_url: of the API, such as "http://localhost:11434/v1"; None is OpenAI's.
            client: the host's own, used as it is, with its own retries and timeouts, and never closed here. Without one,
                a client without retries is made when an answer is asked for and closed when no answer is being read.
            settings: more fields of the request's body, such as {"max_completion_tokens": 2000, "temperature": 0.2};
                copied. Those of a request go on top.
            api_key: None takes OPENAI_API_KEY, but for OpenAI's own address only: a key is never sent to a `base_url` that
                it was not given for.
            reasoning_field: the field of an assistant message in which its thinking is sent back, such as
                "reasoning_content", for servers that want it; None sends none.
            read_timeout: the longest silence of the server, in seconds, more than 0; math.inf never gives up.

        Raises:
            ValueError: an argument is out of range, or a client is given and also what it has itself.
        """
        self.name: str = check_name(name)
        if client is not None:
            check_own_client(api_key=api_key, base_url=base_url)
        self._settings = check_settings(settings)
        self._reasoning_field = reasoning_field
        self._client = client
        timeout = httpx2.Timeout(finite_or_none(read_timeout, "read_timeout"), connect=CONNECT_TIMEOUT)
        key = NO_KEY if api_key is None and base_url is not None else api_key
        self._shared = SharedClient(lambda: _make_client(key, base_url, timeout))

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
        body = openai_body(self.name, request, {**self._settings, **check_settings(request.settings)}, self._reasoning_field)
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                try:
                    client = await stack.enter_async_context(self._shared.use())
                except sdk.OpenAIError as exc:
                    raise ModelFailed(f"{who}: there is no API key; give api_key, or set OPENAI_API_KEY") from public_cause(exc, None)
            # The whole body goes as extra fields: the SDK checks `messages` against its types, 0.3 s for 1,000 messages.
            opening = client.chat.completions.with_streaming_response.create(model=self.name, messages=[], stream=True, extra_body=body)
            yield await stack.enter_async_context(open_answer(who, opening, OpenAIEvents(), _ERRORS, _explain))


_ERRORS = (sdk.OpenAIError, httpx2.HTTPError, OSError)


def _make_client(api_key: str | None, base_url: str | None, timeout: httpx2.Timeout) -> sdk.AsyncOpenAI:
    http_client = sdk.DefaultAsyncHttpxClient(verify=tls_context(), timeout=timeout)
    return sdk.AsyncOpenAI(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0, http_client=http_client)


def _explain(who: str, exc: Exception) -> NoReturn:
    match exc:
        case sdk.APIStatusError():
            raise status_failure(who, exc.response, exc.body) from public_cause(exc, exc.request)
        case sdk.APITimeoutError():
            raise connection_failure(who, exc, exc.request, "the provider did not answer in time") from public_cause(exc, exc.request)
        case sdk.APIConnectionError():
            raise connection_failure(who, exc.__cause__ or exc, exc.request) from public_cause(exc, exc.request)
        case sdk.OpenAIError():
            raise ModelFailed(f"{who}: the SDK could not make the request ({type(exc).__name__})") from public_cause(exc, None)
        case _:
            raise connection_failure(who, exc, None) from public_cause(exc, None)

"""Models behind the chat completions API, through OpenAI's official SDK: OpenAI's own, and those of every server that speaks it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NoReturn, TypeAlias

from trio_sagents.data.json import JSON, JSONValue
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
from trio_sagents.models._dialects import DIALECTS, Dialect, DialectName, dialect_of, provider_of
from trio_sagents.models._environment import Address, checked_client, find_address
from trio_sagents.models._errors import connection_failure, public_cause, status_failure
from trio_sagents.models._notices import Notices
from trio_sagents.models._openai_events import OpenAIEvents
from trio_sagents.models._openai_request import Speech, openai_body
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


class OpenAIModel:
    """A model of OpenAI's, or of any server that speaks the chat completions API.

    One object serves any number of turns at once. Thinking is read from `reasoning_content` or `reasoning`, if a server sends it, and
    goes back to that server until the turn ends. Usage is as the server counts: `input_tokens` are all of the prompt, those read from a
    cache included.
    """

    def __init__(  # noqa: PLR0913  # each is a setting of its own, and most hosts give one or two
        self,
        name: str,
        base_url: str | None = None,
        client: sdk.AsyncOpenAI | None = None,
        *,
        dialect: DialectName | None = None,
        thinking: Thinking | None = None,
        settings: Mapping[str, JSONValue] | None = None,
        api_key: str | None = None,
        provider: str | None = None,
        reasoning_field: str | None = None,
        first_timeout: float | None = None,
        read_timeout: float = READ_TIMEOUT,
        read_interval: float = 0.0,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """Describe a model; nothing is opened.

        Args:
            name: as the server knows it.
            base_url: of the API, such as "http://localhost:11434/v1"; None takes the address of the environment (OPENAI_BASE_URL for
                OpenAI), else that of the dialect.
            client: the host's own, used as it is, with its own retries and timeouts, and never closed here. Without one,
                a client without retries is made when an answer is asked for and closed when no answer is being read.
            dialect: how the server speaks. None takes the dialect that its address tells, and OpenAI's without an address. Servers on a
                machine of your own look alike, so name their dialect if it matters: `docs/how-to/providers.md` has the table.
            thinking: how much to think; None leaves that to the server.
            settings: more fields of the request's body, such as {"max_completion_tokens": 2000, "temperature": 0.2};
                copied. The settings of a request override them.
            api_key: None takes that of the environment (OPENAI_API_KEY for OpenAI), but only for the address that it belongs to: a key
                is never sent to a `base_url` that it was not given for.
            provider: tells who gets back what was handed out to be returned, such as thinking: models with the same text share it.
                None is the name of a public provider, else the address of the server.
            reasoning_field: the field of an assistant message in which all thinking is sent back, such as "reasoning_content". None
                sends each thought back in the field that it came in, until a person speaks again.
            first_timeout: the longest wait for the first piece of content, in seconds, more than 0; None is `read_timeout`.
            read_timeout: the longest wait for a further piece of content, in seconds, more than 0; math.inf never gives up. What is
                not content, such as a comment, does not count.
            read_interval: how long pieces may wait in the buffer of the connection, in seconds, at least 0 and finite, so that one read
                takes many of them: 0.1 to 0.2 halves the processor time of a token. The first piece of an answer is never late.
            max_connections: answers that are read at a time, at least 1; further requests wait for their turn.

        Raises:
            ValueError: an argument is out of range; a client is given and also a value that it has itself; the server has no words for
                `thinking`; the address or the key is missing or cannot be one; or the environment's proxy or certificates cannot be
                used.
        """
        self.name: str = check_name(name)
        who = f"model {self.name!r}"
        if dialect is not None and dialect not in DIALECTS:
            raise ValueError(f"{who}: there is no dialect {dialect!r}; there are {', '.join(DIALECTS)}")
        self._patience = check_patience(first_timeout, read_timeout, read_interval)
        most = check_connections(max_connections)
        self._client = client
        self._notices = Notices(who)

        if client is not None:
            check_own_client(api_key=api_key, base_url=base_url)
            address = str(client.base_url)
            spoken = dialect_at(dialect, address)
        else:
            found = find_address(who, dialect_at(dialect, base_url), base_url, api_key)
            address = found.base_url
            spoken = dialect_at(dialect, address)
            checked_client(who, lambda: make_client(found, most))
            self._shared = SharedClient(lambda: make_client(found, most), most)
        self._settings = with_thinking(check_settings(settings), {} if thinking is None else spoken.thinking(thinking))
        self._provider = provider or provider_of(spoken, address)
        self._speech = Speech(spoken, self._provider, reasoning_field)

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
        events = OpenAIEvents(self._provider)
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                client = await stack.enter_async_context(self._shared.use())
            # The whole body goes as extra fields: the SDK checks `messages` against its types, 0.3 s for 1,000 messages.
            opening = client.chat.completions.with_streaming_response.create(model=self.name, messages=[], stream=True, extra_body=body)
            yield await stack.enter_async_context(open_answer(who, opening, events, self._patience, ERRORS, explain_error))
            self._notices.answered(has_usage=events.has_usage, is_complete=events.is_complete)

    def _body(self, request: ModelRequest) -> JSON:
        return openai_body(self.name, request, {**self._settings, **check_settings(request.settings)}, self._speech)


Client: TypeAlias = sdk.AsyncOpenAI
"""The client of the SDK."""
ERRORS: Final = (sdk.OpenAIError, httpx2.HTTPError, OSError)
"""What the SDK may raise."""


def dialect_at(dialect: DialectName | None, base_url: str | None) -> Dialect:
    """Return the dialect of the server at an address; the named one, if one is named."""
    return dialect_of(base_url) if dialect is None else DIALECTS[dialect]


def make_client(address: Address, most: int) -> sdk.AsyncOpenAI:
    """Return a new client that reads at most so many answers at a time, without retries of its own."""
    timeout, limits = client_limits(most)
    http_client = sdk.DefaultAsyncHttpxClient(verify=tls_context(), timeout=timeout, limits=limits)
    return sdk.AsyncOpenAI(api_key=address.key, base_url=address.base_url, timeout=timeout, max_retries=0, http_client=http_client)


def explain_error(who: str, exc: Exception) -> NoReturn:
    """Raise the `ModelFailed` for an error of the SDK."""
    match exc:
        case sdk.APIStatusError():
            raise status_failure(who, exc.response, exc.body) from public_cause(exc, exc.request)
        case sdk.APITimeoutError():
            failure = connection_failure(who, exc.__cause__ or exc, exc.request, "the provider did not answer in time", "timeout")
            raise failure from public_cause(exc, exc.request)
        case sdk.APIConnectionError():
            raise connection_failure(who, exc.__cause__ or exc, exc.request) from public_cause(exc, exc.request)
        case sdk.OpenAIError():
            failure = ModelFailed(f"{who}: the SDK could not make the request ({type(exc).__name__})", kind="invalid_request")
            raise failure from public_cause(exc, None)
        case _:
            raise connection_failure(who, exc, None) from public_cause(exc, None)

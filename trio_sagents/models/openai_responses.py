"""Models behind OpenAI's Responses API, through OpenAI's official SDK."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from trio_sagents.data.json import JSON, JSONValue
from trio_sagents.data.requests import ModelChunk, ModelRequest
from trio_sagents.models._answer import SharedClient, open_answer
from trio_sagents.models._dialects import DIALECTS, dialect_of, provider_of
from trio_sagents.models._environment import checked_client, find_address
from trio_sagents.models._notices import Notices
from trio_sagents.models._responses_events import ResponsesEvents
from trio_sagents.models._responses_request import responses_body, responses_thinking
from trio_sagents.models._settings import (
    MAX_CONNECTIONS,
    READ_TIMEOUT,
    check_connections,
    check_name,
    check_own_client,
    check_patience,
    check_settings,
    with_thinking,
)
from trio_sagents.models._thinking import Thinking
from trio_sagents.models.openai import ERRORS, Client, explain_error, make_client


class OpenAIResponsesModel:
    """A model behind OpenAI's Responses API. `OpenAIModel` speaks the chat completions API instead.

    Nothing is kept by the provider: each request has the whole history, and `store` is false. Reasoning goes back encrypted, in its
    place. What the model says about its work before it answers is narration (`TextPart.kind`): an answer that has nothing else does not
    end the turn. One object serves any number of turns at once.
    """

    def __init__(  # noqa: PLR0913  # each is a setting of its own, and most hosts give one or two
        self,
        name: str,
        base_url: str | None = None,
        client: Client | None = None,
        *,
        thinking: Thinking | None = None,
        settings: Mapping[str, JSONValue] | None = None,
        api_key: str | None = None,
        provider: str | None = None,
        first_timeout: float | None = None,
        read_timeout: float = READ_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """Describe a model; nothing is opened.

        Args:
            name: as the server knows it.
            base_url: of the API; None takes the address of the environment (OPENAI_BASE_URL), else that of OpenAI.
            client: the host's own, used as it is and never closed here; as of `OpenAIModel`.
            thinking: how much to think; an effort only, because the API knows no budget. People read a summary. None leaves it to the
                server.
            settings: more fields of the request's body, such as {"max_output_tokens": 2000}; copied. Settings of a request override them.
            api_key: None takes that of the environment (OPENAI_API_KEY), but only for the address that it belongs to.
            provider: tells who gets back what was handed out to be returned, such as reasoning: models with the same text share it.
                None is the name of a public provider, or the address of the server, and the API.
            first_timeout: the longest wait for the first piece of content, in seconds, more than 0; None is `read_timeout`.
            read_timeout: the longest wait for a further piece of content, in seconds, more than 0; math.inf never gives up.
            max_connections: answers that are read at a time, at least 1; further requests wait for their turn.

        Raises:
            ValueError: an argument is out of range; a client is given and also a value that it has itself; or the address, the key or
                the proxy of the environment is missing or cannot be used.
        """
        self.name: str = check_name(name)
        who = f"model {self.name!r}"
        self._patience = check_patience(first_timeout, read_timeout)
        most = check_connections(max_connections)
        self._client = client
        self._notices = Notices(who)
        if client is not None:
            check_own_client(api_key=api_key, base_url=base_url)
            address = str(client.base_url)
        else:
            spoken = DIALECTS["openai"] if base_url is None else dialect_of(base_url)
            found = find_address(who, spoken, base_url, api_key)
            address = found.base_url
            checked_client(who, lambda: make_client(found, most))
            self._shared = SharedClient(lambda: make_client(found, most), most)
        self._settings = with_thinking(_checked(settings), responses_thinking(thinking))
        self._provider = provider or f"{provider_of(dialect_of(address), address)}:responses"

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
        events = ResponsesEvents(self._provider)
        async with AsyncExitStack() as stack:
            client = self._client
            if client is None:
                client = await stack.enter_async_context(self._shared.use())
            # The whole body goes as extra fields, as in `OpenAIModel`: the SDK would check every message against its types.
            opening = client.responses.with_streaming_response.create(model=self.name, input="", stream=True, extra_body=body)
            yield await stack.enter_async_context(open_answer(who, opening, events, self._patience, ERRORS, explain_error))
            self._notices.answered(has_usage=events.has_usage, is_complete=events.is_complete)

    def _body(self, request: ModelRequest) -> JSON:
        return responses_body(self.name, request, {**self._settings, **_checked(request.settings)}, self._provider)


def _checked(settings: Mapping[str, JSONValue] | None) -> JSON:
    """Return a copy of settings; ValueError for a field that the adapter writes, or that has the provider keep the history."""
    plain = check_settings(settings)
    for name in ("input", "instructions", "include", "store", "previous_response_id", "conversation", "background"):
        if name in plain:
            raise ValueError(f"{name!r} cannot be a setting: the history is kept here, and not by the provider")
    return plain

"""The middleware that makes the spans.

session                        as long as the agent runs
└── invoke_agent <agent>       a turn; a turn that continues after an interrupt gets another span
    ├── chat <model>           one answer, its retries and fallbacks included
    └── execute_tool <tool>    one call
        └── invoke_agent ...   a sub-agent, if its agent has a `Tracing`, too
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, TracerProvider
from opentelemetry.util.types import AttributeValue

from trio_sagents.agent import Middleware, MiddlewareContext, ModelAnswer, name_of
from trio_sagents.data.ids import check_id
from trio_sagents.data.json import JSON
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.data.outcomes import TurnOutcome
from trio_sagents.data.requests import ModelRequest
from trio_sagents.otel import _attributes as names
from trio_sagents.otel._contents import messages_json, system_json, value_json
from trio_sagents.otel._spans import NO_PARENT, AgentSpans, TurnSpan, below, mark_cancelled, mark_failed, mark_raised, usage_of

_KEY: Final = "spans"
_MODELS: Final = "trio_sagents.models."


class Tracing(Middleware):
    """Makes OpenTelemetry spans of sessions, turns, model calls and tool calls. Put it first in `Agent.middleware`.

    What a tool, or the client of a model, traces by itself is below the span of its call. The span of a turn has a link to the span in
    which its first message was posted. Unless `contents` is set, spans have no contents, and only the types of errors.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        *,
        contents: bool = False,
        provider_name: str | None = None,
        id: str | None = None,  # noqa: A002  # as of all middleware of the library
    ) -> None:
        """Keep the settings.

        Args:
            tracer_provider: the tracer provider; None is the global one.
            contents: whether spans have prompts, messages, arguments and results, so that everybody who reads the traces can read them.
            provider_name: the value of "gen_ai.provider.name"; None is what the class of the model says.
            id: the id of the middleware; None is the name of the class.
        """
        self._id = None if id is None else check_id("id", id)
        self._tracer = trace.get_tracer("trio_sagents", tracer_provider=tracer_provider)
        self._contents = contents
        self._provider_name = provider_name

    @property
    def middleware_id(self) -> str:
        """The id that was given; else the name of the class."""
        return type(self).__name__ if self._id is None else self._id

    async def on_start(self, context: MiddlewareContext) -> None:
        """Start the span of the session.

        Cancellation: either the span has not begun, or it ends with the agent.
        """
        spans = self._spans(context)
        context.start_soon(_close_at_end, spans)
        await trio.lowlevel.checkpoint()

    async def before_turn(self, context: MiddlewareContext) -> None:
        """Start the span of the turn.

        Cancellation: the span has begun, and ends with the turn.
        """
        self._begin_turn(context, self._spans(context), is_resumed=False)
        await trio.lowlevel.checkpoint()

    def turn_ended(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        """End the span of the turn, as completed, interrupted, failed or cancelled."""
        self._spans(context).end_turn(context.turn_id, outcome)

    async def around_model(
        self, context: MiddlewareContext, request: ModelRequest, call_next: Callable[[ModelRequest], Awaitable[ModelAnswer]]
    ) -> ModelAnswer:
        """Make the span of a model call.

        Cancellation: the span has ended, as cancelled.
        """
        model = _model_name(context)
        attributes = {**self._common(context, "chat"), names.MODEL: model, names.STREAM: True}
        if self._contents:
            attributes[names.INPUT] = messages_json(request.messages)
            if request.system:
                attributes[names.SYSTEM] = system_json(request.system)
        with self._call(context, f"chat {model}", SpanKind.CLIENT, attributes) as span:
            answer = await call_next(request)
            span.set_attributes(usage_of(answer.usage))
            span.set_attribute(names.RESPONSE_MODEL, answer.model or model)
            if answer.message.stop_reason is not None:
                span.set_attribute(names.FINISH_REASONS, [answer.message.stop_reason])
            if self._contents:
                span.set_attribute(names.OUTPUT, messages_json([answer.message]))
            return answer

    async def around_tool(
        self, context: MiddlewareContext, call: ToolCall, call_next: Callable[[ToolCall], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Make the span of a tool call.

        Cancellation: the span has ended, as cancelled.
        """
        attributes = {
            **self._common(context, "execute_tool"),
            names.TOOL_NAME: call.name,
            names.TOOL_TYPE: "function",
            names.TOOL_CALL_ID: call.call_id,
        }
        if self._contents:
            attributes[names.TOOL_ARGUMENTS] = value_json(call.arguments)
        with self._call(context, f"execute_tool {call.name}", SpanKind.INTERNAL, attributes) as span:
            result = await call_next(call)
            span.set_attribute(names.TOOL_STATUS, result.status)
            if self._contents:
                span.set_attribute(names.TOOL_RESULT, value_json(result.content))
            match result.status:
                case "failed" | "unknown":
                    mark_failed(span, f"tool_{result.status}")
                case "cancelled":
                    mark_cancelled(span)
                case _:
                    pass
            return result

    def debug_summary(self) -> JSON:
        """Return whether spans hold contents."""
        return {"contents": self._contents}

    @contextmanager
    def _call(self, context: MiddlewareContext, name: str, kind: SpanKind, attributes: dict[str, AttributeValue]) -> Iterator[Span]:
        """Make the span of a call in a turn; it is the current span inside of the block, also in tasks that are started there."""
        spans = self._spans(context)
        turn = spans.turn
        if turn is None or turn.turn_id != context.turn_id:
            turn = self._begin_turn(context, spans, is_resumed=True)
        span = self._tracer.start_span(name, context=below(turn.span), kind=kind, attributes=attributes)
        try:
            # One task sets and resets the span, around one await; other tasks have their own context and cannot see it.
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        except BaseException as error:
            mark_raised(span, error)
            raise
        finally:
            span.end()

    def _begin_turn(self, context: MiddlewareContext, spans: AgentSpans, *, is_resumed: bool) -> TurnSpan:
        name = _agent_name(context)
        attributes = {**self._common(context, "invoke_agent"), names.MODEL: _model_name(context)}
        if is_resumed:
            attributes[names.RESUMED] = True
        title = "invoke_agent" if name is None else f"invoke_agent {name}"
        return spans.begin_turn(context.turn_id or "", title, attributes, nested=bool(context.path))

    def _spans(self, context: MiddlewareContext) -> AgentSpans:
        spans: AgentSpans | None = context.memory.get(_KEY)
        if spans is None:
            session = None if context.path else self._tracer.start_span("session", context=NO_PARENT, attributes=_identity(context))
            spans = context.memory[_KEY] = AgentSpans(self._tracer, session)
        return spans

    def _common(self, context: MiddlewareContext, operation: str) -> dict[str, AttributeValue]:
        found = {names.OPERATION: operation, names.PROVIDER: self._provider_name or _provider_of(context), **_identity(context)}
        if context.turn_id is not None:
            found[names.TURN_ID] = context.turn_id
        return found


def _identity(context: MiddlewareContext) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {names.CONVERSATION: context.conversation_id, names.AGENT_ID: context.agent_id}
    name = _agent_name(context)
    if name is not None:
        found[names.AGENT_NAME] = name
    if context.path:
        found[names.SUB_AGENT] = list(context.path)
    return found


def _agent_name(context: MiddlewareContext) -> str | None:
    return context.path[-1] if context.path else context.agent.name


def _model_name(context: MiddlewareContext) -> str:
    """Return the name of the agent's model."""
    return name_of(context.agent.model)


def _provider_of(context: MiddlewareContext) -> str:
    """Return the name of the provider, as the conventions have it, for models of this library; for others, the name of the class."""
    cls = type(context.agent.model)
    return cls.__module__.removeprefix(_MODELS) if cls.__module__.startswith(_MODELS) else cls.__name__


async def _close_at_end(spans: AgentSpans) -> None:
    try:
        await trio.sleep_forever()
    finally:
        spans.close()

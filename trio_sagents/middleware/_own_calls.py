"""Asks a model beside the turn, for a summary or a title. Nobody sees the answer stream, and nothing of it becomes history.

If such a call is made in a turn, its usage counts towards the turn (`context.add_usage`). If it is made outside of turns, its usage is
stored in the metadata of the conversation, under "usage:" and the id of the middleware, by the name of the model; `Budget` counts it. If
such a call belongs to a turn that has ended, it is also stored under "turn_usage:" and the id of the middleware, by the id of the turn.
"""

from collections.abc import Mapping
from typing import Final

import attrs
import trio

from trio_sagents._trio.failures import logged
from trio_sagents._trio.groups import leaves
from trio_sagents.agent import MiddlewareContext, Model, name_of
from trio_sagents.data.estimates import unreported_usage
from trio_sagents.data.json import JSON, JSONValue, Opaque
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.outcomes import Usage, encode_usage, usage_in
from trio_sagents.data.requests import FinishChunk, ModelChunk, ModelRequest, TextChunk, UsageChunk
from trio_sagents.exceptions import ModelFailed

MAX_CHARS: Final = 256 * 1024
"""How many characters such an answer may have."""
PREFIX: Final = "usage:"
TURN_PREFIX: Final = "turn_usage:"
MAX_TURNS: Final = 20
"""How many turns are kept there, the last ones."""


@attrs.define(eq=False)
class Spent:
    """What the calls of one model have used so far."""

    calls: int = 0
    usage: Usage = attrs.field(factory=Usage)


def check_model(middleware: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    """Raise TypeError unless the model of a middleware is a `Model` or None."""
    if value is not None and not callable(getattr(value, "stream", None)):
        name = f"{type(middleware).__name__}.{attribute.name}"
        raise TypeError(f"{name} must be a Model, which has a method stream(request), or None, not {value!r}")


async def ask_text(model: Model, system: str, text: str, spent: Spent, *, answer_timeout: float) -> str:
    """Ask a model one thing, and return the whole text of its answer, without white space at its ends.

    Args:
        model: the model; it is asked once.
        system: the system prompt.
        text: the only message.
        spent: what the call uses is added here, also if it fails; estimated if the provider does not report it.
        answer_timeout: seconds for the whole answer.

    Raises:
        ModelFailed: there is no answer, or not a whole one.

    Cancellation: the stream is closed; what is known of the usage is in `spent`.
    """
    request = ModelRequest(system, (Message("ask", "user", (TextPart(text),)),))
    heard = _Heard()
    spent.calls += 1
    try:
        with trio.move_on_after(answer_timeout) as scope:
            async with model.stream(request) as chunks:
                async for chunk in chunks:
                    heard.hear(chunk)
                    if heard.size > MAX_CHARS:
                        raise ModelFailed(
                            f"the model {name_of(model)!r} gave an answer of more than {MAX_CHARS} characters", kind="protocol"
                        )
    except ModelFailed:
        raise
    except Exception as exc:  # the boundary to the provider: every exception of an adapter is a failure of the model
        for leaf in leaves(exc):
            if isinstance(leaf, ModelFailed):
                raise leaf from leaf.__cause__
        failed = ModelFailed(f"the model {name_of(model)!r} raised {type(exc).__name__}")
        raise logged(failed, exc, "the adapter of model %r failed in a call that a middleware made", name_of(model)) from exc
    finally:
        spent.usage += heard.usage
        if heard.pieces:
            spent.usage += unreported_usage(heard.usage, request, heard.size, is_whole=heard.finish is not None)
    if scope.cancelled_caught:
        raise ModelFailed(f"the model {name_of(model)!r} gave no answer within {answer_timeout:g} seconds", kind="timeout")
    return _whole(model, "".join(heard.pieces), heard.finish)


@attrs.define(eq=False)
class _Heard:
    """An answer while it arrives."""

    pieces: list[str] = attrs.field(factory=list)
    size: int = 0
    """In characters."""
    usage: Usage = attrs.field(factory=Usage)
    finish: str | None = None

    def hear(self, chunk: ModelChunk) -> None:
        match chunk:
            case TextChunk(text=piece):
                self.pieces.append(piece)
                self.size += len(piece)
            case UsageChunk(usage=usage):
                self.usage += usage
            case FinishChunk(reason=reason):
                self.finish = reason
            case _:
                pass


def _whole(model: Model, text: str, finish: str | None) -> str:
    if finish != "stop":
        raise ModelFailed(f"the model {name_of(model)!r} did not finish its answer: {finish!r}", retryable=True)
    text = text.encode(errors="replace").decode().strip()
    if not text:
        raise ModelFailed(f"the model {name_of(model)!r} gave an empty answer", retryable=True)
    return text


def spent_patch(context: MiddlewareContext, model: Model, spent: Spent) -> JSON:
    """Return the change of the metadata that stores what was spent; empty if nothing was."""
    if not spent.calls:
        return {}
    key = f"{PREFIX}{context.middleware_id}"
    known = _decode(context.state.metadata.get(key))
    turns_key = f"{TURN_PREFIX}{context.middleware_id}"
    turns = _decode(context.state.metadata.get(turns_key))
    if context.turn_id is not None:
        earlier = turns.pop(context.turn_id, Spent())
        turns[context.turn_id] = Spent(earlier.calls + spent.calls, earlier.usage + spent.usage)
    before = known.get(name_of(model), Spent())
    known = {**known, name_of(model): Spent(before.calls + spent.calls, before.usage + spent.usage)}
    last = dict(tuple(turns.items())[-MAX_TURNS:])
    return {key: _encode(known), **({turns_key: _encode(last)} if last else {})}


def _encode(spent: Mapping[str, Spent]) -> JSON:
    return {name: {"calls": each.calls, **encode_usage(each.usage)} for name, each in spent.items()}


def spent_beside(metadata: JSON) -> Mapping[str, Spent]:
    """Return what middleware has spent outside of turns in this conversation, by the name of the model."""
    total: dict[str, Spent] = {}
    for key, value in metadata.items():
        if key.startswith(PREFIX):
            for name, spent in _decode(value).items():
                before = total.get(name, Spent())
                total[name] = Spent(before.calls + spent.calls, before.usage + spent.usage)
    return total


def _decode(value: JSONValue) -> dict[str, Spent]:
    """Return what is stored; an empty dict if it cannot be read."""
    found: dict[str, Spent] = {}
    if isinstance(value, Mapping):
        for name, record in value.items():
            calls = record.get("calls") if isinstance(record, Mapping) else None
            usage = usage_in({key: count for key, count in record.items() if key != "calls"}) if isinstance(record, Mapping) else None
            if type(calls) is int and calls >= 0 and usage is not None:
                found[name] = Spent(calls, usage)
    return found

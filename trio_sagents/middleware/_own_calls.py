"""Asking a model beside the turn, for a summary or a title: nobody sees it stream, and nothing of it becomes history.

What such a call costs in a turn counts towards the turn (`context.add_usage`). What one costs outside of turns is kept in the
conversation's metadata, under "usage:" and the id of the middleware, by the name of the model: a `Budget` counts it.
"""

from collections.abc import Mapping
from typing import Final

import attrs
import trio

from trio_sagents._trio.groups import leaves
from trio_sagents.agent import MiddlewareContext, Model
from trio_sagents.data.json import JSON, JSONValue, Opaque
from trio_sagents.data.messages import Message, TextPart
from trio_sagents.data.outcomes import Usage
from trio_sagents.data.requests import FinishChunk, ModelRequest, TextChunk, UsageChunk
from trio_sagents.exceptions import ModelFailed

MAX_CHARS: Final = 256 * 1024
"""Characters that such an answer may have."""
PREFIX: Final = "usage:"
_COUNTS: Final = tuple(field.name for field in attrs.fields(Usage))


@attrs.define(eq=False)
class Spent:
    """What calls of one model cost so far."""

    calls: int = 0
    usage: Usage = attrs.field(factory=Usage)


def name_of(model: Model) -> str:
    """Return what a model is called; its class, where it does not say."""
    name: object = getattr(model, "name", None)
    return name if isinstance(name, str) else type(model).__name__


def check_model(middleware: object, attribute: "attrs.Attribute[Opaque]", value: Opaque) -> None:
    """Raise TypeError for a model of a middleware that is neither a `Model` nor None."""
    if value is not None and not callable(getattr(value, "stream", None)):
        raise TypeError(f"{type(middleware).__name__}.{attribute.name} must be a Model, with a method stream(request), not {value!r}")


async def ask_text(model: Model, system: str, text: str, spent: Spent, *, answer_timeout: float) -> str:
    """Ask a model one thing and return the whole text of its answer, without blanks around it.

    Args:
        model: whom to ask, once.
        system: the system prompt.
        text: the only message.
        spent: what it costs is added there, also where it fails.
        answer_timeout: seconds for the whole answer.

    Raises:
        ModelFailed: there is no answer, or not a whole one.

    Cancellation: the stream is closed; what is known of the cost stands in `spent`.
    """
    request = ModelRequest(system, (Message("ask", "user", (TextPart(text),)),))
    pieces: list[str] = []
    size = 0
    finish: str | None = None
    spent.calls += 1
    try:
        with trio.move_on_after(answer_timeout) as scope:
            async with model.stream(request) as chunks:
                async for chunk in chunks:
                    match chunk:
                        case TextChunk(text=piece):
                            pieces.append(piece)
                            size += len(piece)
                        case UsageChunk(usage=usage):
                            spent.usage += usage
                        case FinishChunk(reason=reason):
                            finish = reason
                        case _:
                            pass
                    if size > MAX_CHARS:
                        raise ModelFailed(f"the model {name_of(model)!r} said more than {MAX_CHARS} characters")
    except ModelFailed:
        raise
    except Exception as exc:  # the boundary to the provider: whatever an adapter raises is the model's failure
        for leaf in leaves(exc):
            if isinstance(leaf, ModelFailed):
                raise leaf from leaf.__cause__
        raise ModelFailed(f"the model {name_of(model)!r} raised {type(exc).__name__}") from exc
    if scope.cancelled_caught:
        raise ModelFailed(f"the model {name_of(model)!r} gave no answer within {answer_timeout:g} seconds", retryable=True)
    return _whole(model, "".join(pieces), finish)


def _whole(model: Model, text: str, finish: str | None) -> str:
    if finish != "stop":
        raise ModelFailed(f"the model {name_of(model)!r} gave no whole answer: it finished with {finish!r}", retryable=True)
    text = text.encode(errors="replace").decode().strip()
    if not text:
        raise ModelFailed(f"the model {name_of(model)!r} gave an empty answer", retryable=True)
    return text


def spent_patch(context: MiddlewareContext, model: Model, spent: Spent) -> JSON:
    """Return the change of the metadata that keeps what was spent; empty where nothing was."""
    if not spent.calls:
        return {}
    key = f"{PREFIX}{context.middleware_id}"
    known = _decode(context.state.metadata.get(key))
    before = known.get(name_of(model), Spent())
    known = {**known, name_of(model): Spent(before.calls + spent.calls, before.usage + spent.usage)}
    return {key: {name: {"calls": one.calls, **attrs.asdict(one.usage)} for name, one in known.items()}}


def spent_beside(metadata: JSON) -> Mapping[str, Spent]:
    """Return what middleware spent outside of turns in this conversation, by the name of the model."""
    total: dict[str, Spent] = {}
    for key, value in metadata.items():
        if key.startswith(PREFIX):
            for name, one in _decode(value).items():
                before = total.get(name, Spent())
                total[name] = Spent(before.calls + one.calls, before.usage + one.usage)
    return total


def _decode(value: JSONValue) -> dict[str, Spent]:
    """Return what is stored; nothing where it cannot be read."""
    found: dict[str, Spent] = {}
    if isinstance(value, Mapping):
        for name, record in value.items():
            if isinstance(record, Mapping) and all(type(record.get(key)) is int and record[key] >= 0 for key in ("calls", *_COUNTS)):
                found[name] = Spent(record["calls"], Usage(**{key: record[key] for key in _COUNTS}))
    return found

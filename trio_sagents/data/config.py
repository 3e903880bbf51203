"""Policies: durations, bounds, and what a factory may say about one session."""

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import attrs

from trio_sagents.data.json import JSONValue, Opaque, Options

Check: TypeAlias = Callable[[Opaque, "attrs.Attribute[Opaque]", Opaque], None]
"""An attrs validator, which sees what an untyped caller gave."""


def seconds_validator(*, minimum_open: bool = False) -> Check:
    """Return a validator of durations: numbers of at least 0, or above it."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{type(instance).__name__}.{attribute.name} must be seconds as a number, not {value!r}")
        if math.isnan(value) or value < 0 or (minimum_open and value == 0):
            raise ValueError(
                f"{type(instance).__name__}.{attribute.name} must be {'> 0' if minimum_open else '>= 0'} seconds, not {value!r}"
            )

    return check


def count_validator(minimum: int = 1, *, finite: bool = False) -> Check:
    """Return a validator of counts: ints of at least `minimum`, or `math.inf`."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if isinstance(value, bool) or not (isinstance(value, int) or (value == math.inf and not finite)):
            raise TypeError(f"{type(instance).__name__}.{attribute.name} must be an int, not {value!r}")
        if not isinstance(value, int | float) or value < minimum:
            raise ValueError(f"{type(instance).__name__}.{attribute.name} must be at least {minimum}, not {value!r}")

    return check


def type_validator(*types: type) -> Check:
    """Return a validator of values of one of some types, `type(None)` among them where None will do."""
    names = " or ".join("None" if one is type(None) else one.__name__ for one in types)

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if not isinstance(value, types):  # not the value itself: it may be long, or a secret
            raise TypeError(f"{type(instance).__name__}.{attribute.name} must be {names}, not {type(value).__name__}")

    return check


def function_validator() -> Check:
    """Return a validator of functions, and whatever else can be called."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if not callable(value):
            raise TypeError(f"{type(instance).__name__}.{attribute.name} must be a function, not {value!r}")

    return check


def choice_validator(*choices: str) -> Check:
    """Return a validator of a word that is one of some."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if value not in choices:
            raise ValueError(f"{type(instance).__name__}.{attribute.name} must be one of {', '.join(map(repr, choices))}, not {value!r}")

    return check


def check_timeout(name: str, value: object) -> float:
    """Return `value` as seconds greater than zero, `math.inf` included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be seconds as a number, not {value!r}")
    if math.isnan(value) or value <= 0:
        raise ValueError(f"{name} must be > 0 seconds, math.inf disables it; not {value!r}")
    return float(value)


@attrs.frozen(kw_only=True)
class SessionPolicy:
    """Durations in seconds, sizes in bytes of UTF-8, and counts; each bound has a named error."""

    viewer_grace: float = attrs.field(default=1.0, validator=seconds_validator())
    """How long an idle agent stays after its last viewer left; `math.inf` ignores viewers."""
    grace_period: float = attrs.field(default=30.0, validator=seconds_validator())
    """How long turns may go on when `open_sessions` is left normally, or on `drain()`."""
    settle_timeout: float = attrs.field(default=5.0, validator=seconds_validator(minimum_open=True))
    """How long the save at the end of a cut turn may take."""
    start_timeout: float = attrs.field(default=30.0, validator=seconds_validator(minimum_open=True))
    """How long a boot may take."""
    cancel_grace: float = attrs.field(default=5.0, validator=seconds_validator())
    """How long a cancelled tool may go on until `ToolIgnoresCancellation` names it."""
    draft_interval: float = attrs.field(default=1.0, validator=seconds_validator())
    """How much streamed text a kill -9 may cost; a draft is saved this often while a message streams, and every 4 KiB."""
    queue_limit: int = attrs.field(default=64, validator=count_validator())
    """Accepted messages that may wait; then `QueueFull`."""
    subscriber_events: int = attrs.field(default=256, validator=count_validator())
    """Untaken events per subscription; beyond it the subscriber gets a `Gap` and a fresh `Snapshot`."""
    subscriber_text: int = attrs.field(default=256 * 1024, validator=count_validator())
    """Untaken characters of streamed text per subscription; beyond it as above."""
    replay_events: int = attrs.field(default=1024, validator=count_validator(finite=True))
    """Events an agent keeps per channel for `after=cursor` and for slow subscribers."""
    max_sessions: int = attrs.field(default=50_000, validator=count_validator())
    """Agents at once; then `LimitExceeded`."""
    max_sessions_per_scope: int = attrs.field(default=1_000, validator=count_validator())
    """Agents at once per owner (with `SameScope`; None, the owner of a host without tenants, has no such limit)."""
    max_message_bytes: int = attrs.field(default=1024 * 1024, validator=count_validator())
    """A posted message, and an answer of the model."""
    max_state_bytes: int = attrs.field(default=8 * 1024 * 1024, validator=count_validator())
    """The stored state of one conversation."""
    max_tool_output_bytes: int = attrs.field(default=256 * 1024, validator=count_validator())
    """What the model reads of one tool call; longer output is cut, with a mark."""
    lease_ttl: float = attrs.field(default=30.0, validator=seconds_validator(minimum_open=True))
    """How long a lease lasts that is not renewed, where `SessionConfig.leases` is given; of the whole block, not of one session."""
    reauthorize_interval: float = attrs.field(default=60.0, validator=seconds_validator(minimum_open=True))
    """How often an `Authorizer` of the host's is asked again whether a viewer may go on watching; `math.inf` never. A viewer that may not
    any more gets no events, as one that was refused at the beginning. An authorizer that raises, or does not answer within 10 seconds, has
    refused until the next round. Not used with `SameScope`; of the whole block, not of one session."""


@attrs.frozen(kw_only=True)
class TurnLimits:
    """What one turn may use. At a limit the turn ends as `Failed(LimitExceeded)`."""

    max_rounds: int = attrs.field(default=50, validator=count_validator())
    """Model calls."""
    max_calls: int = attrs.field(default=200, validator=count_validator())
    """Tool calls."""
    turn_timeout: float = attrs.field(default=math.inf, validator=seconds_validator(minimum_open=True))
    """Seconds for the whole turn."""
    tool_timeout: float = attrs.field(default=math.inf, validator=seconds_validator(minimum_open=True))
    """Seconds for one tool call; a call over it is answered with an error that the model reads."""
    max_parallel: int = attrs.field(default=8, validator=count_validator())
    """Tool calls that run at once."""


FRESH_KEYS: Final = frozenset({"messages", "todos", "metadata"})
OVERRIDE_KEYS: Final = frozenset({field.name for field in attrs.fields(SessionPolicy)}) | {"inactivity_timeout", "message_preprocessor"}


def _known(name: str, given: object, known: frozenset[str]) -> Mapping[str, JSONValue]:
    if not isinstance(given, Mapping):
        raise TypeError(f"SessionOpts.{name} must be a mapping, not {given!r}")
    for key in given:
        if key not in known:
            raise ValueError(f"SessionOpts.{name} has no key {key!r}; it knows {', '.join(sorted(known))}")
    return dict(given)


@attrs.frozen(init=False)
class SessionOpts:
    """What a factory says about the session beside its agent."""

    fresh_state_attrs: Options
    """Seeds a fresh state, never a restored one: "messages", "todos", "metadata"."""
    supervisor_opts: Options
    """Overrides for this session: fields of `SessionPolicy`, "inactivity_timeout", "message_preprocessor"."""
    app_internal: Options = attrs.field(repr=False)
    """Everything else, for the host alone: `AgentHandle.options`."""

    def __init__(
        self,
        *,
        fresh_state_attrs: Options = {},  # noqa: B006  # copied below, never changed
        supervisor_opts: Options = {},  # noqa: B006  # copied below, never changed
        **app_internal: Opaque,
    ) -> None:
        """Check and keep the options.

        Args:
            fresh_state_attrs: for a fresh state; copied.
            supervisor_opts: overrides; copied.
            app_internal: the host's own; kept as they are.

        Raises:
            TypeError: one of the first two is not a mapping.
            ValueError: one of them has an unknown key, or a policy value that is out of range.
        """
        overrides = _known("supervisor_opts", supervisor_opts, OVERRIDE_KEYS)
        if overrides:
            SessionPolicy(**{key: value for key, value in overrides.items() if key not in {"inactivity_timeout", "message_preprocessor"}})
        if "inactivity_timeout" in overrides:
            check_timeout("supervisor_opts['inactivity_timeout']", overrides["inactivity_timeout"])
        self.__attrs_init__(_known("fresh_state_attrs", fresh_state_attrs, FRESH_KEYS), overrides, dict(app_internal))  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it


NO_OPTIONS: Final = SessionOpts()
"""What a factory means that says nothing."""

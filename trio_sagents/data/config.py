"""Settings as values: durations, bounds, and what a factory may say about one session."""

import datetime
import inspect
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

import attrs

from trio_sagents._text import did_you_mean, shown
from trio_sagents.data.json import JSONValue, Opaque, Options

Check: TypeAlias = Callable[[Opaque, "attrs.Attribute[Opaque]", Opaque], None]
"""An attrs validator; the value is what an untyped caller gave."""


def _named(instance: object, attribute: "attrs.Attribute[Opaque]") -> str:
    return f"{type(instance).__name__}.{attribute.name}"


def _check_number(name: str, value: object) -> float:
    """Return `value` if it is a number; TypeError says what to give instead."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = ""
        if value is None:
            hint = "; math.inf means never"
        elif isinstance(value, datetime.timedelta):
            hint = "; use its total_seconds()"
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}{hint}")
    return value


def seconds_validator(*, minimum_open: bool = False, finite: bool = False) -> Check:
    """Return a validator of durations: numbers that are at least 0, or greater than 0 with `minimum_open`; `math.inf` unless `finite`."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        seconds = _check_number(_named(instance, attribute), value)
        if math.isnan(seconds) or seconds < 0 or (minimum_open and seconds == 0):
            raise ValueError(f"{_named(instance, attribute)} must be {'> 0' if minimum_open else '>= 0'} seconds, not {shown(value)}")
        if finite and seconds == math.inf:
            raise ValueError(f"{_named(instance, attribute)} must be a finite number of seconds; 0 turns it off")

    return check


def count_validator(minimum: int = 1, *, finite: bool = False) -> Check:
    """Return a validator of counts: ints that are at least `minimum`; also `math.inf`, unless `finite`."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        is_infinite = isinstance(value, float) and value == math.inf and not finite
        if isinstance(value, bool) or not (isinstance(value, int) or is_infinite):
            raise TypeError(f"{_named(instance, attribute)} must be an int, not {shown(value)}")
        if isinstance(value, int) and value < minimum:
            raise ValueError(f"{_named(instance, attribute)} must be at least {minimum}, not {shown(value)}")

    return check


def type_validator(*types: type) -> Check:
    """Return a validator of values that are instances of one of some types, which may include `type(None)`."""
    names = " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if not isinstance(value, types):  # the message shows the type of the value only: the value may be long, or a secret
            found = shown(value) if isinstance(value, type) else type(value).__name__
            hint = f"; did you mean an instance, {value.__name__}(...)?" if isinstance(value, type) and issubclass(value, types) else ""
            raise TypeError(f"{_named(instance, attribute)} must be {names}, not {found}{hint}")

    return check


def function_validator() -> Check:
    """Return a validator of functions and other callables."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if not callable(value):
            raise TypeError(f"{_named(instance, attribute)} must be a function, not {shown(value)}")

    return check


def choice_validator(*choices: str) -> Check:
    """Return a validator of a word that must be one of some."""

    def check(instance: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
        if value not in choices:
            known = ", ".join(map(repr, choices))
            raise ValueError(f"{_named(instance, attribute)} must be one of {known}, not {shown(value)}{did_you_mean(value, choices)}")

    return check


def check_timeout(name: str, value: object) -> float:
    """Return `value` as seconds that are greater than 0; `math.inf` is allowed."""
    seconds = _check_number(name, value)
    if math.isnan(seconds) or seconds <= 0:
        raise ValueError(f"{name} must be > 0 seconds, math.inf disables it; not {shown(value)}")
    return float(seconds)


def is_class_for_instance(value: object, *methods: str) -> bool:
    """Return whether somebody gave a class where an instance is due: one of its methods needs a `self`."""
    return isinstance(value, type) and any(inspect.isfunction(inspect.getattr_static(value, name, None)) for name in methods)


@attrs.frozen(kw_only=True)
class SessionPolicy:
    """Durations in seconds, sizes in bytes of UTF-8, and counts. Each bound has an error that names it.

    `SessionConfig.policy` holds for all sessions of a block. A factory may set most of these fields for one session, in
    `SessionOpts.supervisor_opts`.
    """

    viewer_grace: float = attrs.field(default=1.0, validator=seconds_validator())
    """How long an idle agent stays after its last viewer left; `math.inf` ignores viewers."""
    grace_period: float = attrs.field(default=30.0, validator=seconds_validator())
    """How long a running turn may take to finish when `open_sessions` is left normally, or on `drain()`."""
    settle_timeout: float = attrs.field(default=5.0, validator=seconds_validator(minimum_open=True))
    """How long the save at the end of a cut turn may take. For the whole block: how long giving a lease back may take."""
    start_timeout: float = attrs.field(default=30.0, validator=seconds_validator(minimum_open=True))
    """How long a start of an agent may take. Not for one session: the start is already running when the factory is asked."""
    cancel_grace: float = attrs.field(default=5.0, validator=seconds_validator())
    """How long a cancelled tool may continue before `ToolIgnoresCancellation` names it."""
    draft_interval: float = attrs.field(default=1.0, validator=seconds_validator())
    """How much streamed text a kill -9 may cost: while a message streams, a draft is saved this often, and every 4 KiB."""
    flush_interval: float = attrs.field(default=0.0, validator=seconds_validator(finite=True))
    """How late a reader may be woken for streamed text, so that many tokens cost one wake-up: 0.05 to 0.2 is hardly seen by people. 0
    wakes readers for each piece of text. The first piece of each part of a message, and every event that is not text, wakes at once.
    Not for one session: one task wakes the readers of all sessions."""
    queue_limit: int = attrs.field(default=64, validator=count_validator())
    """How many accepted messages may wait; then `post` raises `QueueFull`."""
    subscriber_events: int = attrs.field(default=256, validator=count_validator())
    """How many events of one subscription may be untaken; then the subscriber gets a `Gap` and a new `Snapshot`. Not for one session:
    it is a bound of the subscriber."""
    subscriber_text: int = attrs.field(default=256 * 1024, validator=count_validator())
    """How many characters of streamed text of one subscription may be untaken; then as above. Not for one session."""
    replay_events: int = attrs.field(default=1024, validator=count_validator(finite=True))
    """How many events an agent keeps per channel, for `after=cursor` and for slow subscribers."""
    max_sessions: int = attrs.field(default=50_000, validator=count_validator())
    """How many agents may exist at once; then `LimitExceeded`. Not for one session."""
    max_sessions_per_scope: int = attrs.field(default=1_000, validator=count_validator())
    """How many agents one owner may have at once (with `SameScope`; the owner None, of a host without tenants, has no such limit).
    Not for one session."""
    max_message_bytes: int = attrs.field(default=1024 * 1024, validator=count_validator())
    """The size of a posted message, and of an answer of the model."""
    max_state_bytes: int = attrs.field(default=8 * 1024 * 1024, validator=count_validator())
    """The size of what is loaded of one conversation: its window, its queue, and the rest of its state. Older messages leave the window
    when there is no more room; see `window`."""
    window: float = attrs.field(default=math.inf, validator=count_validator())
    """How many messages of a conversation an agent keeps, and its model reads. If there are more when a turn begins, about half of them
    leave the window, the oldest turns first: they stay in the store, in `history()`, and are read by page. The turn before the new one
    always stays. `math.inf` sets no bound of its own: messages leave when a summary covers them (`Summarization`), or when
    `max_state_bytes` leaves no room. Only with a `WindowedStore`, such as the stores of this library."""
    window_bytes: float = attrs.field(default=math.inf, validator=count_validator())
    """The same bound in bytes of stored messages. `max_state_bytes` is a bound in any case, also inside a turn."""
    max_tool_output_bytes: int = attrs.field(default=256 * 1024, validator=count_validator())
    """How much of the text of one tool call's output the model reads; longer output is cut, with a mark. Its images and files may have
    as much as a message (`max_message_bytes`), or this, if it is more."""
    max_unattended_turns: int = attrs.field(default=10, validator=count_validator())
    """How many turns may follow each other that no person started, because tools or middleware posted their messages. Then the queue waits,
    with the status PAUSED, until a person posts."""
    after_crash: str = attrs.field(default="close", validator=choice_validator("close", "continue"))
    """What the next start does with a turn whose process died. "close": the turn is over, and its last answer is marked. "continue": the
    turn continues from its last commit. What it had said stays and is marked, an open call becomes "unknown outcome" and is not run
    again, and the model is asked again. `open_sessions(recover=True)` starts such conversations by itself."""
    max_recoveries: int = attrs.field(default=3, validator=count_validator(finite=True))
    """With `after_crash="continue"`: how many times in a row a turn is continued without having finished a round of tool calls in between,
    and a fifth of the times that it is continued in all. Then it is closed, with an error that people see."""
    lease_ttl: float = attrs.field(default=30.0, validator=seconds_validator(minimum_open=True))
    """How long a lease lasts that is not renewed, if `SessionConfig.leases` is given. Not for one session: all leases of a block are
    renewed together."""
    reauthorize_interval: float = attrs.field(default=60.0, validator=seconds_validator(minimum_open=True))
    """How often an `Authorizer` of the host's is asked again whether a viewer may still watch; `math.inf` is never. A viewer that may not
    gets no more events, as if it had been refused at the beginning. An authorizer that raises, or does not answer within 10 seconds, has
    refused until the next round. Not used with `SameScope`. Not for one session."""

    blocking_warning: float = attrs.field(default=0.5, validator=seconds_validator(minimum_open=True))
    """How long an `async def` tool or hook may run without a checkpoint before the log names it; `math.inf` turns the watch off. Not for
    one session: one watch looks at the event loop for all of them."""


OF_THE_BLOCK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "start_timeout": "the start that it bounds is already running when the factory returns its options",
        "subscriber_events": "it is a bound of a subscriber, which may listen to many sessions",
        "subscriber_text": "it is a bound of a subscriber, which may listen to many sessions",
        "max_sessions": "it counts the agents of all sessions",
        "max_sessions_per_scope": "it counts the agents of all sessions of an owner",
        "flush_interval": "one task wakes the readers of all sessions",
        "lease_ttl": "the leases of all sessions are renewed together",
        "reauthorize_interval": "the viewers of all sessions are asked about together",
        "blocking_warning": "one watch looks at the event loop for all sessions",
    }
)
"""The fields of `SessionPolicy` that hold for a whole `open_sessions` block, and why one session cannot override them."""


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
    """Seconds for one tool call; the model reads an error in the place of the result of a call that takes longer."""
    max_parallel: int = attrs.field(default=8, validator=count_validator())
    """Tool calls that run at once."""


FRESH_KEYS: Final = frozenset({"messages", "todos", "metadata"})
_OWN_KEYS: Final = frozenset({"inactivity_timeout", "message_preprocessor"})
OVERRIDE_KEYS: Final = (frozenset(field.name for field in attrs.fields(SessionPolicy)) - frozenset(OF_THE_BLOCK)) | _OWN_KEYS


def _known(name: str, given: object, known: frozenset[str], refused: Mapping[str, str]) -> Mapping[str, JSONValue]:
    """Return a copy of a mapping whose keys are all known."""
    if not isinstance(given, Mapping):
        raise TypeError(f"SessionOpts.{name} must be a mapping, not {shown(given)}")
    for key in given:
        if key in refused:
            raise ValueError(
                f"SessionOpts.{name} cannot set {key!r} for one session, because {refused[key]}; set it for all, in SessionConfig.policy"
            )
        if key not in known:
            hint = did_you_mean(key, known) or f"; its keys are {', '.join(sorted(known))}"
            raise ValueError(f"SessionOpts.{name} has no key {shown(key)}{hint}")
    return dict(given)


def _check_override(key: str, value: Opaque) -> None:
    """Raise unless a session can have this value: TypeError or ValueError, which names the key."""
    name = f"SessionOpts.supervisor_opts[{key!r}]"
    match key:
        case "inactivity_timeout":
            check_timeout(name, value)
        case "message_preprocessor":
            if value is not None and (not callable(value) or is_class_for_instance(value, "__call__")):
                raise TypeError(f"{name} must be an async function, or None, not {shown(value)}")
        case _:
            try:
                SessionPolicy(**{key: value})
            except (TypeError, ValueError) as exc:
                raise type(exc)(str(exc).replace(f"SessionPolicy.{key}", name)) from None


@attrs.frozen(init=False)
class SessionOpts:
    """What a factory says about the session beside its agent."""

    fresh_state_attrs: Options
    """Seeds a fresh state, never a restored one: "messages", "todos", "metadata"."""
    supervisor_opts: Options
    """Overrides for this session: "inactivity_timeout", "message_preprocessor", and fields of `SessionPolicy` that do not hold for
    the whole block."""
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
            TypeError: one of the first two is not a mapping, or an override has a value of the wrong type.
            ValueError: one of them has an unknown key, an override cannot be set for one session, or its value is out of range.
        """
        overrides = _known("supervisor_opts", supervisor_opts, OVERRIDE_KEYS, OF_THE_BLOCK)
        for key, value in overrides.items():
            _check_override(key, value)
        fresh = _known("fresh_state_attrs", fresh_state_attrs, FRESH_KEYS, {})
        self.__attrs_init__(fresh, overrides, dict(app_internal))  # pyright: ignore[reportAttributeAccessIssue]  # attrs makes it


NO_OPTIONS: Final = SessionOpts()
"""What a factory means that returns an agent alone."""

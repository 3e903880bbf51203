"""Budgets: what a turn, or a whole conversation, may cost. At the limit, the turn ends with an error that names the limit.

A budget is checked before each model call and each tool call, of the agent and of its sub-agents. Nobody knows beforehand what a
model call will cost, so a call that has begun may go over the limit; the next call is not made.

An account is kept in the memory of the agent, and in the metadata of the conversation. It has what was used up to some moment, in the
units of the limits. The host counts tokens by the name of the model (`MiddlewareContext.usage_by_model`), at the moment at which they
are used; bringing the account up to date means adding the difference, at the price of each model.

A tool call that is refused gets a result that says so, and the turn ends when its siblings have ended. Raising an error instead would
cut siblings in the middle of their work.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import ClassVar, Final, Literal, TypeAlias, cast

import attrs
import trio

from trio_sagents.agent import MiddlewareContext, ModelAnswer, name_of
from trio_sagents.data.config import choice_validator, count_validator, seconds_validator
from trio_sagents.data.json import JSON, JSONValue, Opaque
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.data.outcomes import Interrupted, TurnOutcome, Usage
from trio_sagents.data.requests import ModelRequest
from trio_sagents.exceptions import LimitExceeded
from trio_sagents.middleware._built_in import BuiltIn
from trio_sagents.middleware._own_calls import spent_beside

Prices: TypeAlias = "Mapping[str, tuple[float, float]] | Callable[[str, Usage], float]"
SAVE_TIMEOUT: Final = 5.0
"""How many seconds a call that was cut waits until the account is stored."""
MILLION: Final = 1e6
_KEY: Final = "account"
log: Final = logging.getLogger("trio_sagents.middleware")


@attrs.frozen
class Spent:
    """What was used, in the units of the limits."""

    tokens: int = 0
    """Tokens of all kinds, those read from a cache and written to a cache included."""
    cost: float = 0.0
    calls: int = 0
    """Model calls."""
    tool_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.tokens + other.tokens,
            self.cost + other.cost,
            self.calls + other.calls,
            self.tool_calls + other.tool_calls,
            self.seconds + other.seconds,
        )

    def __sub__(self, other: "Spent") -> "Spent":
        return self + Spent(-other.tokens, -other.cost, -other.calls, -other.tool_calls, -other.seconds)


@attrs.define(eq=False)
class _Account:
    """The account of one agent."""

    spent: Spent = attrs.field(factory=Spent)
    """What the turn or the session has used, without what middleware uses outside of turns."""
    beside: Spent = attrs.field(factory=Spent)
    """What middleware had used outside of turns before this account was opened."""
    turn_id: str | None = None
    """The turn in which the account was last used."""
    open_calls: set[str] = attrs.field(factory=set)
    """The ids of the tool calls of the turn that are counted and have not ended: a call that waits for people is made again."""
    is_running: bool = False
    """Whether that turn is running."""
    seen: Mapping[str, Usage] = attrs.field(factory=dict)
    """By the name of the model: what of the usage of the running turn is in `spent`."""
    since: float = 0.0
    """The Trio time up to which the seconds of the turn are in `spent`."""
    refused: LimitExceeded | None = None
    """Why a tool call of the running turn was refused; the turn ends with this error."""
    warned: set[str] = attrs.field(factory=set)
    """The models about which the log has a warning."""


def _prices(given: Opaque) -> Prices:
    if not isinstance(given, Mapping):
        if not callable(given):
            raise TypeError(f"Budget.prices must be a mapping by model name, or a function of a name and a Usage, not {given!r}")
        return cast("Callable[[str, Usage], float]", given)
    for name, price in given.items():
        is_pair = isinstance(price, tuple | list) and len(price) == 2
        if not is_pair or not all(isinstance(part, int | float) and part >= 0 for part in price):
            raise ValueError(f"Budget.prices[{name!r}] must be (input, output) per million tokens, not {price!r}")
    return {str(name): (float(price[0]), float(price[1])) for name, price in given.items()}


def _cost_validator(_budget: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"Budget.{attribute.name} must be a number of at least 0, not {value!r}")


@attrs.frozen(eq=False, kw_only=True)
class Budget(BuiltIn):
    """Limits what the turns of an agent may use. At a limit the turn ends as `Failed(LimitExceeded)`, which names the limit.

    Put budgets first in `Agent.middleware`. Everything counts that the agent, its sub-agents and its middleware use, at the price of
    the model that was asked. Tokens that a provider does not report are estimated; then `Usage.is_estimated` is set. An agent can have
    one budget for turns and another one for the session.
    """

    max_tokens: float = attrs.field(default=math.inf, validator=count_validator(0))
    """Tokens of all kinds, as the providers count them. The limit is "budget_tokens"."""
    max_cost: float = attrs.field(default=math.inf, validator=_cost_validator)
    """The cost, in the currency of `prices`, which must be given, too. The limit is "budget_cost"."""
    max_calls: float = attrs.field(default=math.inf, validator=count_validator(0))
    """Model calls; a call with its retries and fallbacks counts once. The limit is "budget_calls"."""
    max_tool_calls: float = attrs.field(default=math.inf, validator=count_validator(0))
    """Tool calls that run. The limit is "budget_tool_calls"."""
    max_seconds: float = attrs.field(default=math.inf, validator=seconds_validator())
    """Seconds for which a turn runs; waiting for people does not count. A call is cut at this limit. The limit is "budget_seconds"."""
    per: Literal["turn", "session"] = attrs.field(default="turn", validator=choice_validator("turn", "session"))
    """What the limits are for. The account of a session is durable: it is in the metadata, and survives a restart."""
    prices: Prices = attrs.field(factory=dict, converter=_prices)
    """By the name of a model: (input, output) per million tokens; or a function from a name and a `Usage` to a cost. A model that is
    not in the mapping counts at the highest prices in it, and the log has a warning."""

    covers_sub_agents: ClassVar[bool] = True

    def __attrs_post_init__(self) -> None:
        if math.isfinite(self.max_cost) and isinstance(self.prices, Mapping) and not self.prices:
            raise ValueError("Budget(max_cost=...) needs prices: only the host knows what a token costs")
        limits = (self.max_tokens, self.max_cost, self.max_calls, self.max_tool_calls, self.max_seconds)
        if all(map(math.isinf, limits)):
            raise ValueError("Budget has no limit: give max_tokens, max_cost, max_calls, max_tool_calls or max_seconds")

    @property
    def middleware_id(self) -> str:
        """The id that was given; else the name of the class, and what the limits are for."""
        return f"{type(self).__name__}:{self.per}" if self.id is None else self.id

    # ── hooks

    async def on_start(self, context: MiddlewareContext) -> None:
        """Load the stored account.

        Raises:
            ValueError: there is no price for the agent's model.

        Cancellation: nothing was done.
        """
        name = name_of(context.agent.model)
        if math.isfinite(self.max_cost) and isinstance(self.prices, Mapping) and name not in self.prices:
            raise ValueError(f"Budget.prices has no price for the model {name!r}; it has {', '.join(map(repr, self.prices))}")
        context.memory[_KEY] = _decode(context.state.metadata.get(context.middleware_id))

    async def before_turn(self, context: MiddlewareContext) -> None:
        """Open the account of the turn.

        Cancellation: nothing was done.
        """
        self._enter(context)

    async def before_model(self, context: MiddlewareContext, request: ModelRequest) -> ModelRequest:
        """Refuse a call that would go over a limit, before other middleware spends more on it.

        Raises:
            LimitExceeded: a limit is reached.

        Cancellation: nothing was done.
        """
        self._check(context, self._enter(context), "calls")
        return request

    async def around_model(
        self, context: MiddlewareContext, request: ModelRequest, call_next: Callable[[ModelRequest], Awaitable[ModelAnswer]]
    ) -> ModelAnswer:
        """Count a model call; refuse or cut it at a limit.

        Raises:
            LimitExceeded: a limit is reached.

        Cancellation: what the call has used so far is stored.
        """
        account = self._enter(context)
        self._check(context, account, "calls")
        account.spent += Spent(calls=1)
        try:
            with trio.move_on_after(self._left(context, account)):
                answer = await call_next(request)
                await self._save(context, account)
                return answer
            raise self._over("seconds", self._total(context, account).seconds)
        except BaseException:
            await self._save_after_error(context, account)  # noqa: ASYNC102  # it has a shield with a deadline of its own
            raise

    async def around_tool(
        self, context: MiddlewareContext, call: ToolCall, call_next: Callable[[ToolCall], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Count a tool call; refuse it at a limit, or cut it at `max_seconds`.

        Raises:
            LimitExceeded: the call was cut at `max_seconds`.

        Cancellation: what was used so far is stored.
        """
        account = self._enter(context)
        if call.call_id not in account.open_calls:
            try:
                self._check(context, account, "tool_calls")
            except LimitExceeded as exc:
                # Not raised here: calls beside this one would be cut in the middle. The next model call raises it.
                account.refused = exc
                await trio.lowlevel.checkpoint()
                return ToolResult(call.call_id, call.name, f"This call was not run: {exc}.", "cancelled")
            account.spent += Spent(tool_calls=1)
            account.open_calls.add(call.call_id)
        try:
            with trio.move_on_after(self._left(context, account)):
                result = await call_next(call)
                account.open_calls.discard(call.call_id)
                return result
            raise self._over("seconds", self._total(context, account).seconds)
        except BaseException:
            await self._save_after_error(context, account)  # noqa: ASYNC102  # it has a shield with a deadline of its own
            raise

    async def after_turn(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        """Close the account of the turn.

        Cancellation: what was used is stored.
        """
        account = self._enter(context)
        account.is_running = False
        await self._save(context, account, is_waiting=isinstance(outcome, Interrupted))

    def debug_summary(self) -> JSON:
        """Return the limits."""
        return {"per": self.per, **{f"max_{name}": most for name, most in self._limits().items() if math.isfinite(most)}}

    # ── the account

    def _limits(self) -> Mapping[str, float]:
        return {
            "tokens": self.max_tokens,
            "cost": self.max_cost,
            "calls": self.max_calls,
            "tool_calls": self.max_tool_calls,
            "seconds": self.max_seconds,
        }

    def _enter(self, context: MiddlewareContext) -> _Account:
        """Return the account, brought up to date."""
        account: _Account = context.memory.setdefault(_KEY, _Account())
        if account.turn_id != context.turn_id:
            account.open_calls, account.refused = set(), None
            if self.per == "turn":
                account.spent, account.beside = Spent(), self._beside(context)
        if account.turn_id != context.turn_id or not account.is_running:
            # A turn begins, or continues after an interrupt; what it used before the interrupt is in the account.
            account.turn_id, account.is_running = context.turn_id, True
            account.seen, account.since = {}, trio.current_time()
        self._settle(context, account)
        return account

    def _settle(self, context: MiddlewareContext, account: _Account) -> None:
        """Count what was used since the last time, at the price of each model."""
        now = trio.current_time()
        account.spent += Spent(seconds=max(0.0, now - account.since))
        account.since = now
        for name, used in context.usage_by_model.items():
            new = used - account.seen.get(name, Usage())
            account.spent += Spent(_tokens(new), self._cost(account, name, new))
            self._warn(account, name, new)
        account.seen = dict(context.usage_by_model)

    def _warn(self, account: _Account, name: str, usage: Usage) -> None:
        """Say once in the log that this budget rests on estimates or on a guess."""
        if usage.is_estimated and name not in account.warned and (math.isfinite(self.max_tokens) or math.isfinite(self.max_cost)):
            account.warned.add(name)
            log.warning("the model %r does not report its usage; %s counts estimates", name, self.middleware_id)

    def _beside(self, context: MiddlewareContext) -> Spent:
        total = Spent()
        account: _Account = context.memory.setdefault(_KEY, _Account())
        for name, own in spent_beside(context.state.metadata).items():
            total += Spent(_tokens(own.usage), self._cost(account, name, own.usage), own.calls)
        return total

    def _cost(self, account: _Account, name: str, usage: Usage) -> float:
        if not isinstance(self.prices, Mapping):
            return self.prices(name, usage)
        if not self.prices:
            return 0.0
        price = self.prices.get(name)
        if price is None:
            price = (max(price for price, _ in self.prices.values()), max(price for _, price in self.prices.values()))
            if f"price of {name}" not in account.warned:
                account.warned.add(f"price of {name}")
                log.warning("Budget.prices has no price for the model %r; its tokens count at the highest prices", name)
        return ((_tokens(usage) - usage.output_tokens) * price[0] + usage.output_tokens * price[1]) / MILLION

    def _total(self, context: MiddlewareContext, account: _Account) -> Spent:
        self._settle(context, account)
        return account.spent + self._beside(context) - account.beside

    def _check(self, context: MiddlewareContext, account: _Account, step: Literal["calls", "tool_calls"]) -> None:
        """Raise LimitExceeded if a limit is reached. A model call costs tokens and money; a tool call need not."""
        if step == "calls" and account.refused is not None:
            raise LimitExceeded(account.refused.limit, account.refused.value, most=account.refused.most)
        total = self._total(context, account)
        if getattr(total, step) + 1 > self._limits()[step]:
            raise self._over(step, getattr(total, step) + 1)
        for name in ("tokens", "cost", "seconds"):
            value, most = getattr(total, name), self._limits()[name]
            if value > most or (value >= most and (step == "calls" or name == "seconds")):
                raise self._over(name, value)

    def _left(self, context: MiddlewareContext, account: _Account) -> float:
        return self.max_seconds - self._total(context, account).seconds

    def _over(self, name: str, value: float) -> LimitExceeded:
        return LimitExceeded(f"budget_{name}", value, most=self._limits()[name])

    # ── the record

    async def _save(self, context: MiddlewareContext, account: _Account, *, is_waiting: bool = False) -> None:
        self._settle(context, account)
        if self.per == "session" or is_waiting:
            await context.update(metadata={context.middleware_id: _encode(account)})

    async def _save_after_error(self, context: MiddlewareContext, account: _Account) -> None:
        # Cancellation: the turn was cancelled, or another call of it failed; what was used is stored all the same, in bounded time.
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_TIMEOUT):
            await self._save(context, account)


def _tokens(usage: Usage) -> int:
    return sum(usage.counts)


def _encode(account: _Account) -> JSON:
    record: dict[str, JSONValue] = {
        "turn_id": account.turn_id,
        "spent": attrs.asdict(account.spent),
        "beside": attrs.asdict(account.beside),
    }
    if account.open_calls:
        record["open_calls"] = sorted(account.open_calls)
    if account.refused is not None:
        record["refused"] = [account.refused.limit, account.refused.value, account.refused.most]
    return record


def _decode(value: JSONValue) -> _Account:
    """Return the stored account; a new one if there is none that can be read."""
    if not isinstance(value, Mapping) or not isinstance(value.get("turn_id"), str):
        return _Account()
    spent, beside = _decode_spent(value.get("spent")), _decode_spent(value.get("beside"))
    if spent is None or beside is None:
        return _Account()
    account = _Account(spent, beside, value["turn_id"])
    match value.get("open_calls"):
        case list(ids):
            account.open_calls = {call_id for call_id in ids if isinstance(call_id, str)}
    match value.get("refused"):
        case [str(limit), int() | float() as reached, int() | float() as most]:
            account.refused = LimitExceeded(limit, reached, most=most)
    return account


def _decode_spent(value: JSONValue) -> Spent | None:
    names = [field.name for field in attrs.fields(Spent)]
    if not isinstance(value, Mapping) or set(value) != set(names):
        return None
    if any(isinstance(part, bool) or not isinstance(part, int | float) for part in value.values()):
        return None
    return Spent(**value)

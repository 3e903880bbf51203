"""Budgets: what a turn, or a whole conversation, may cost; at the limit a turn ends with a named error.

What was used is looked at before each model call and each tool call. A model call that has begun may go over the limit, for
nobody knows before what it will cost; the next one is not made.
"""

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal, TypeAlias, cast

import attrs
import trio

from trio_sagents.agent import Middleware, MiddlewareContext, ModelAnswer
from trio_sagents.data.config import choice_validator, count_validator, seconds_validator
from trio_sagents.data.json import JSON, JSONValue, Opaque
from trio_sagents.data.messages import ToolCall, ToolResult
from trio_sagents.data.outcomes import Interrupted, TurnOutcome, Usage
from trio_sagents.data.requests import ModelRequest
from trio_sagents.exceptions import LimitExceeded
from trio_sagents.middleware._own_calls import name_of, spent_beside

Prices: TypeAlias = "Mapping[str, tuple[float, float]] | Callable[[str, Usage], float]"
SAVE_TIMEOUT: Final = 5.0
"""Seconds that a cut call waits until what it used is on record."""
MILLION: Final = 1e6
_KEY: Final = "account"


@attrs.frozen
class Spent:
    """What was used, in the units of the limits."""

    tokens: int = 0
    """Of all kinds, those read from and written to a cache included."""
    cost: float = 0.0
    calls: int = 0
    """Of models."""
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
    """The running account of one agent."""

    spent: Spent = attrs.field(factory=Spent)
    """Of the turn or the session; without what middleware spends outside of turns."""
    beside: Spent = attrs.field(factory=Spent)
    """What middleware had spent outside of turns before this account was opened."""
    turn_id: str | None = None
    """The turn that the account was last used in."""
    is_running: bool = False
    """Whether that turn runs."""
    seen: Usage = attrs.field(factory=Usage)
    """Of the usage of the running turn, what is in `spent`."""
    since: float = 0.0
    """Up to when its seconds are in `spent`."""


def _prices(given: Opaque) -> Prices:
    if not isinstance(given, Mapping):
        if not callable(given):
            raise TypeError(f"prices is a mapping from model names, or a function of a name and a Usage, not {given!r}")
        return cast("Callable[[str, Usage], float]", given)
    for name, price in given.items():
        if not isinstance(price, tuple | list) or len(price) != 2 or not all(isinstance(one, int | float) and one >= 0 for one in price):
            raise ValueError(f"prices[{name!r}] is (input, output) per million tokens, not {price!r}")
    return {str(name): (float(price[0]), float(price[1])) for name, price in given.items()}


def _cost_validator(_budget: object, attribute: "attrs.Attribute[Opaque]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"Budget.{attribute.name} must be a number of at least 0, not {value!r}")


@attrs.frozen(eq=False, kw_only=True)
class Budget(Middleware):
    """What the turns of an agent may use. At a limit the turn ends as `Failed(LimitExceeded)`, which names it: "budget_tokens".

    Put it first in `Agent.middleware`. What sub-agents use counts when they have ended or wait for people, and so does what
    middleware uses itself, such as `Summarization` and `ConversationTitle`. An agent can have one for turns and one for the session.
    """

    max_tokens: float = attrs.field(default=math.inf, validator=count_validator(0))
    """Tokens of all kinds, as the provider counts them. The limit is "budget_tokens"."""
    max_cost: float = attrs.field(default=math.inf, validator=_cost_validator)
    """In the currency of `prices`, which it needs. The limit is "budget_cost"."""
    max_calls: float = attrs.field(default=math.inf, validator=count_validator(0))
    """Model calls of the agent itself, each with its retries and fallbacks one. The limit is "budget_calls"."""
    max_tool_calls: float = attrs.field(default=math.inf, validator=count_validator(0))
    """Tool calls that run. The limit is "budget_tool_calls"."""
    max_seconds: float = attrs.field(default=math.inf, validator=seconds_validator())
    """Seconds in which a turn runs; waiting for people does not count. A call is cut there. The limit is "budget_seconds"."""
    per: Literal["turn", "session"] = attrs.field(default="turn", validator=choice_validator("turn", "session"))
    """Over what it is summed up. The sum of a session is durable: it stands in the metadata, and survives a restart."""
    prices: Prices = attrs.field(factory=dict, converter=_prices)
    """By the name of a model: (input, output) per million tokens; or a function from a name and a `Usage` to a cost. Sub-agents
    and summaries count as the agent's own model, and so does a fallback that is not in the mapping."""

    def __attrs_post_init__(self) -> None:
        if math.isfinite(self.max_cost) and isinstance(self.prices, Mapping) and not self.prices:
            raise ValueError("Budget(max_cost=...) needs prices: nobody else knows what a token costs")
        limits = (self.max_tokens, self.max_cost, self.max_calls, self.max_tool_calls, self.max_seconds)
        if all(map(math.isinf, limits)):
            raise ValueError("Budget has no limit: give max_tokens, max_cost, max_calls, max_tool_calls or max_seconds")

    @property
    def middleware_id(self) -> str:
        """Its class, and over what it is summed up."""
        return f"{type(self).__name__}:{self.per}"

    # ── hooks

    async def on_start(self, context: MiddlewareContext) -> None:
        """Take up the stored account.

        Raises:
            ValueError: the agent's model has no price.

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
        """Count a model call; refuse it, or cut it, at a limit.

        Raises:
            LimitExceeded: a limit is reached.

        Cancellation: what it used so far is on record.
        """
        account = self._enter(context)
        self._check(context, account, "calls")
        account.spent += Spent(calls=1)
        try:
            with trio.move_on_after(self._left(context, account)):
                answer = await call_next(request)
                self._settle(context, account, answer.model)
                await self._save(context, account)
                return answer
            raise self._over("seconds", self._total(context, account).seconds)
        except BaseException:
            # Cancellation: of the turn, or another call of it failed; what was used is kept all the same, in bounded time.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_TIMEOUT):
                await self._save(context, account)
            raise

    async def around_tool(
        self, context: MiddlewareContext, call: ToolCall, call_next: Callable[[ToolCall], Awaitable[ToolResult]]
    ) -> ToolResult:
        """Count a tool call; refuse it, or cut it, at a limit.

        Raises:
            LimitExceeded: a limit is reached.

        Cancellation: what it used so far is on record.
        """
        account = self._enter(context)
        self._check(context, account, "tool_calls")
        account.spent += Spent(tool_calls=1)
        try:
            with trio.move_on_after(self._left(context, account)):
                return await call_next(call)
            raise self._over("seconds", self._total(context, account).seconds)
        except BaseException:
            # Cancellation: of the turn, or another call of it failed; what was used is kept all the same, in bounded time.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_TIMEOUT):
                await self._save(context, account)
            raise

    async def after_turn(self, context: MiddlewareContext, outcome: TurnOutcome) -> None:
        """Close the account of the turn.

        Cancellation: what was used is on record.
        """
        account = self._enter(context)
        self._settle(context, account)
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

    def _account(self, context: MiddlewareContext) -> _Account:
        account: _Account = context.memory.setdefault(_KEY, _Account())
        return account

    def _enter(self, context: MiddlewareContext) -> _Account:
        """Return the account, brought up to now."""
        account = self._account(context)
        if account.turn_id == context.turn_id and account.is_running:
            self._settle(context, account)
            return account
        # A turn begins, or goes on behind an interrupt; what it had used before that is in the account.
        goes_on = account.turn_id == context.turn_id
        if not goes_on and self.per == "turn":
            account.spent, account.beside = Spent(), self._beside(context)
        account.seen = context.usage if goes_on else Usage()
        account.turn_id, account.is_running, account.since = context.turn_id, True, trio.current_time()
        self._settle(context, account)
        return account

    def _settle(self, context: MiddlewareContext, account: _Account, model: str = "") -> None:
        """Count what was used since the last time, at the price of `model`; "" is the agent's own."""
        now, used = trio.current_time(), context.usage
        new = _difference(used, account.seen)
        cost = self._cost(context, model or name_of(context.agent.model), new)
        account.spent += Spent(_tokens(new), cost, seconds=max(0.0, now - account.since))
        account.seen, account.since = used, now

    def _beside(self, context: MiddlewareContext) -> Spent:
        total = Spent()
        for name, one in spent_beside(context.state.metadata).items():
            total += Spent(_tokens(one.usage), self._cost(context, name, one.usage), one.calls)
        return total

    def _cost(self, context: MiddlewareContext, name: str, usage: Usage) -> float:
        if not isinstance(self.prices, Mapping):
            return self.prices(name, usage)
        own = self.prices.get(name_of(context.agent.model), (0.0, 0.0))
        price_in, price_out = self.prices.get(name, own)
        return ((_tokens(usage) - usage.output_tokens) * price_in + usage.output_tokens * price_out) / MILLION

    def _total(self, context: MiddlewareContext, account: _Account) -> Spent:
        self._settle(context, account)
        return account.spent + self._beside(context) - account.beside

    def _check(self, context: MiddlewareContext, account: _Account, step: Literal["calls", "tool_calls"]) -> None:
        """Raise LimitExceeded where a limit is reached: a model call costs tokens and money, a tool call need not."""
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


def _tokens(usage: Usage) -> int:
    return sum(attrs.astuple(usage))


def _difference(now: Usage, then: Usage) -> Usage:
    """Return what came since; nothing of a kind of which there is less now."""
    return Usage(*(max(0, new - old) for new, old in zip(attrs.astuple(now), attrs.astuple(then), strict=True)))


def _encode(account: _Account) -> JSON:
    return {"turn_id": account.turn_id, "spent": attrs.asdict(account.spent), "beside": attrs.asdict(account.beside)}


def _decode(value: JSONValue) -> _Account:
    """Return the stored account; a new one where there is none that can be read."""
    if not isinstance(value, Mapping) or not isinstance(value.get("turn_id"), str):
        return _Account()
    spent, beside = _decode_spent(value.get("spent")), _decode_spent(value.get("beside"))
    return _Account() if spent is None or beside is None else _Account(spent, beside, value["turn_id"])


def _decode_spent(value: JSONValue) -> Spent | None:
    names = [field.name for field in attrs.fields(Spent)]
    if not isinstance(value, Mapping) or set(value) != set(names):
        return None
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in value.values()):
        return None
    return Spent(**value)

"""MCP servers whose lines are mutated on their way: `run_lives(seed, count)`, or `python -m tests.hostile.mcp_fuzz SEED COUNT`.

A life is an agent with a tool of its own and the tools of a server, some turns, and a model that calls tools with arguments of which no
two are the same. Whatever becomes of the server's lines,

* every turn ends, in bounded time, and the agent's own tool works;
* the server is asked for exactly the calls that the model made, with the same arguments, each at most once;
* no call gets the answer of another one, unless an id was changed on the way;
* a call whose answer came unharmed has that answer.
"""

import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final
from unittest import mock

import attrs
import trio
import trio.testing

from tests.apps.mcp._kit import quirky_streams
from trio_sagents import Agent, Completed, MemoryStore, SessionConfig, SingleFactoryRouter, open_sessions
from trio_sagents.mcp import Mcp, StdioServer
from trio_sagents.testing import Call, ScriptedModel
from trio_sagents.testing.mcp_server import Ended, QuirkyServer

NAMES: Final = ("count", "order.item", "order/item", "look", "find")
TURNS: Final = 3
MOST_SECONDS: Final = 20_000.0
"""Of virtual time, for a life: three turns of calls that nobody answers, and what an agent waits at its start."""
WORDS: Final[Sequence[Any]] = (
    None, True, False, 0, -1, 5, 5.0, 1e300, "", "x", "5", "null", "result", [], [1], {}, {"a": 1}, "\ud800", "text", "object",
    "2025-06-18", {"type": "object"}, {"$ref": "#/lost"}, [[]], {"type": "text", "text": "x"}, {"content": []},
)  # fmt: skip
KEYS: Final = ("jsonrpc", "id", "result", "error", "method", "content", "type", "text", "tools", "name", "inputSchema", "isError", "x")


@attrs.define
class Life:
    """One agent and one server, and what became of the lines between them."""

    seed: int
    rate: float
    """How likely a line is mutated."""
    dice: random.Random = attrs.field(init=False)
    server: QuirkyServer = attrs.field(init=False)
    asked: list[tuple[str, str]] = attrs.field(factory=list)
    """The calls of the model: (name at the server, nonce)."""
    own: list[str] = attrs.field(factory=list)
    unharmed: set[str] = attrs.field(factory=set)
    """The nonces in answers that came as they were."""
    has_changed_ids: bool = False
    damage: list[str] = attrs.field(factory=list)
    """What was done to the lines, in order."""

    def __attrs_post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        schema = {"type": "object", "properties": {"nonce": {"type": "string"}}}
        tools = [{"name": name, "description": f"Do {name}.", "inputSchema": schema} for name in NAMES]
        before = self.dice.choice(["", "", "", "ends", "is silent", "answers without an id"])
        self.server = QuirkyServer(tools=tools, before=before, page_size=self.dice.choice([2, 100]), modern=self.dice.random() < 0.1)

    # ── the lines

    def mutate(self, line: str) -> Iterator[str]:
        """Yield what becomes of a line."""
        if self.dice.random() >= self.rate:
            self.unharmed.update(nonce for _, nonce in self.asked if f'\\"{nonce}\\"' in line)
            yield line
            return
        kind = self.dice.choice(["json", "json", "json", "entry", "bytes", "drop", "twice", "junk", "batch", "end", "die"])
        self.damage.append(f"{kind}: {line[:80]}")
        match kind:
            case "json":
                value = json.loads(line)
                for _ in range(self.dice.randint(1, 3)):
                    value = self._bent(value)
                self.has_changed_ids |= not isinstance(value, dict) or value.get("id") != json.loads(line)["id"]
                yield json.dumps(value)
            case "entry":
                yield self._with_a_bad_entry(line)
            case "bytes":
                yield from self._bytes(line)
            case "drop":
                pass
            case "die":
                if self.dice.random() < 0.5:
                    yield line
                raise Ended
            case "twice":
                yield line
                yield line
            case "junk":
                yield self.dice.choice(["starting...", '{"level": "info"}', "[", '"result"', '{"jsonrpc": "2.0"}', "\x00\xff"])
                yield line
            case "batch":
                yield f"[{line}]"
            case _:
                yield line[: self.dice.randrange(len(line))]

    def _bytes(self, line: str) -> Iterator[str]:
        self.has_changed_ids = True
        place = self.dice.randrange(len(line))
        match self.dice.randrange(4):
            case 0:
                yield line[:place] + self.dice.choice('{}[]",:0\\x') + line[place + 1 :]
            case 1:
                yield line[:place]
                yield line[place:]
            case 2:
                yield line[:place] + line[place + 1 :]
            case _:
                yield line + line

    def _with_a_bad_entry(self, line: str) -> str:
        value = json.loads(line)
        tools = value.get("result", {}).get("tools") if isinstance(value.get("result"), dict) else None
        if not tools:
            return line
        place = self.dice.randrange(len(tools))
        tools[place] = self.dice.choice([*WORDS, *[self._bent(tools[place]) for _ in range(20)]])
        return json.dumps(value)

    def _bent(self, value: Any) -> Any:
        """Return a JSON value with one place changed."""
        if isinstance(value, dict) and value and self.dice.random() < 0.8:
            key = self.dice.choice(sorted(value))
            match self.dice.randrange(6):
                case 0:
                    return {name: each for name, each in value.items() if name != key}
                case 1:
                    return {(self.dice.choice(KEYS) if name == key else name): each for name, each in value.items()}
                case 2:
                    return {**value, self.dice.choice(KEYS): self.dice.choice(WORDS)}
                case _:
                    return {**value, key: self._bent(value[key])}
        if isinstance(value, list) and value and self.dice.random() < 0.8:
            place = self.dice.randrange(len(value))
            match self.dice.randrange(4):
                case 0:
                    return value[:place] + value[place + 1 :]
                case 1:
                    return [*value, value[place]]
                case _:
                    return [*value[:place], self._bent(value[place]), *value[place + 1 :]]
        return self.dice.choice(WORDS)

    # ── the agent

    def reply(self, request: Any) -> Any:
        """Call some tools, then end the turn."""
        if request.messages[-1].role == "tool":
            return "done"
        calls = []
        for _ in range(self.dice.randint(1, 3)):
            nonce = f"n{len(self.asked)}-{self.seed}"
            spec = self.dice.choice(request.tools)
            if spec.name != "own":
                self.asked.append((spec.name, nonce))
            arguments = {"nonce": nonce} if spec.name == "own" or "nonce" in spec.parameters["properties"] else {}
            calls.append(Call(spec.name, **arguments))
        return [*calls, Call("own", nonce="x")]

    async def live(self) -> Sequence[str]:
        """Live the life; return what was violated."""

        async def own(nonce: str) -> str:
            """Do it here."""
            self.own.append(nonce)
            return nonce

        mcp = Mcp(StdioServer("in-memory"), name="stock")
        agent = Agent(model=ScriptedModel(self.reply), tools=[own], middleware=[mcp])
        remote: dict[str, str] = {}
        with trio.move_on_after(MOST_SECONDS) as patience:
            async with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent), store=MemoryStore())) as sessions:
                for _ in range(TURNS):
                    outcome = await (await sessions.post("c", "go")).wait()
                    if not isinstance(outcome, Completed):
                        return [f"a turn ended as {outcome!r}"]
                    handle = (await sessions.start("c")).agent
                    state = await handle.state()
        if patience.cancelled_caught:
            return [f"no end within {MOST_SECONDS:g} seconds"]
        for name in NAMES:
            remote.update(dict.fromkeys(_public_names(name), name))
        return list(self._violations(state, remote))

    def _violations(self, state: Any, remote: Mapping[str, str]) -> Iterator[str]:
        if len(self.own) < TURNS:
            yield f"the agent's own tool ran {len(self.own)} times"
        asked = {nonce: remote.get(name, name) for name, nonce in self.asked}
        seen: set[str] = set()
        for name, arguments in self.server.calls:
            nonce = arguments.get("nonce", "")
            if arguments and (set(arguments) != {"nonce"} or nonce not in asked):
                yield f"the server was asked for {name} with {dict(arguments)}, which the model did not ask for"
            if nonce and nonce in seen:
                yield f"the server was asked twice: {name} with {nonce}"
            seen.add(nonce)
        results = {each.call_id: each for message in state.messages for each in message.results}
        for message in state.messages:
            for call in message.calls:
                nonce, result = call.arguments.get("nonce"), results[call.call_id]
                others = [each for each in asked if each != nonce and f'"{each}"' in result.content]
                if others and not self.has_changed_ids:
                    yield f"the call with {nonce} has the answer of {others}"
                if nonce in self.unharmed and call.name != "own" and f'"{nonce}"' not in result.content and not self.has_changed_ids:
                    yield f"the call with {nonce} was answered, and reads {result.content[:80]!r}"


def _public_names(name: str) -> Sequence[str]:
    from trio_sagents.mcp._schemas import plain_names  # what is looked at is not what is tested

    return [plain_names(NAMES)[name], plain_names([name])[name]]


def run_life(seed: int, rate: float = 0.2) -> tuple[Sequence[str], Life]:
    """Live one life in virtual time; return what was violated, and the life."""
    life = Life(seed, rate)

    def streams(_server: Any, _name: str, on_lost: Callable[[], None]) -> Any:
        life.server._has_begun = False
        return quirky_streams(life.server, life.mutate, on_lost)

    with mock.patch("trio_sagents.mcp._opening.transport_to", streams):
        violations = trio.run(life.live, clock=trio.testing.MockClock(autojump_threshold=0))
    return violations, life


def run_lives(seed: int, count: int) -> Sequence[str]:
    """Live some lives, from mildly to wildly mutated; return what was violated, with the seed and rate of each."""
    found = []
    for number in range(seed, seed + count):
        rate = (0.05, 0.2, 0.6)[number % 3]
        violations, life = run_life(number, rate)
        found += [f"seed {number}, rate {rate}: {what}; after {life.damage}" for what in violations]
    return found


if __name__ == "__main__":
    began = time.monotonic()
    told = run_lives(int(sys.argv[1]), int(sys.argv[2]))
    print(*told, sep="\n")
    print(f"{sys.argv[2]} lives, {len(told)} violations, {int(sys.argv[2]) / (time.monotonic() - began):.0f} lives/s")
    sys.exit(1 if told else 0)

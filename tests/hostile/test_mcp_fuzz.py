"""MCP servers whose lines are mutated: no turn without an end, no call that nobody made, no answer of somebody else."""

from typing import Any

import pytest
from mcp_types import JSONRPCMessage, JSONRPCResponse

from tests.hostile.mcp_fuzz import run_life, run_lives
from trio_sagents.mcp import McpConnection, McpDisconnected
from trio_sagents.mcp._answers import Answers


def found(words: str) -> bool:
    """Return whether something is found that is said in these words, within some hundred lives."""
    return any(words in what for seed in range(0, 600, 15) for what in run_lives(seed, 15))


def test_servers_when_their_lines_are_mutated() -> None:
    """Whatever becomes of a server's lines, every promise of `mcp_fuzz` is kept."""
    assert [] == run_lives(seed=0, count=90)


def test_fuzz_when_nothing_is_mutated() -> None:
    """The lives without mutations call tools, and read what they return: a fuzz that does nothing proves nothing."""
    violations, life = run_life(seed=3, rate=0.0)

    assert ([], []) == (list(violations), life.damage)
    assert {nonce for _, nonce in life.asked} == life.unharmed == {arguments["nonce"] for _, arguments in life.server.calls}


def test_fuzz_when_answers_go_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is given to whoever waits is found."""
    heard = Answers.heard

    def to_anybody(self: Answers, message: JSONRPCMessage) -> JSONRPCMessage:
        if isinstance(message, JSONRPCResponse) and message.id not in self.waiting and len(self.waiting) == 1:
            message = message.model_copy(update={"id": next(iter(self.waiting))})
        return heard(self, message)

    monkeypatch.setattr(Answers, "heard", to_anybody)

    assert found("has the answer of")


def test_fuzz_when_lost_calls_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is made again when its connection was lost is found."""
    ask: Any = McpConnection._ask

    async def again(self: Any, opening: Any, client: Any, name: str, arguments: Any) -> Any:
        try:
            return await ask(self, opening, client, name, arguments)
        except McpDisconnected:
            return await ask(self, *await self._connected(), name, arguments)

    monkeypatch.setattr(McpConnection, "_ask", again)

    assert found("was asked twice")

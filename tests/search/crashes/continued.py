"""Kill processes that continue what the last one left, again and again: `python -m tests.search.crashes.continued --help`.

Each child opens the same conversations with `after_crash="continue"` and `recover=True`, posts some more messages, and is killed with
SIGKILL at a random moment. Tools write what they do to a file of their own before they do it. In the end one child lives until everything
is answered. Then each message that any child acknowledged is answered, in a turn that was completed, and no call ran twice.
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from tests.search.crashes.kills import MEMORY, PATIENCE, fork, read_all
from trio_sagents import (
    Agent,
    Completed,
    ConversationStore,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    SqliteStore,
    Tool,
    ToolContext,
    open_sessions,
)
from trio_sagents.testing import Call, ScriptedModel

LIVES: Final = 10
"""How many children are killed on one file, one after the other."""
CONVERSATIONS: Final = 4
POSTS: Final = 6
"""Messages that one child posts."""
ANSWER: Final = "It is done. " * 40


@attrs.frozen
class Life:
    """What one child does."""

    store: str
    """A path, or where a PostgreSQL database is."""
    effects: str
    """The file in which tools note what they do."""
    number: int
    seed: int
    is_last: bool = False


def store_of(life: Life) -> ConversationStore:
    """Return the store of a child."""
    if not life.store.endswith(".db"):
        from trio_sagents.persistence.postgres import PostgresStore

        return PostgresStore(life.store)
    return SqliteStore(life.store, synchronous="NORMAL")


def agent_of(life: Life) -> Agent:
    """Return an agent that makes two rounds of calls for each message, and then answers at length."""

    async def work(amount: int, context: ToolContext) -> str:
        """Work."""
        with Path(life.effects).open("a", encoding="ascii") as file:  # one write, which a kill cannot tear
            file.write(f"{context.idempotency_key}\n")
        await trio.sleep(0.002)
        return f"worked {amount}"

    def reply(request: Any) -> Any:
        begin = max(
            place for place, message in enumerate(request.messages) if message.role == "user" and "from_tool" not in message.metadata
        )
        rounds = sum(bool(message.calls) for message in request.messages[begin:])
        return [Call("work", amount=rounds), Call("work", amount=10 + rounds)] if rounds < 2 else ANSWER

    return Agent(model=ScriptedModel(reply, chunk_size=32, chunk_interval=0.0005), tools=[Tool.of(work)])


async def live(life: Life, pipe: int) -> None:
    """Post messages, and note each that is acknowledged; the last child also notes how each message of all children was answered."""
    policy = SessionPolicy(after_crash="continue", max_recoveries=1000, draft_interval=0.01)
    config = SessionConfig(factory_router=SingleFactoryRouter(agent_of(life)), store=store_of(life), policy=policy)
    async with open_sessions(config, recover=True) as sessions:
        if life.is_last:
            await look(sessions, life.number, pipe)
            return
        async with trio.open_nursery() as nursery:
            for number in range(POSTS):
                nursery.start_soon(post, sessions, f"c{number % CONVERSATIONS}", f"{life.number}-{number}", pipe)
        await trio.sleep_forever()


async def post(sessions: Sessions, name: str, message_id: str, pipe: int) -> None:
    """Post one message, and note that it was acknowledged."""
    await sessions.post(name, f"do {message_id}", message_id=message_id)
    os.write(pipe, f"{name} {message_id}\n".encode())


async def look(sessions: Sessions, lives: int, pipe: int) -> None:
    """Wait until everything is answered, and note how."""
    while sessions.statistics().running or [item async for item in _unfinished(sessions)]:
        await trio.sleep(0.02)
    for number in range(lives):
        for place in range(POSTS):
            name, message_id = f"c{place % CONVERSATIONS}", f"{number}-{place}"
            receipt = await sessions.post(name, f"do {message_id}", message_id=message_id)
            outcome = await receipt.wait()
            how = "answered" if isinstance(outcome, Completed) and outcome.message.text.endswith("done. ") else repr(outcome)[:200]
            os.write(pipe, f"{name} {message_id} {'again' if receipt.duplicate else 'new'} {how}\n".encode())


async def _unfinished(sessions: Sessions) -> Any:
    store: Any = sessions.runtime.commits.store
    for item in (await store.store.unfinished(None, after=None, limit=100)).items:
        yield item


@attrs.define(eq=False)
class Campaign:
    """Many kills, and what they showed."""

    folder: Path
    memory: Path
    seed: int
    database: str | None = None
    """Where a PostgreSQL database is; None for files of SQLite."""
    kills: int = 0
    acknowledged: int = 0
    violations: list[str] = attrs.field(factory=list)

    def run(self, kills: int) -> None:
        """Kill this many children, some on each file."""
        number = 0
        while kills > 0 and len(self.violations) < 5:
            lives = min(LIVES, kills)
            place = self.memory / f"file-{number}"
            place.mkdir()
            wrong = self._live_on(place, lives, random.Random(f"{self.seed} {number}"))
            self.violations += [f"file {number} (seed {self.seed}): {what}" for what in wrong[:3]]
            if wrong:
                shutil.move(place, self.folder)
            number += 1
            kills -= lives

    def _live_on(self, place: Path, lives: int, choose: random.Random) -> list[str]:
        store = str(place / "kill.db") if self.database is None else self.database
        if self.database is not None:
            _empty(self.database)
        life = Life(store, str(place / "effects"), 0, 0)
        known: set[str] = set()
        for number in range(lives):
            lines = self._kill(attrs.evolve(life, number=number), choose)
            known.update(line for line in lines if line.count(" ") == 1)
        self.acknowledged += len(known)
        child, pipe = fork(lambda writing: trio.run(live, attrs.evolve(life, number=lives, is_last=True), writing))
        try:
            lines = read_all(pipe, 4 * PATIENCE)
        except TimeoutError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return ["the last process hung: not everything was answered"]
        _, status = os.waitpid(child, 0)
        if status:
            return [f"the last process failed, with {os.waitstatus_to_exitcode(status)}"]
        return [*_unanswered(known, lines), *_doubled(Path(life.effects))]

    def _kill(self, life: Life, choose: random.Random) -> list[str]:
        child, pipe = fork(lambda writing: trio.run(live, life, writing))
        select.select([pipe], [], [], PATIENCE)
        time.sleep(choose.choice((choose.uniform(0.0, 0.02), choose.uniform(0.0, 0.2))))
        os.kill(child, signal.SIGKILL)
        lines = read_all(pipe)
        os.waitpid(child, 0)
        self.kills += 1
        return lines


def _unanswered(known: set[str], lines: list[str]) -> list[str]:
    """Return what is wrong with the answers to the messages that were acknowledged."""
    told = {" ".join(line.split(" ", 2)[:2]): line.split(" ", 2)[2] for line in lines}
    wrong = [message for message in sorted(known) if told.get(message) != "again answered"]
    return [f"message {message} was acknowledged, and is {told.get(message)}" for message in wrong]


def _doubled(effects: Path) -> list[str]:
    """Return the calls that ran twice."""
    keys = effects.read_text(encoding="ascii").split() if effects.exists() else []
    return [f"call {key} ran {keys.count(key)} times" for key in sorted(set(keys)) if keys.count(key) > 1]


def _empty(database: str) -> None:
    import psycopg

    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'trio_sagents%' AND schemaname = current_schema()")
        for (name,) in names.fetchall():
            connection.execute(f'DROP TABLE "{name}" CASCADE')
        connection.execute("DROP SEQUENCE IF EXISTS trio_sagents_change")


def main() -> None:
    """Run from the command line; the last line on stdout is a report as JSON."""
    parser = argparse.ArgumentParser(description="Kill processes that continue what the last one left.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--folder", type=Path, required=True, help="where the files with violations go")
    parser.add_argument("--database", help="where a PostgreSQL database is; its tables of this library are dropped")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as memory:
        campaign = Campaign(given.folder, Path(memory), given.seed, given.database)
        campaign.run(given.kills)
    report = {name: getattr(campaign, name) for name in ("kills", "acknowledged", "violations")}
    print(json.dumps({**report, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    main()

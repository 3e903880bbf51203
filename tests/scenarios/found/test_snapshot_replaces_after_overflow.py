"""Found by the session machine: a reader who fell behind a new agent is not told what its snapshot replaces."""

from trio_sagents import Agent, SessionConfig, SessionPolicy, SingleFactoryRouter, Snapshot, open_sessions
from trio_sagents.testing import ScriptedModel


async def test_snapshot_replaces_the_last_place_when_the_batch_overflowed() -> None:
    """The first snapshot of another agent names the last place the reader has seen, however late it reads."""
    agent = Agent(model=ScriptedModel(lambda _: "one two three four five"))
    config = SessionConfig(factory_router=SingleFactoryRouter(agent), policy=SessionPolicy(subscriber_events=3))
    async with open_sessions(config) as sessions, sessions.open_subscriber() as reader:
        await sessions.ensure_running("a", reader)
        await reader.__anext__()
        await sessions.stop("a")
        last = await reader.__anext__()
        receipt = await sessions.post("a", "hello")
        await receipt.wait()
        envelope = await reader.__anext__()

    assert isinstance(envelope.event, Snapshot)
    assert last.cursor == envelope.event.replaces

"""What a type checker must refuse: each line that is marked, and no other."""

from typing import assert_never

from trio_sagents import (
    Agent,
    AgentHandle,
    Completed,
    Envelope,
    Receipt,
    SessionConfig,
    SessionPolicy,
    Sessions,
    SingleFactoryRouter,
    SqliteStore,
    TextDelta,
    TurnOutcome,
    open_sessions,
)


class NoModel:
    name = "none"


class SyncRouter:
    def resolve(self, scope: object, conversation_id: str, request_opts: object) -> tuple[object, int]:
        return self, 3


agent = Agent(model=NoModel())  # error: arg-type
Agent(NoModel())  # error: call-arg, arg-type
SessionConfig()  # error: call-arg
SessionConfig(factory_router=SyncRouter())  # error: arg-type
SessionConfig(factory_router=SingleFactoryRouter(agent), store=3)  # error: arg-type
SessionConfig(factory_router=SingleFactoryRouter(agent), inactivity_timeout=None)  # error: arg-type
SessionPolicy(grace="long")  # error: call-arg
SqliteStore("a.db", synchronous="OFF")  # error: arg-type
SingleFactoryRouter("agent")  # error: arg-type


async def use(sessions: Sessions, handle: AgentHandle, envelope: Envelope) -> None:
    await sessions.post("1", 3)  # error: arg-type
    await sessions.post("1", "Hello", overlap="later")  # error: arg-type
    await sessions.start(1)  # error: arg-type
    receipt = await sessions.post("1", "Hello")
    receipt.message_id = "x"  # error: misc
    text: str = await receipt.wait()  # error: assignment
    print(text)
    with sessions.watch("1"):  # error: attr-defined, attr-defined
        pass
    handle.stop(grace_period="long")  # error: arg-type, unused-coroutine
    envelope.seq = 3  # error: misc
    if isinstance(envelope.event, TextDelta):
        print(envelope.event.message)  # error: attr-defined
    with open_sessions(SessionConfig(factory_router=SingleFactoryRouter(agent))):  # error: attr-defined, attr-defined
        pass


def say(outcome: TurnOutcome) -> str:
    match outcome:
        case Completed(message=message):
            return message.text
        case _:
            assert_never(outcome)  # error: arg-type


async def forget(receipt: Receipt) -> None:
    receipt.wait()  # error: unused-coroutine

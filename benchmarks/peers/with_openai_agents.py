"""openai-agents: `Runner` with a `SQLiteSession`."""

import asyncio
from pathlib import Path

import common
from agents import Agent, ModelResponse, RunConfig, Runner, SQLiteSession, Usage, set_tracing_disabled
from agents.models.interface import Model
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

WORD = "word "


def message(text: str) -> ResponseOutputMessage:
    part = ResponseOutputText(text=text, type="output_text", annotations=[])
    return ResponseOutputMessage(id="msg_1", content=[part], role="assistant", status="completed", type="message")


class FakeModel(Model):
    """Answers what it is told to."""

    async def get_response(self, system_instructions, input, *args, **kwargs):  # noqa: A002  # the base class calls it so
        return ModelResponse(output=[message(common.ANSWER)], usage=Usage(), response_id=None)

    async def stream_response(self, system_instructions, input, *args, **kwargs):  # noqa: A002
        said = input if isinstance(input, str) else input[-1]["content"]
        pieces = [WORD] * int(said)
        for number, piece in enumerate(pieces):
            yield ResponseTextDeltaEvent(
                content_index=0,
                delta=piece,
                item_id="msg_1",
                logprobs=[],
                output_index=0,
                sequence_number=number,
                type="response.output_text.delta",
            )
        response = Response.model_construct(
            id="resp_1", created_at=0, model="fake", object="response", output=[message("".join(pieces))], usage=None, tools=[]
        )
        yield ResponseCompletedEvent.model_construct(response=response, sequence_number=len(pieces), type="response.completed")


class OpenAIAgents:
    """A `SQLiteSession` for each conversation."""

    async def open(self, folder: Path) -> None:
        set_tracing_disabled(disabled=True)
        self.path = folder / "openai.db"
        self.agent = Agent(name="fake", model=FakeModel())
        self.config = RunConfig(tracing_disabled=True)
        self.kept: list[SQLiteSession] = []
        self.sessions: dict[str, SQLiteSession] = {}

    def _session(self, name: str) -> SQLiteSession:
        if name not in self.sessions:
            self.sessions[name] = SQLiteSession(name, self.path)
        return self.sessions[name]

    async def seed(self, name: str, messages: int) -> None:
        said = [{"role": "assistant" if number % 2 else "user", "content": common.ANSWER} for number in range(messages)]
        await self._session(name).add_items(said)

    async def turn(self, name: str) -> None:
        await Runner.run(self.agent, common.QUESTION, session=self._session(name), run_config=self.config)

    async def stream(self, name: str, tokens: int) -> int:
        run = Runner.run_streamed(self.agent, str(tokens), session=self._session(name), run_config=self.config)
        return len([None async for event in run.stream_events() if event.type == "raw_response_event"])

    async def keep(self, name: str) -> None:
        session = SQLiteSession(name)  # in memory
        await Runner.run(self.agent, common.QUESTION, session=session, run_config=self.config)
        self.kept.append(session)

    async def close(self) -> None:
        for session in (*self.kept, *self.sessions.values()):
            session.close()


common.main(OpenAIAgents(), lambda measure: asyncio.run(measure()))

"""langgraph: a graph of one node, compiled with its checkpointer for SQLite."""

import asyncio
from pathlib import Path

import common
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, MessagesState, StateGraph

WORD = "word "


class FakeModel(BaseChatModel):
    """Answers what it is told to."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage(common.ANSWER))])

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        said = messages[-1].content
        pieces = [common.ANSWER] if said == common.QUESTION else [WORD] * int(said)
        for piece in pieces:
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager:
                await run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk


def graph_of(saver):
    model = FakeModel()

    async def answer(state: MessagesState):
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


def thread(name: str):
    return {"configurable": {"thread_id": name}}


class LangGraph:
    """A thread for each conversation."""

    async def open(self, folder: Path) -> None:
        self.context = AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db"))
        self.graph = graph_of(await self.context.__aenter__())
        self.in_memory = graph_of(InMemorySaver())

    async def seed(self, name: str, messages: int) -> None:
        said = [AIMessage(common.ANSWER) if number % 2 else HumanMessage(common.ANSWER) for number in range(messages)]
        await self.graph.aupdate_state(thread(name), {"messages": said}, as_node="answer")

    async def turn(self, name: str) -> None:
        await self.graph.ainvoke({"messages": [HumanMessage(common.QUESTION)]}, thread(name))

    async def stream(self, name: str, tokens: int) -> int:
        asked = {"messages": [HumanMessage(str(tokens))]}
        return len([None async for _ in self.graph.astream(asked, thread(name), stream_mode="messages")])

    async def keep(self, name: str) -> None:
        await self.in_memory.ainvoke({"messages": [HumanMessage(common.QUESTION)]}, thread(name))

    async def close(self) -> None:
        await self.context.__aexit__(None, None, None)


common.main(LangGraph(), lambda measure: asyncio.run(measure()))

"""Marked secrets in every place where a host may have one, and a search for them in everything that the library writes or raises.

`ALLOWED` declares the only places where each may be found: a tool's arguments are in the transcript, the words of a host's own error
are in the log and in what is raised to the host. Everything else is a leak.
"""

import base64
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anthropic
import attrs
import openai
import pytest
import trio

from tests.support.scenarios import (
    DictRows,
    DictStates,
    FaultyStore,
    ask,
    make_agent,
    opened,
    read_all,
)
from trio_sagents import (
    AGENTS_TOPIC,
    Agent,
    ChainError,
    Commit,
    Envelope,
    Failed,
    PersistContext,
    RetryPolicy,
    SagentsError,
    SameScope,
    SessionConfig,
    SessionOpts,
    SessionPolicy,
    Sessions,
    SqliteStore,
    State,
    StatusChanged,
    Subscriber,
    ToolContext,
    TurnEnded,
    UserMessage,
    envelope_to_dict,
    open_sessions,
)
from trio_sagents.data.event_wire import error_to_dict
from trio_sagents.models import AnthropicModel, OpenAIModel
from trio_sagents.testing import Call, Hang, ScriptedModel
from trio_sagents.testing.providers import (
    Exchange,
    Reply,
    anthropic_error,
    anthropic_reply,
    call_deltas,
    error_reply,
    open_provider,
    openai_reply,
    sse,
    text,
    tool_use,
)

NAMES: Final = (
    "scope", "request_opts", "app_internal", "config", "api_key", "header", "system_prompt", "arguments", "result", "tool_error",
    "model_error", "router_error", "factory_error", "store_error", "authorizer_error", "preprocessor_error", "rows_error", "user", "seen",
    "environment",
)  # fmt: skip


def secret(name: str) -> str:
    """Return the marked secret of a place, a word that occurs nowhere else."""
    return f"Zq7{name.replace('_', '')}X{sum(name.encode()):04d}kV"


SINKS: Final = ("log", "traceback", "event", "debug event", "file", "presence", "raised", "raised, as a browser sees it", "repr", "output")
SHOWN: Final = {"event", "debug event", "file"}
HOSTS: Final = {"raised", "traceback"}
ALLOWED: Final[Mapping[str, set[str]]] = {
    # The messages belong to the conversation: its viewers see them, and its file holds them.
    "arguments": {*SHOWN, "traceback"},  # the tool that fails puts its arguments into its own words
    "result": SHOWN,
    "tool_error": {*SHOWN, "traceback"},  # the model reads it, so do people, and the host reads it in its log
    "user": SHOWN,
    "seen": {"debug event", "file", "event"},
    "system_prompt": {"debug event"},  # developers see the exact request that a model gets; the channel needs a permission of its own
    # A host's own errors are for the host: it gets them raised, and has the traceback in its log. Viewers get "internal error".
    "model_error": HOSTS,
    "router_error": HOSTS,
    "factory_error": HOSTS,
    "store_error": HOSTS,
    "authorizer_error": HOSTS,
    "preprocessor_error": HOSTS,
    "rows_error": HOSTS,
    # Nowhere at all: scope, request_opts, app_internal, config, api_key, header, environment.
}


@attrs.frozen
class Login:
    """A scope as hosts make them: its repr tells everything."""

    user_id: str
    token: str = secret("scope")


@attrs.frozen
class Config:
    """A factory's config, made of options."""

    scope: Any
    password: str
    database: str = secret("config")


@attrs.define(eq=False)
class Findings:
    """All that came out, by sink."""

    texts: dict[str, list[str]] = attrs.field(factory=lambda: {sink: [] for sink in SINKS})

    def put(self, sink: str, *values: object) -> None:
        """Keep what came out."""
        self.texts[sink].extend(str(value) for value in values)

    def error(self, exc: BaseException) -> None:
        """Keep all that an error tells: to the host, and to a browser through the host."""
        self.put("raised", *(f"{cause!s} {cause!r}" for cause in _chain(exc)))
        if isinstance(exc, SagentsError):
            self.put("raised, as a browser sees it", json.dumps(error_to_dict(exc)))

    def heard(self, envelope: Envelope) -> None:
        """Keep everything that an event contains."""
        sink = "event" if envelope.channel == "main" else "debug event"
        self.put(sink, json.dumps(envelope_to_dict(envelope), ensure_ascii=False))

    def leaks(self) -> set[tuple[str, str]]:
        """Return every (secret, sink) that is not declared."""
        whole = {sink: "\n".join(texts) for sink, texts in self.texts.items()}
        found: set[tuple[str, str]] = set()
        for name in NAMES:
            word = secret(name)
            forms = {word, word.lower(), word[::-1], word.encode().hex(), base64.b64encode(word.encode()).decode()[:-4]}
            for sink, everything in whole.items():
                if sink not in ALLOWED.get(name, set()) and any(form in everything for form in forms):
                    found.add((name, sink))
        return found


def _chain(exc: BaseException) -> list[BaseException]:
    """Return an error and what a traceback prints above it."""
    chain = [exc]
    while True:
        last = chain[-1]
        following = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if following is None or following in chain:
            return chain
        chain.append(following)


# ── a host with secrets everywhere ────────────────────────────────────────────────────────────────────────────────────


@attrs.define(eq=False)
class Host:
    """A host: its parts fail as a story wants it."""

    path: Path
    model: Any
    tools: Any = ()
    fails: set[str] = attrs.field(factory=set)
    """Which of its parts raise."""
    findings: Findings = attrs.field(factory=Findings)

    def check(self, part: str) -> None:
        """Raise the error of a part, with its secret inside, if that part is to fail."""
        if part in self.fails:
            raise RuntimeError(f"cannot connect: password={secret(f'{part}_error')}")

    async def resolve(self, scope: Any, conversation_id: str, request_opts: Any) -> Any:
        """Route."""
        self.check("router")
        config = Config(scope, request_opts["password"])
        return config if "routed" in self.fails else (self, config)

    async def create_agent(self, agent_id: str, config: Any) -> Any:
        """Build."""
        self.check("factory")
        if "built" in self.fails:
            return config
        prompt = f"Never tell anybody {secret('system_prompt')}."
        agent = Agent(model=self.model, tools=self.tools, system_prompt=prompt, retry=RetryPolicy(attempts=1))
        override = {"message_preprocessor": self.preprocess}
        return agent, SessionOpts(supervisor_opts=override, database_url=secret("app_internal"))

    async def preprocess(self, message: UserMessage, scope: Any) -> Any:
        """Add what people are not to see."""
        self.check("preprocessor")
        return UserMessage(f"{message.text} {secret('seen')}"), message

    async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
        """Allow all."""
        self.check("authorizer")
        return True

    @asynccontextmanager
    async def sessions(self, *, own_authorizer: bool = False) -> AsyncIterator[Sessions]:
        """Open the house, and collect what it tells to both channels, its presence and the reprs of what it hands out."""
        store = FailingStore(self, SqliteStore(self.path, synchronous="NORMAL"))
        authorizer: Any = self if own_authorizer else SameScope(lambda scope: None if scope is None else scope.user_id)
        config = SessionConfig(factory_router=self, store=store, authorizer=authorizer, policy=SessionPolicy(start_timeout=5))
        async with open_sessions(config) as sessions, sessions.open_subscriber(scope=Login("alice")) as subscriber:
            for channel in ("main", "debug"):
                await subscriber.subscribe("c", channel=channel)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, subscriber)
                yield sessions
                await trio.testing.wait_all_tasks_blocked()
                self.findings.put("presence", json.dumps(dict(await sessions.presence.list(AGENTS_TOPIC)), default=str))
                self.findings.put("repr", repr(sessions.statistics()))
                nursery.cancel_scope.cancel()
            self.read_files()
        self.read_files()

    async def _listen(self, subscriber: Subscriber) -> None:
        async for envelope in subscriber:
            self.findings.heard(envelope)

    def read_files(self) -> None:
        """Read the database, its log, and whatever else lies beside it."""
        for path in self.path.parent.iterdir():
            self.findings.put("file", path.read_bytes().decode(errors="replace"))

    async def talk(self, sessions: Sessions, text: str = "") -> Any:
        """Post with a secret, and wait for the outcome. Errors are kept."""
        try:
            receipt = await sessions.post(
                "c", text or secret("user"), scope=Login("alice"), request_opts={"password": secret("request_opts")}
            )
            handle = await sessions.get("c", scope=Login("alice"))
            info = await handle.info()
            self.findings.put("repr", receipt, repr(handle), repr(info))
            outcome = await receipt.wait()
        except Exception as exc:
            self.findings.error(exc)
            return exc
        if (error := getattr(outcome, "error", None)) is not None:
            self.findings.put("raised", *(f"{cause!s} {cause!r}" for cause in _chain(error)))
            self.findings.put("raised, as a browser sees it", json.dumps(error_to_dict(error)))
        return outcome


class FailingStore:
    """A host's store around the real one. Its errors contain its password."""

    def __init__(self, host: Host, inner: SqliteStore) -> None:
        self.host = host
        self.inner = inner
        self.history, self.conversations, self.delete, self.open = inner.history, inner.conversations, inner.delete, inner.open

    async def load(self, scope: Any, conversation_id: str) -> Any:
        """Load, or fail."""
        if "load" in self.host.fails:
            raise RuntimeError(f"postgres://admin:{secret('store_error')}@db/chat: no route, for {scope!r}"[:60])
        return await self.inner.load(scope, conversation_id)

    async def commit(self, scope: Any, commit: Commit) -> int:
        """Commit, or fail."""
        if "commit" in self.host.fails or ("second commit" in self.host.fails and commit.revision > 1):
            raise RuntimeError(f"postgres://admin:{secret('store_error')}@db/chat: gone")
        return await self.inner.commit(scope, commit)


Story = Callable[[Host], Any]


async def look(path: str, context: ToolContext) -> str:
    """Look."""
    assert context.scope.token
    return f"{secret('result')} for {path}"


async def fail(path: str) -> str:
    """Fail."""
    raise OSError(f"no such file: {path}, {secret('tool_error')}")


async def stubborn(path: str) -> str:
    """Fail when cancelled."""
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("cleanup failed")
    return path


ASKING: Final = Call("look", path=secret("arguments"))


async def happy(host: Host) -> None:
    """A turn with a tool, a second turn, and a restart."""
    host.model, host.tools = ScriptedModel([ASKING, "done", "more"]), [look]
    async with host.sessions() as sessions:
        await host.talk(sessions)
        await host.talk(sessions, "and then?")
        await sessions.stop("c", scope=Login("alice"))
        await host.talk(sessions, "are you back?")


async def failing_tools(host: Host) -> None:
    """Tools that fail, are unknown, or get wrong arguments."""
    calls = [Call("fail", path=secret("arguments")), Call("nobody", path=secret("arguments")), Call("look", nonsense=secret("arguments"))]
    host.model, host.tools = ScriptedModel([calls, "done"]), [look, fail]
    async with host.sessions() as sessions:
        await host.talk(sessions)


async def cancelled_tools(host: Host) -> None:
    """A turn is cut while a tool runs, which then fails: that is logged."""
    host.model, host.tools = ScriptedModel([Call("stubborn", path=secret("arguments")), "done"]), [stubborn]
    async with host.sessions() as sessions, trio.open_nursery() as nursery:
        nursery.start_soon(host.talk, sessions)
        while not any("executing" in entry for entry in host.findings.texts["event"]):
            await trio.sleep(0.01)
        await sessions.cancel_turn("c", scope=Login("alice"))


async def crash(host: Host) -> None:
    """The agent crashes in the middle of a turn, is restarted, and stopped in the middle of a turn."""
    host.model = ScriptedModel([["said", Bang(f"broken: {secret('model_error')}")], [ASKING], Hang()])
    host.tools = [look]
    async with host.sessions() as sessions:
        await host.talk(sessions)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.talk, sessions, "again")
            while sum("TurnStarted" in entry for entry in host.findings.texts["event"]) < 2:
                await trio.sleep(0.01)
            await sessions.stop("c", scope=Login("alice"))


class Bang(BaseException):
    """Not an Exception: nobody contains it but the agent boundary."""


async def failing_model(host: Host) -> None:
    """An adapter that raises what it likes."""
    host.model = ScriptedModel([["said", RuntimeError(f"401 for key {secret('model_error')}")], "fine"])
    async with host.sessions() as sessions:
        await host.talk(sessions)
        await host.talk(sessions, "again")


def failing(*parts: str, own_authorizer: bool = False) -> Story:
    """Return a story in which parts of the host fail, and then work again."""

    async def story(host: Host) -> None:
        host.model, host.tools = ScriptedModel(lambda request: "fine"), [look]
        async with host.sessions(own_authorizer=own_authorizer) as sessions:
            for fails in (set(parts), set(), set(parts)):
                host.fails = set(fails)
                outcome = await host.talk(sessions)
                assert fails or not isinstance(outcome, Exception), outcome
                host.fails = set()
                await sessions.stop("c", scope=Login("alice"))

    return story


STORIES: Final[Mapping[str, Story]] = {
    "happy": happy,
    "failing tools": failing_tools,
    "cancelled tools": cancelled_tools,
    "crash": crash,
    "failing model": failing_model,
    "failing router": failing("router"),
    "failing factory": failing("factory"),
    "router that returns a config": failing("routed"),
    "factory that returns a config": failing("built"),
    "failing load": failing("load"),
    "failing commit": failing("commit"),
    "failing second commit": failing("second commit"),
    "failing preprocessor": failing("preprocessor"),
    "failing authorizer": failing("authorizer", own_authorizer=True),
}


def collect_logs(findings: Findings, records: list[logging.LogRecord]) -> None:
    """Keep the lines of the log, and apart from them the tracebacks, as the standard formatter prints them."""
    for record in records:
        findings.put("log", record.getMessage(), *(repr(value) for value in (record.args or ())))
        if record.exc_info and record.exc_info[1] is not None:
            findings.put("traceback", "".join(traceback.format_exception(record.exc_info[1])))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Host:
    """Return a host whose environment is full of keys."""
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "DATABASE_URL"):
        monkeypatch.setenv(name, secret("environment"))
    caplog.set_level(logging.DEBUG)
    (tmp_path / "db").mkdir()
    return Host(tmp_path / "db" / "chat.db", None)


@pytest.mark.parametrize("story", STORIES)
async def test_secrets_stay_where_they_are(
    story: str, host: Host, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever happens, a secret is found only in the places that are declared for it."""
    await STORIES[story](host)
    collect_logs(host.findings, caplog.records)
    host.findings.put("output", *capfd.readouterr())

    assert set() == host.findings.leaks()
    assert len(host.findings.texts["file"]) >= 2
    assert host.findings.texts["event"]


async def test_oracle_sees(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """The search works: the declared places hold their secrets, and a planted leak is named."""
    await happy(host)
    findings = host.findings
    everywhere = "\n".join(findings.texts["event"])
    assert secret("arguments") in everywhere
    assert secret("user") in everywhere
    assert any(secret("arguments") in entry for entry in findings.texts["file"])
    assert any(secret("seen") in entry for entry in findings.texts["file"])
    findings.put("log", f"started with {Login('alice')!r}")
    findings.put("event", base64.b64encode(secret("api_key").encode()).decode())

    assert {("scope", "log"), ("api_key", "event")} == findings.leaks()


# ── real adapters ─────────────────────────────────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def _adapter(kind: str, url: str) -> AsyncIterator[Any]:
    """Give a real adapter with a key, or with a host's client that has secrets in its headers."""
    key: Any = {"api_key": secret("api_key")}
    headers = {"x-gateway-token": secret("header"), "cookie": f"session={secret('header')}"}
    match kind:
        case "anthropic":
            yield AnthropicModel("claude", base_url=url, **key)
        case "openai":
            yield OpenAIModel("gpt", url + "/v1", **key)
        case "anthropic client":
            async with anthropic.AsyncAnthropic(base_url=url, default_headers=headers, max_retries=0, **key) as client:
                yield AnthropicModel("claude", client)
        case _:
            async with openai.AsyncOpenAI(base_url=url + "/v1", default_headers=headers, max_retries=0, **key) as client:
                yield OpenAIModel("gpt", client=client)


def _echoing(exchange: Exchange) -> str:
    """Return the words of a provider that repeats what it was sent."""
    return " ".join(
        f"{name}: {value}" for name, value in exchange.headers.items() if secret("api_key") in value or secret("header") in value
    )


def _answers(kind: str, how: str) -> Callable[[Exchange], Reply]:
    is_anthropic = kind.startswith("anthropic")
    asked: list[int] = []

    def respond(exchange: Exchange) -> Reply:
        asked.append(1)
        words = f"invalid credentials: {_echoing(exchange)}"
        body = (
            anthropic_error("authentication_error", words) if is_anthropic else {"error": {"type": "auth", "message": words, "code": "401"}}
        )
        if how == "refused":
            return error_reply(401, body, www_authenticate=words)
        if how == "overloaded":
            return error_reply(529, body)
        if how == "in mid-stream":
            reply = anthropic_reply(text("so far")) if is_anthropic else openai_reply({"content": "so far"})
            return reply.until(3 if is_anthropic else 2, sse(body, "error" if is_anthropic else None))
        if how == "as a page":
            return Reply([f"<html>{words}</html>".encode()], 502, {"content-type": "text/html"})
        if how == "as text":
            return Reply([words.encode()], 400, {"content-type": "text/plain"})
        if len(asked) > 1:
            return anthropic_reply(text("done")) if is_anthropic else openai_reply({"content": "done"})
        arguments = json.dumps({"path": secret("arguments")})
        if is_anthropic:
            return anthropic_reply(tool_use("c1", "look", arguments), stop_reason="tool_use")
        return openai_reply(*call_deltas(0, "c1", "look", arguments), finish_reason="tool_calls")

    return respond


@pytest.mark.parametrize("how", ["well", "refused", "overloaded", "in mid-stream", "as a page", "as text"])
@pytest.mark.parametrize("kind", ["anthropic", "anthropic client", "openai", "openai client"])
async def test_keys_of_real_adapters(
    kind: str, how: str, host: Host, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Keys and headers go to the provider and nowhere else, even if the provider repeats them in its errors."""
    async with open_provider() as provider, _adapter(kind, provider.url) as model:
        provider.respond = _answers(kind, how)
        host.model, host.tools = model, [look]
        async with host.sessions() as sessions:
            await host.talk(sessions)
        assert any(secret("api_key") in str(exchange.headers) for exchange in provider.exchanges)
        assert ("client" in kind) == any(secret("header") in str(exchange.headers) for exchange in provider.exchanges)
    host.findings.put("repr", repr(host.model), repr(Agent(model=host.model)))
    # The SDKs' own debug records are theirs: this test is about what the library writes.
    collect_logs(host.findings, [record for record in caplog.records if record.name.startswith("trio_sagents")])
    host.findings.put("output", *capfd.readouterr())

    assert set() == host.findings.leaks()


async def test_host_stores_of_two_kinds(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    """A transcript that cannot be saved is logged with its error, and no viewer gets the error's text."""
    rows = DictRows()
    rows.faults.every["save_message"] = RuntimeError(f"s3://{secret('rows_error')}/rows")
    rows.faults.every["update_tool_status"] = RuntimeError(f"s3://{secret('rows_error')}/rows")
    host.model, host.tools = ScriptedModel([ASKING, "done"]), [look]
    config = SessionConfig(
        factory_router=host,
        agent_persistence=DictStates(),
        display_message_persistence=rows,
        authorizer=SameScope(lambda scope: scope.user_id),
    )
    async with open_sessions(config) as sessions:
        async with sessions.watch("c", scope=Login("alice"), request_opts={"password": secret("request_opts")}) as watch:
            await host.talk(sessions)
            for envelope in await read_all(watch):
                host.findings.heard(envelope)
    collect_logs(host.findings, caplog.records)

    assert set() == host.findings.leaks()
    assert any(secret("rows_error") in entry for entry in host.findings.texts["traceback"])


class _Reprs:
    """What of the library holds a scope, or an agent, and may be logged by a host."""

    @staticmethod
    def of_values() -> dict[str, object]:
        """Return values that are handed to a host's functions."""
        login = Login("alice")
        return {
            "ToolContext": ToolContext("c", login, "call", "key", State(), lambda event: None),
            "PersistContext": PersistContext("a", "c", "on_step", login, "alice", 1, 1),
            "Commit": Commit(conversation_id="c", agent_id="a", owner="alice", epoch=1, revision=1, lifecycle="on_step", actor=login),
            "SessionOpts": SessionOpts(database_url=secret("app_internal")),
        }


@pytest.mark.parametrize("name", ["ToolContext", "PersistContext", "Commit", "SessionOpts"])
def test_repr_of_a_value(name: str) -> None:
    """What a host's functions are given does not show its scope, or the host's options, when it is logged."""
    shown = repr(_Reprs.of_values()[name])

    assert secret("scope") not in shown
    assert secret("app_internal") not in shown


@pytest.mark.parametrize("name", ["Subscriber", "Watch", "Sessions", "AgentHandle", "Receipt", "SessionInfo", "AgentInfo"])
async def test_repr_of_what_lives(name: str, host: Host) -> None:
    """What a caller holds tells in its repr what it is, in a line: no secrets, nothing of other conversations."""
    host.model = ScriptedModel(["fine"])
    async with host.sessions() as sessions:
        await host.talk(sessions)
        info = await sessions.start("c", scope=Login("alice"))
        receipt = await sessions.post("c", secret("user"), scope=Login("alice"))
        async with sessions.open_subscriber(scope=Login("alice")) as subscriber, sessions.watch("c", scope=Login("alice")) as watch:
            held = {
                "Subscriber": subscriber,
                "Watch": watch,
                "Sessions": sessions,
                "AgentHandle": info.agent,
                "Receipt": receipt,
                "SessionInfo": info,
                "AgentInfo": await info.agent.info(),
            }
            shown = repr(held[name])

    assert [] == [name for name in NAMES if secret(name) in shown]
    assert len(shown) < 1000


async def test_text_of_a_store_error_stays_on_the_server(autojump_clock: Any) -> None:
    """R8, S9: what a host's store raises reaches no browser; the host's own code finds it as the cause."""
    store = FaultyStore()
    async with opened(make_agent("one", "two"), store=store) as sessions, sessions.watch("c") as watch:
        store.faults.fail("commit", 2, OSError("password=CANARY"))
        outcome = await ask(sessions)
        envelopes = await read_all(watch)

        assert isinstance(outcome, Failed)
        assert any(isinstance(envelope.event, ChainError) for envelope in envelopes)
        assert "CANARY" not in json.dumps([envelope_to_dict(envelope) for envelope in envelopes])
        assert "CANARY" in str(outcome.error.__cause__)


async def test_text_of_a_tools_base_exception_stays_on_the_server(autojump_clock: Any) -> None:
    """R27, S9: the words of a crash reach no browser, in no event."""

    class Base(BaseException):
        pass

    async def tool() -> str:
        """Crash."""
        raise Base("CANARY")

    async with opened(make_agent(Call("tool"), tools=[tool])) as sessions, sessions.watch("c") as watch:
        await ask(sessions)
        await trio.sleep(1)
        envelopes = await read_all(watch)

        assert any(isinstance(envelope.event, StatusChanged) for envelope in envelopes)
        assert any(isinstance(envelope.event, TurnEnded) for envelope in envelopes)
        assert "CANARY" not in json.dumps([envelope_to_dict(envelope) for envelope in envelopes])

"""Who is kept out: the security matrix, as a table. Each guard that is taken away lets at least one attack through, and a test says so."""

import json
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
import trio

from tests.apps.web._client import HOST, ORIGIN, Client, Ended
from tests.apps.web._kit import World, as_user, expiring, open_world
from trio_sagents import SameScope
from trio_sagents.web import Bridge, Visitor, WebPolicy, _bridge, _request, _shared

BEARER: Final = {"authorization": "Bearer alice"}
COOKIE: Final = as_user("alice")
POLICY: Final = WebPolicy(
    hosts=[HOST, "chat.example.com"], origins=["https://chat.example.com:8443"], event_interval=0, max_body_bytes=1000, max_frame_bytes=1000
)
MESSAGE: Final = {"message_id": "m-1", "text": "attack"}


@attrs.frozen
class Attack:
    """A request that must be refused, and how."""

    name: str
    status: int
    headers: dict[str, str]
    via: tuple[str, ...] = ("post", "socket", "stream")
    """By which ways it is tried."""
    path: str = "/conversations/42"


def origin(name: str, value: str) -> Attack:
    return Attack(f"origin {name}", 403, {**COOKIE, "origin": value}, ("post", "socket", "stream", "read"))


ATTACKS: Final = (
    Attack("origin none", 403, COOKIE),
    origin("null", "null"),
    origin("empty", ""),
    origin("foreign", "https://evil.example"),
    origin("prefix", f"{ORIGIN}.evil.example"),
    origin("suffix", "http://evil-localhost:8000"),
    origin("port", "http://localhost:8001"),
    origin("no port", "http://localhost"),
    origin("scheme", "https://localhost:8000"),
    origin("case", "http://LOCALHOST:8000"),
    origin("userinfo", "http://localhost:8000@evil.example"),
    origin("userinfo of ours", "http://evil@localhost:8000"),
    origin("slash", f"{ORIGIN}/"),
    origin("path", f"{ORIGIN}/evil"),
    origin("space", f" {ORIGIN}"),
    origin("two", f"{ORIGIN} https://evil.example"),
    origin("listed, other port", "https://chat.example.com"),
    origin("listed, subdomain", "https://evil.chat.example.com:8443"),
    Attack("origin foreign, with a bearer token", 403, {**BEARER, "origin": "https://evil.example"}),
    Attack("origin none, fetched by another site", 403, {**COOKIE, "sec-fetch-site": "cross-site"}),
    Attack("origin none, fetched by a sibling", 403, {**COOKIE, "sec-fetch-site": "same-site"}),
    Attack("origin none, said to be ours", 403, {**COOKIE, "sec-fetch-site": "same-origin"}, ("post", "socket")),
    Attack("origin none, basic", 403, {**COOKIE, "authorization": "Basic YTpi"}),
    Attack("origin none, empty bearer", 403, {**COOKIE, "authorization": "Bearer "}),
    Attack("host foreign", 400, {**COOKIE, "origin": "http://evil.example", "host": "evil.example"}),
    Attack("host empty", 400, {**COOKIE, "origin": ORIGIN, "host": ""}),
    Attack("host other port", 400, {**COOKIE, "origin": "http://localhost:9", "host": "localhost:9"}),
    Attack("host prefix", 400, {**COOKIE, "origin": ORIGIN, "host": "localhost:8000.evil.example"}),
    Attack("host userinfo", 400, {**COOKIE, "origin": ORIGIN, "host": "localhost:8000@evil.example"}),
    Attack("host dot", 400, {**COOKIE, "origin": "http://chat.example.com.", "host": "chat.example.com."}),
    Attack("host address", 400, {**COOKIE, "origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"}),
    Attack("host ipv6", 400, {**COOKIE, "origin": "http://[::1]:8000", "host": "[::1]:8000"}),
    Attack("nobody", 401, {"origin": ORIGIN}),
    Attack("unknown cookie", 401, {**as_user("mallory"), "origin": ORIGIN}),
    Attack("unknown token", 401, {"authorization": "Bearer mallory"}),
    Attack("expired", 401, {**as_user("expired"), "origin": ORIGIN}),
    Attack("csrf none", 403, {**COOKIE, "origin": ORIGIN, "x-csrf-token": ""}, ("post",)),
    Attack("csrf wrong", 403, {**COOKIE, "origin": ORIGIN, "x-csrf-token": "0" * 64}, ("post",)),
    Attack("csrf long", 403, {**COOKIE, "origin": ORIGIN, "x-csrf-token": "ä" * 10_000}, ("post",)),
    Attack("csrf of another", 403, {**COOKIE, "origin": ORIGIN, "x-csrf-token": "eve's"}, ("post",)),
    Attack("form", 415, {**COOKIE, "origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"}, ("post",)),
    Attack("text", 415, {**COOKIE, "origin": ORIGIN, "content-type": "text/plain"}, ("post",)),
    Attack("no type", 415, {**COOKIE, "origin": ORIGIN, "content-type": ""}, ("post",)),
    Attack("json suffix", 415, {**COOKIE, "origin": ORIGIN, "content-type": "application/jsonx"}, ("post",)),
    Attack("other tenant", 404, {**as_user("eve"), "origin": ORIGIN}, ("post", "stream", "command"), "/conversations/of-alice"),
    Attack("no such route", 404, {**COOKIE, "origin": ORIGIN}, ("post", "stream"), "/conversations/42/none"),
)
CASES: Final = [(attack, way) for attack in ATTACKS for way in attack.via]


@attrs.frozen
class Got:
    """What came of an attack."""

    status: int
    """200 if it was accepted."""
    is_harmless: bool
    """Whether nothing was done: no message posted, nothing shown."""


async def attack_by(world: World, attack: Attack, way: str) -> Got:
    """Try an attack by one way."""
    headers = dict(attack.headers)
    before = len((await world.sessions.history("of-alice", scope="alice")).rows)
    match way:
        case "post":
            user = "eve" if headers.get("x-csrf-token") == "eve's" or "eve" in headers.get("cookie", "") else "alice"
            token = await world.csrf(user)
            headers = {"content-type": "application/json", "x-csrf-token": token, **headers}
            if headers["x-csrf-token"] == "eve's":
                headers["x-csrf-token"] = token
            answer = await world.client.request("POST", f"{attack.path}/messages", json.dumps(MESSAGE).encode(), headers)
            status = answer.status
        case "read":
            status = (await world.client.get("/conversations/of-alice/history", headers)).status
        case "stream":
            with trio.move_on_after(1):
                async with world.client.stream(f"{attack.path}/events", headers) as stream:
                    status = stream.status
        case "socket":
            async with world.client.socket(headers=[*{"host": HOST, **headers}.items()]) as socket:
                status = socket.status or 200
        case _:  # a command on a socket of one's own
            async with world.client.socket(headers=headers) as socket:
                replies = [
                    await socket.ask(op=op, conversation_id="of-alice", message_id="m-9", text="attack", turn_id="t", interrupt_id="i")
                    for op in ("post", "history", "subscribe", "cancel", "dismiss")
                ]
                status = 404 if {"ConversationNotFound"} == {reply.get("error", {}).get("type") for reply in replies} else 200
    done = len((await world.sessions.history("of-alice", scope="alice")).rows) - before
    return Got(status, not done and not await _exists(world))


async def _exists(world: World) -> bool:
    return bool([item for item in (await world.sessions.conversations(scope="alice")).items if item.conversation_id == "42"])


async def run_matrix(**changed: Any) -> dict[str, Got]:
    """Try every attack on a bridge, and return those that were not refused as they must be."""
    accepted: dict[str, Got] = {}
    users = {"alice": "alice", "eve": "eve", "expired": expiring(-1)}
    async with open_world(policy=attrs.evolve(POLICY, **changed), visitors=users) as world:
        await (await world.sessions.post("of-alice", "secret", scope="alice")).wait()
        for attack, way in CASES:
            got = await attack_by(world, attack, way)
            if (got.status, got.is_harmless) != (attack.status, True):
                accepted[f"{attack.name}, {way}"] = got
    return accepted


async def test_attacks(autojump_clock: Any) -> None:
    """Nothing of the matrix gets in, by a POST, a WebSocket, an event stream or a command: nothing is done, and it is told so."""
    assert {} == await run_matrix()


async def test_attack_when_it_is_none(autojump_clock: Any) -> None:
    """The same requests get in when nothing is wrong with them, or the matrix would prove nothing."""
    good = (
        Attack("own origin", 200, {**COOKIE, "origin": ORIGIN}, ("post", "socket", "stream", "read")),
        Attack("no origin, reading", 200, COOKIE, ("read",)),
        Attack("listed origin", 200, {**COOKIE, "origin": "https://chat.example.com:8443"}),
        Attack("no origin, bearer", 200, BEARER),
        Attack("no origin, own page", 200, {**COOKIE, "sec-fetch-site": "same-origin"}, ("stream",)),
        Attack("host in capitals", 200, {**COOKIE, "origin": "http://LocalHost:8000", "host": "LocalHost:8000"}),
        Attack("host with any port", 200, {**COOKIE, "origin": "http://chat.example.com:1", "host": "chat.example.com:1"}),
        Attack("charset", 200, {**COOKIE, "origin": ORIGIN, "content-type": "application/json; charset=utf-8"}, ("post",)),
    )
    for attack in good:
        for way in attack.via:
            async with open_world(policy=POLICY) as world:
                await (await world.sessions.post("of-alice", "secret", scope="alice")).wait()
                assert 200 == (await attack_by(world, attack, way)).status, (attack.name, way)


GUARDS: Final[dict[str, tuple[Any, Callable[..., Any], str]]] = {
    "check_host": (_bridge, lambda request, policy: None, "host foreign, socket"),
    "check_origin": (_shared, lambda request, policy, kind: None, "origin foreign, socket"),
    "check_json": (_shared, lambda request: None, "form, post"),
    "check_csrf": (_shared, lambda request, key, secret: None, "csrf none, post"),
}
"""By guard: the module that calls it, what takes its place, and an attack that it alone keeps out."""


@pytest.mark.parametrize("guard", GUARDS)
async def test_guard_when_it_is_removed(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    """Each guard is needed: without it, an attack of the matrix is accepted."""
    caller, instead, attack = GUARDS[guard]
    monkeypatch.setattr(caller, guard, instead)

    assert 200 == (await run_matrix())[attack].status


async def test_guard_when_expiry_is_ignored(autojump_clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at the expiry, an expired visitor gets in."""
    monkeypatch.setattr(Visitor, "deadline", property(lambda visitor: float("inf")))

    assert {"expired, post", "expired, socket", "expired, stream"} <= set(await run_matrix())


async def test_guard_when_scopes_are_not_compared(autojump_clock: Any) -> None:
    """Without the comparison of owners, another tenant gets in: the bridge hands on the scope, and asks nothing itself."""
    users = {"alice": Visitor("everybody", "alice"), "eve": Visitor("everybody", "eve")}
    async with open_world(policy=POLICY, visitors=users, authorizer=SameScope()) as world:
        await (await world.sessions.post("of-alice", "secret", scope="everybody")).wait()
        answer = await world.post("/conversations/of-alice/messages", MESSAGE, "eve")

        assert 200 == answer.status


@pytest.mark.parametrize("name", sorted(_request._SINGLE))
async def test_header_when_it_comes_twice(autojump_clock: Any, name: str) -> None:
    """A header of which two readers could believe different values is refused."""
    async with open_world() as world:
        pairs = [("host", HOST), ("cookie", "token=alice"), ("origin", ORIGIN), (name, "x"), (name, "y")]

        assert 400 == (await world.client.request("GET", "/session", b"", pairs)).status
        async with world.client.socket(headers=pairs) as socket:
            assert 400 == socket.status


async def test_query_when_it_is_too_long(autojump_clock: Any) -> None:
    """A query of too many members, or of too many bytes, is refused as any other invalid request, before anybody is asked who it is."""
    async with open_world() as world:
        for query in ("&".join(["a=1"] * 101), "a" * 4097):
            assert 400 == (await world.client.get(f"/session?{query}", COOKIE)).status
            async with world.client.socket(f"/ws?{query}", COOKIE) as socket:
                assert 400 == socket.status

        assert [] == world.asked
        assert 200 == (await world.client.get("/session?" + "&".join(["a=1"] * 100), COOKIE)).status


async def test_refusal_of_another_tenant(autojump_clock: Any) -> None:
    """A conversation of somebody else answers, byte for byte, as one that is missing."""
    async with open_world() as world:
        await (await world.sessions.post("42", "secret", scope="alice")).wait()
        eve = as_user("eve")
        theirs = await world.client.get("/conversations/42/history", eve)
        missing = await world.client.get("/conversations/43/history", eve)

        assert (theirs.status, theirs.headers, theirs.body.replace(b"42", b"43")) == (missing.status, missing.headers, missing.body)
        for name, body in (("cancel", {"turn_id": "t"}), ("dismiss", {"interrupt_id": "i"})):
            got = [await world.post(f"/conversations/{number}/{name}", body, "eve") for number in ("42", "43")]
            assert (got[0].status, got[0].body.replace(b"42", b"43")) == (got[1].status, got[1].body)
        own_page = {**eve, "origin": ORIGIN}
        got = [await world.client.get(f"/conversations/{number}/events?channel=debug", own_page) for number in ("42", "43")]
        assert (got[0].status, got[0].body.replace(b"42", b"43")) == (got[1].status, got[1].body)
        async with world.client.socket(headers=eve) as socket:
            decision = {"type": "approve", "interrupt_id": "i", "call_id": "c-9", "digest": "0" * 64}
            named = {"id": "x", "turn_id": "t", "interrupt_id": "i", "decisions": [decision]}
            for op in ("history", "cancel", "resume", "dismiss", "agent", "unsubscribe"):
                frames = [await socket.ask(op=op, conversation_id=name, **named) for name in ("42", "43")]
                assert json.dumps(frames[0]).replace("42", "43") == json.dumps(frames[1])
            pending = [await socket.result(op="subscribe", conversation_id=name, start=False) for name in ("42", "43")]
            assert [{"state": "pending"}] * 2 == pending
            await (await world.sessions.post("42", "another secret", scope="alice")).wait()
            await trio.sleep(30)
            assert "secret" not in json.dumps(socket.frames)
            assert {} == await world.present()
            assert [] == [frame for frame in socket.frames if frame["op"] == "viewers"]


async def test_revoke(autojump_clock: Any) -> None:
    """All streams of a visitor end within a second, and nothing that they had sent before is carried out after."""
    async with open_world() as world:
        async with (
            world.client.socket(headers=COOKIE) as one,
            world.client.socket(headers=COOKIE) as two,
            world.client.stream("/conversations/42/events", {**COOKIE, "origin": ORIGIN}) as stream,
            world.client.socket(headers=as_user("bob")) as other,
        ):
            await one.result(op="subscribe", conversation_id="42")
            await other.until("welcome")
            world.visitors["alice"] = None
            begun = trio.current_time()
            assert 3 == world.bridge.revoke("alice")
            for number in range(5):
                one.send(op="post", conversation_id="42", message_id=f"m-{number}", text="late")
            assert {"op": "bye", "reason": "revoked", "retry_after": None} == await one.until("bye")
            assert {"op": "bye", "reason": "revoked", "retry_after": None} == await two.until("bye")
            last = {}
            while (event := await stream.event()) is not None:
                last = event
            assert "bye" == last["event"]
            assert stream.is_whole
            assert trio.current_time() - begun < 1
            for socket in (one, two):
                with pytest.raises(Ended):
                    await socket.next()
            assert {} == await other.result(op="ping")
            assert 0 == world.bridge.revoke("nobody")
        assert () == tuple((await world.sessions.conversations(scope="alice")).items)
        async with world.client.socket(headers=COOKIE) as socket:
            assert 401 == socket.status


async def test_revoke_when_it_is_being_asked_who_comes(autojump_clock: Any) -> None:
    """Who is revoked while `authenticate` still works is not let in, by a socket, a request or a stream; others are."""

    async def read_slowly(request: Any) -> str:
        user = request.cookies["token"]
        await trio.sleep(1)
        return str(user)

    statuses: dict[str, int | None] = {}
    async with open_world() as world, trio.open_nursery() as nursery:
        bridge = Bridge(world.sessions, authenticate=read_slowly)
        client = Client(bridge, nursery)

        async def by_socket(user: str) -> None:
            async with client.socket(headers=as_user(user)) as socket:
                statuses[f"{user}, socket"] = socket.status

        async def by_stream() -> None:
            async with client.stream("/conversations/42/events", {**COOKIE, "origin": ORIGIN}) as stream:
                statuses["alice, stream"] = stream.status

        async def by_request() -> None:
            statuses["alice, read"] = (await client.get("/session", COOKIE)).status

        nursery.start_soon(by_socket, "alice")
        nursery.start_soon(by_socket, "bob")
        nursery.start_soon(by_stream)
        nursery.start_soon(by_request)
        await trio.sleep(0.5)
        assert 0 == bridge.revoke("alice")
        await trio.sleep(5)

        assert {"alice, socket": 401, "bob, socket": None, "alice, stream": 401, "alice, read": 401} == statuses
        async with client.socket(headers=COOKIE) as socket:
            assert "welcome" == (await socket.next())["op"]  # who logs in again is let in
        nursery.cancel_scope.cancel()


async def test_expiry(autojump_clock: Any) -> None:
    """A visitor that expires gets the last frame within a second, also in the middle of an answer, and also one who only listens."""
    async with open_world(visitors={"alice": expiring(30)}) as world:
        begun = trio.current_time()
        async with world.client.socket(headers=COOKIE) as socket:
            assert "expired" == (await socket.until("bye"))["reason"]
            assert 29 < trio.current_time() - begun < 31
            assert 4401 == socket.code or not socket._is_over
        async with world.client.stream("/conversations/42/events", {**COOKIE, "origin": ORIGIN}) as stream:
            while (event := await stream.event()) is not None and event.get("event") != "bye":
                pass
            assert event is not None
        assert (0, 0, 0) == world.left


async def test_limits_of_connections(autojump_clock: Any) -> None:
    """One visitor has so many connections, and all visitors together have so many; a socket has so many subscriptions."""
    policy = WebPolicy(connections_per_scope=2, max_connections=3, subscriptions_per_socket=2)
    async with open_world(policy=policy) as world, world.client.socket(headers=COOKIE) as one:
        async with world.client.socket(headers=COOKIE):
            async with world.client.socket(headers=COOKIE) as third:
                assert 429 == third.status
            assert 429 == (await world.client.get("/session", COOKIE)).status
            assert 200 == (await world.client.get("/session", as_user("bob"))).status
            async with world.client.socket(headers=as_user("bob")), world.client.socket(headers=as_user("eve")) as fourth:
                assert 429 == fourth.status
        assert 200 == (await world.client.get("/session", COOKIE)).status
        for name in ("a", "b", "a"):
            await one.result(op="subscribe", conversation_id=name)
        assert "TooMany" == await one.error(op="subscribe", conversation_id="c")
        await one.result(op="unsubscribe", conversation_id="a")
        await one.result(op="subscribe", conversation_id="c")


async def test_limits_of_frames(autojump_clock: Any) -> None:
    """A frame that is too long, is no JSON, has no id, or is binary ends the socket; so do too many of them."""
    async with open_world(policy=POLICY) as world:
        for frame, code in (
            ("x" * 1001, 1009),
            ("ä" * 501, 1009),
            ("nonsense", 1008),
            ("[]", 1008),
            ('{"op": "ping"}', 1008),
            ('{"op": "ping", "id": 7}', 1008),
            ('{"op": "ping", "id": "a\\nb"}', 1008),
            ('{"op": "ping", "id": "1", "id": "2"}', 1008),
            ('{"op": "ping", "id": "1", "x": NaN}', 1008),
            ("[" * 990, 1008),
            (b"{}", 1008),
        ):
            async with world.client.socket(headers=COOKIE) as socket:
                socket.send_text(frame)
                bye = await socket.until("bye")
                assert "invalid" == bye["reason"]
                with pytest.raises(Ended):
                    await socket.next()
                assert code == socket.code, frame
        async with world.client.socket(headers=COOKIE) as socket:
            assert "Invalid" == await socket.error(op="none")
            assert "Invalid" == await socket.error(op=["x"])
    async with open_world(policy=WebPolicy(frames_per_second=10, frame_burst=20)) as world:
        async with world.client.socket(headers=COOKIE) as socket:
            for _ in range(30):
                await socket.result(op="ping")
                await trio.sleep(0.1)
            for _ in range(30):
                socket.send(op="ping")
            assert {"op": "bye", "reason": "rate", "retry_after": 5.0} == await socket.until("bye")


async def test_limits_of_long_frames(autojump_clock: Any) -> None:
    """Long frames count as several: attachments may be sent, and an endless stream of them may not."""
    async with open_world() as world, world.client.socket(headers=COOKIE) as socket:
        for _ in range(5):
            assert "Invalid" == await socket.error(op="post", conversation_id="42", message_id="m", text=7, padding="x" * 2_000_000)
        for _ in range(3):
            await trio.sleep(1)
            await socket.error(op="post", conversation_id="42", message_id="m", text=7, padding="x" * 2_000_000)
        for _ in range(10):
            socket.send(op="post", conversation_id="42", message_id="m", text=7, padding="x" * 2_000_000)
        assert "rate" == (await socket.until("bye"))["reason"]


async def test_limits_of_histories(autojump_clock: Any) -> None:
    """A socket that does not read has one history in memory, whatever it asks for; other commands go on."""
    async with open_world(policy=WebPolicy(send_timeout=50, event_interval=0)) as world, world.client.socket(headers=COOKIE) as socket:
        for number in range(10):
            await (await world.sessions.post(f"c{number}", "Hello", scope="alice")).wait()
        read: list[str] = []
        history = world.sessions.history

        async def counted(conversation_id: str, **options: Any) -> Any:
            read.append(conversation_id)
            return await history(conversation_id, **options)

        object.__setattr__(world.bridge._shared, "sessions", _Counting(world.sessions, counted))
        await socket.until("welcome")
        socket.reads = False
        for number in range(10):
            socket.send(op="history", conversation_id=f"c{number}")
        await trio.sleep(5)
        assert 1 == len(read)
        socket.reads = True
        for _ in range(10):
            await socket.until("reply", ok=True)
        assert 10 == len(read)


class _Counting:
    """Sessions whose histories are counted."""

    def __init__(self, sessions: Any, history: Any) -> None:
        self._sessions = sessions
        self.history = history

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sessions, name)


async def test_limits_of_commands(autojump_clock: Any) -> None:
    """Commands that wait are bounded: more are refused, until some have their replies."""

    class Stuck:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            await trio.sleep(1000)
            return True

    policy = WebPolicy(commands_per_socket=4)
    async with open_world(policy=policy, authorizer=Stuck()) as world, world.client.socket(headers=COOKIE) as socket:
        for _ in range(6):
            socket.send(op="history", conversation_id="42")
        refused = [await socket.until("reply") for _ in range(2)]
        assert {"TooMany"} == {reply["error"]["type"] for reply in refused}
        for _ in range(20):
            assert "TooMany" == await socket.error(op="history", conversation_id="42")
    assert (0, 0, 0) == world.left


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 1001, {}, 413),
        ([b"x" * 600, b"x" * 600], {}, 413),
        (b"{}", {"content-length": "1001"}, 413),
        (b"{}", {"content-length": "9" * 100}, 413),
        (b"[]", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"[" * 999, {}, 400),
        (b'{"message_id": "m", "text": 1e999}', {}, 400),
    ],
)
async def test_bodies(autojump_clock: Any, body: Any, headers: dict[str, str], status: int) -> None:
    """A body that is too long or is no JSON object is refused."""
    async with open_world(policy=POLICY) as world:
        token = await world.csrf()
        given = {**COOKIE, "origin": ORIGIN, "x-csrf-token": token, "content-type": "application/json", **headers}

        assert status == (await world.client.request("POST", "/conversations/42/messages", body, given)).status


async def test_body_when_it_does_not_come(autojump_clock: Any) -> None:
    """A body that does not come in time is refused, and holds nothing."""
    async with open_world(policy=POLICY) as world:
        token = await world.csrf()
        given = {**COOKIE, "origin": ORIGIN, "x-csrf-token": token, "content-type": "application/json"}
        begun = trio.current_time()
        answer = await world.client.request("POST", "/conversations/42/messages", [b"{"] * 3, given, stalls=True)

        assert (408, POLICY.body_timeout) == (answer.status, trio.current_time() - begun)
        assert (0, 0, 0) == world.left


async def test_page_that_does_not_read(autojump_clock: Any) -> None:
    """A page that does not read is cut, and what waits for it is bounded."""
    async with open_world(policy=WebPolicy(send_timeout=5)) as world, world.client.socket(headers=COOKIE) as socket:
        await socket.result(op="subscribe", conversation_id="42")
        socket.reads = False
        for number in range(50):
            await (await world.sessions.post("42", str(number), scope="alice")).wait()
        await trio.sleep(20)

        assert (4413, 0) == (socket.code, len(world.bridge._shared.connections))


async def test_defect_of_the_host(autojump_clock: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An authorizer that raises answers one command, and says nothing of itself; the socket goes on. The log has it."""

    class Broken:
        async def authorize(self, scope: Any, conversation_id: str, action: str) -> bool:
            raise RuntimeError("password=hunter2")

    async with open_world(authorizer=Broken()) as world, world.client.socket(headers=COOKIE) as socket:
        reply = await socket.ask(op="history", conversation_id="42")
        answer = await world.client.get("/conversations/42/history", COOKIE)

        assert ("Internal", 500, "Internal") == (reply["error"]["type"], answer.status, answer.error)
        assert "hunter2" not in json.dumps(reply) + answer.body.decode()
        assert {} == await socket.result(op="ping")
    assert "hunter2" in caplog.text
    caplog.clear()


async def test_authenticate_when_it_is_asked(autojump_clock: Any) -> None:
    """The host is asked before a socket is accepted and before a body is read; it sees the request, decoded."""
    async with open_world() as world:
        headers = {**COOKIE, "origin": ORIGIN, "content-type": "application/json"}
        path = "/chat/conversations/a%2Fb/messages?x=1&x=2"
        assert 403 == (await world.client.request("POST", path, b"x" * 10**7, headers, root_path="/chat")).status
        (request,) = world.asked

        assert ("a/b", "1", "alice", None, "/chat", False) == (
            request.segments[1],
            request.query["x"],
            request.cookies["token"],
            request.bearer,
            request.root,
            request.is_websocket,
        )
        assert "alice" not in repr(request)


@pytest.mark.parametrize("wrong", [7.5, True, b"alice", object(), ("alice",)])
async def test_authenticate_when_it_returns_nonsense(autojump_clock: Any, wrong: Any) -> None:
    """What is neither a visitor nor a scope lets nobody in, and is a TypeError for the log of the server."""
    async with open_world(visitors={"alice": wrong}) as world:
        with pytest.raises(TypeError, match="authenticate must return"):
            await world.client.get("/session", COOKIE)

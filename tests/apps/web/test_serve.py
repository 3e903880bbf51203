"""`trio-sagents serve`: a bridge of its own, for the person at the terminal or behind an auth hook."""

import faulthandler
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import httpx2
import pytest
import trio

from tests.apps.web._kit import open_world
from tests.apps.web._server import RealSocket
from trio_sagents.cli import main
from trio_sagents.cli._models import UsageError
from trio_sagents.cli._serve import ServeOptions, _checked, _listen, _server_config, is_loopback, load_config, policy_of
from trio_sagents.web import LinkLogin, Visitor, WebPolicy

ROOT: Final = Path(__file__).parents[3]
MODULE: Final = """
import pathlib
from contextlib import asynccontextmanager

import trio

from trio_sagents import Agent, SessionConfig, SessionPolicy, SingleFactoryRouter
from trio_sagents.testing import ScriptedModel
from trio_sagents.web import Visitor

class Model(ScriptedModel):
    @asynccontextmanager
    async def stream(self, request):
        while not pathlib.Path("may answer").exists():
            await trio.sleep(0.01)
        async with super().stream(request) as chunks:
            yield chunks

model = Model(lambda request: "x" * 100)
config = SessionConfig(factory_router=SingleFactoryRouter(Agent(model=model)))

def make():
    return config

def who(request):
    return Visitor("alice", "alice", may_debug=True) if request.bearer == "of-alice" else None
"""


@attrs.define(eq=False)
class Served:
    """A command that runs."""

    process: Any
    first: str
    """Its first line."""

    @property
    def link(self) -> str:
        return re.search(r"http://\S+", self.first)[0]

    @property
    def address(self) -> str:
        url = urlsplit(self.link)
        return f"{url.scheme}://{url.netloc}"

    def stop(self) -> str:
        """Tell it to stop, and return what it has printed."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=60)
        return out


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[Served]:
    faulthandler.dump_traceback_later(120, exit=True)
    (folder / "mychat.py").write_text(MODULE, encoding="utf-8")
    command = [sys.executable, "-m", "trio_sagents.cli", "serve", *options, "--port", "0"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield Served(process, process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_serve_when_the_link_is_used(tmp_path: Path) -> None:
    """The link of the terminal logs in once; a turn that runs at the end is named, and finishes."""
    with serve(tmp_path, "mychat:config") as command:
        with httpx2.Client(base_url=command.address, timeout=60) as browser, httpx2.Client(base_url=command.address, timeout=60) as other:
            assert 401 == browser.get("/session").status_code
            answer = browser.get(command.link)
            cookie = answer.headers["set-cookie"]
            assert (303, "/") == (answer.status_code, answer.headers["location"])
            assert {"HttpOnly", "SameSite=Strict", "Path=/"} == set(cookie.split("; ")[1:])
            assert 403 == other.get(command.link).status_code
            assert 403 == other.get("/login").status_code
            assert 403 == other.post("/login", content=b"").status_code
            assert 401 == other.get("/session").status_code
            session = browser.get("/session").json()
            assert ("me", False) == (session["viewer"], session["may_debug"])
            headers = {"origin": command.address, "x-csrf-token": session["csrf"]}
            posted = browser.post("/conversations/42/messages", json={"message_id": "m-1", "text": "Hello"}, headers=headers)
            assert 200 == posted.status_code
            assert 400 == browser.get("/session", headers={"host": "evil.example"}).status_code
            assert 400 == other.get("/login", headers={"host": "evil.example"}).status_code
        command.process.send_signal(signal.SIGTERM)
        out = ""
        while "running turns" not in out or "'42'" not in out:
            out += (line := command.process.stdout.readline())
            assert line, out
        (tmp_path / "may answer").touch()
        out += command.process.communicate(timeout=60)[0]

    assert 0 == command.process.returncode
    assert "For another browser: http://127.0.0.1:" in out


@pytest.mark.slow
def test_serve_when_it_has_an_auth_hook(tmp_path: Path) -> None:
    """With `--auth` there is no link: the function of the person says who is there."""
    with serve(tmp_path, "mychat:make", "--auth", "mychat:who") as command:
        assert "login" not in command.link
        assert 401 == httpx2.get(f"{command.address}/session", timeout=60).status_code
        session = httpx2.get(f"{command.address}/session", headers={"authorization": "Bearer of-alice"}, timeout=60).json()
        assert ("alice", False) == (session["viewer"], session["may_debug"])
        command.stop()
    assert 0 == command.process.returncode


async def test_auth_hook_when_nobody_may_debug() -> None:
    """Without `--debug` nobody may debug, whatever the hook says, async or not; with it the hook decides."""
    visitor = Visitor("alice", "alice", may_debug=True)

    async def later(request: Any) -> Any:
        return visitor

    for hook in (later, lambda request: visitor):
        assert attrs.evolve(visitor, may_debug=False) == await _checked(hook, may_debug=False)("request")
        assert hook is _checked(hook, may_debug=True)
    assert "alice" == await _checked(lambda request: "alice", may_debug=False)("request")
    assert await _checked(lambda request: None, may_debug=False)("request") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["mychat:config", "--host", "0.0.0.0"], "--auth"),
        (["mychat:config", "--host", "192.168.1.7"], "--auth"),
        (["mychat:config", "--host", "::"], "--auth"),
        (["mychat:config", "--host", "chat.example.com"], "--auth"),
        (["mychat:config", "--host", "0.0.0.0", "--auth", "mychat:who"], "--allow-host"),
        (["mychat"], "module:name"),
        (["mychat:none"], "has no 'none'"),
        (["nothing_here:config"], "no module 'nothing_here'"),
        (["mychat:who2"], "has no"),
        (["mychat:MODEL"], "has no"),
        (["mychat:model"], "must be a SessionConfig"),
        (["mychat:config", "--auth", "mychat:config"], "must be a function"),
    ],
)
def test_serve_when_it_refuses_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    """An address that others reach needs an auth hook and host names; what is wrong is a line on stderr that says what to do."""
    (tmp_path / "mychat.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "mychat", raising=False)

    assert 2 == main(["serve", *options, "--port", "0"])
    assert words in capsys.readouterr().err


def test_serve_when_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the extra `web` the command says what to install."""
    monkeypatch.delitem(sys.modules, "trio_sagents.cli._serve")
    monkeypatch.setitem(sys.modules, "hypercorn.config", None)

    assert 2 == main(["serve", "mychat:config"])
    assert "pip install 'trio-sagents[web]'" in capsys.readouterr().err


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), BaseExceptionGroup("sessions", [KeyboardInterrupt()])])
def test_serve_when_ctrl_c_is_pressed_again(monkeypatch: pytest.MonkeyPatch, interrupt: BaseException) -> None:
    """A second Ctrl-C cuts the running turns, and is no traceback: the status is 130."""

    def interrupted(*args: Any) -> int:
        raise interrupt

    monkeypatch.setattr("trio_sagents.cli._main._run", interrupted)

    assert 130 == main(["serve", "mychat:config"])


def test_address_when_it_cannot_be_used() -> None:
    """An address that is taken, or is none, is an error that names the options."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match=r"--port \d+: cannot listen there"):
            _listen("127.0.0.1", taken.getsockname()[1], 1)
    with pytest.raises(UsageError, match="--port 99999"):
        _listen("127.0.0.1", 99999, 1)


def test_addresses_when_compared() -> None:
    """Only addresses of this machine need no auth hook."""
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example"]))


def test_policy_when_options_are_given() -> None:
    """The bridge answers to the names that the options allow, and to no others."""
    local = policy_of(ServeOptions(target="x:y", host="::1", allowed_hosts=["chat.local"]))
    public = policy_of(
        ServeOptions(target="x:y", host="0.0.0.0", auth="x:z", allowed_hosts=["a.example"], allowed_origins=["https://a.example"])
    )

    assert ("127.0.0.1", "localhost", "[::1]", "[::1]", "chat.local") == local.hosts
    assert (("a.example",), ("https://a.example",)) == (public.hosts, public.origins)


def test_config_when_its_module_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error inside the module of the person is theirs to see: it is not taken for a wrong option."""
    (tmp_path / "broken_chat.py").write_text("import surely_not_installed\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        load_config("broken_chat:config")
    with pytest.raises(UsageError, match="module:name"):
        load_config("broken_chat")


async def test_link_when_it_is_wrong(autojump_clock: Any) -> None:
    """A link that is wrong, used, or asked for by another method logs nobody in, and each login has a cookie of its own."""
    login = LinkLogin(cookie="c", may_debug=True)
    told: list[str] = []
    login.on_used = told.append
    async with open_world() as world:
        app = login.wrap(world.bridge, WebPolicy())
        world.client.app = app
        link = login.path
        for path in ("/login", "/login?token=", "/login?token=x", f"{link}x", link[:-1]):
            assert 403 == (await world.client.get(path)).status
        assert 403 == (await world.client.request("POST", link)).status
        first = await world.client.get(link)
        second = await world.client.get(told[0])
        cookies = {answer.headers["set-cookie"].partition(";")[0] for answer in (first, second)}
        assert (303, 303, 2) == (first.status, second.status, len(cookies))
        assert 403 == (await world.client.get(link)).status
        https = await world.client.get(told[1], scheme="https")
        assert https.headers["set-cookie"].endswith("; Secure")
        assert 200 == (await world.client.get("/")).status


async def _behind(world: Any, policy: WebPolicy, user_timeout: float, task_status: Any) -> None:
    from hypercorn.trio import serve as serve_app

    with _listen("127.0.0.1", 0, user_timeout) as listener:
        config = _server_config(listener, policy)
        config.keep_alive_timeout = 0.5
        task_status.started(f"http://127.0.0.1:{listener.getsockname()[1]}")
        await serve_app(world.bridge, config, shutdown_trigger=trio.sleep_forever)


async def test_headers_when_they_do_not_come() -> None:
    """A connection whose request does not come is closed: there is no slow loris."""
    async with open_world() as world, trio.open_nursery() as nursery:
        address = await nursery.start(_behind, world, WebPolicy(), 10)
        for begin in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "):
            stream = await trio.open_tcp_stream("127.0.0.1", urlsplit(address).port)
            await stream.send_all(begin)
            with trio.fail_after(15):
                while await stream.receive_some(1000):
                    pass
            await stream.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
async def test_page_when_it_never_reads() -> None:
    """The system ends the connection of a page that never reads, so that it cannot hold the server at its end."""
    faulthandler.dump_traceback_later(120, exit=True)
    policy = WebPolicy(presence_grace=0)
    async with open_world(policy=policy) as world, trio.open_nursery() as nursery:
        address = await nursery.start(_behind, world, policy, 1.0)
        page = await RealSocket.open(address, "/ws", {"cookie": "token=alice"})
        page.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await page.send(op="subscribe", id="1", conversation_id="42")
        for number in range(40):
            if world.left == (0, 0, 0) and number > 1:
                break
            await (await world.sessions.post("42", f"{number} " + "x" * 400_000, scope="alice")).wait()
            await trio.sleep(0.2)
        with trio.fail_after(60):  # without the option of the system: a quarter of an hour
            while world.left != (0, 0, 0):
                await trio.sleep(0.05)
        page.reset()
        nursery.cancel_scope.cancel()

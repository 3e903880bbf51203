"""What holds for all tests: no network except this machine's own, and few garbage collections over what never goes away."""

import gc
import logging
import socket
from collections.abc import Generator, Iterator

import hypothesis
import pytest

# Collecting the tests makes millions of objects, and all of them stay. Garbage collections in the meantime would take as long as all
# the rest together, and so would each later one that looks at these objects again.
gc.disable()


def pytest_collection_finish() -> None:
    """Let the collector run from now on, and leave alone what is there already."""
    gc.collect()
    gc.freeze()
    gc.enable()


# An example that takes long says that the machine is busy, and nothing about the library.
hypothesis.settings.register_profile("trio_sagents", deadline=None)
hypothesis.settings.load_profile("trio_sagents")

_LOCAL = ("127.0.0.1", "::1", "localhost")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every connection that leaves this machine: a test never calls a real model."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def check(address: object) -> None:
        if isinstance(address, tuple) and address[0] not in _LOCAL:
            raise RuntimeError(f"a test wants to connect to {address!r}: real model calls are forbidden in tests")

    def guarded(self: socket.socket, address: object) -> None:
        check(address)
        connect(self, address)  # type: ignore[arg-type]  # as the caller gave it

    def guarded_ex(self: socket.socket, address: object) -> int:
        check(address)
        return connect_ex(self, address)  # type: ignore[arg-type]  # as the caller gave it

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)
    yield


@pytest.fixture(autouse=True)
def _log_is_left_alone() -> Iterator[None]:
    """Find the test that leaves the library's log changed, instead of the tests after it that read the log."""
    log = logging.getLogger("trio_sagents")
    before = (log.level, log.disabled, log.propagate, logging.root.manager.disable)
    yield
    after = (log.level, log.disabled, log.propagate, logging.root.manager.disable)
    log.setLevel(before[0])
    log.disabled, log.propagate = before[1:3]
    logging.disable(before[3])
    assert before == after


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make what a test logged fit to be sent between processes: half a character, which a hostile tool raises, is not."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report

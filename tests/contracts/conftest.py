"""A PostgreSQL server for all contracts of one run, and a schema in it for each test."""

import faulthandler
import itertools
from collections.abc import Iterator
from typing import Final

import pytest

from tests.support.postgres import find_server, running_server

_NUMBERS: Final = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """One server for the run. Tests that use it have the mark `needs_postgres`."""
    faulthandler.dump_traceback_later(120, exit=True)
    found = find_server()
    assert found is not None, "no PostgreSQL server was found"
    with running_server(found) as conninfo:
        yield conninfo


@pytest.fixture
def conninfo(server: str) -> Iterator[str]:
    """A schema of the test's own."""
    import psycopg  # only where there is a server

    schema = f"test_{next(_NUMBERS)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")  # type: ignore[arg-type]  # our own name
        yield f"{server} options=-csearch_path={schema}"
        connection.execute(f"DROP SCHEMA {schema} CASCADE")  # type: ignore[arg-type]  # likewise

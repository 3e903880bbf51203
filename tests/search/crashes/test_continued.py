"""kill -9 of processes that continue what the last one left: in the end everything is answered, and no call runs twice.

TRIO_SAGENTS_KILLS sets how many processes are killed: a fifth of it on SQLite, and a twentieth on PostgreSQL.
"""

from pathlib import Path

import pytest

from tests.search.crashes.running import KILLS, in_all, run, violations
from tests.support.postgres import find_server, needs_postgres, running_server

pytestmark = pytest.mark.slow


def test_kill_nine_of_processes_that_continue(tmp_path: Path) -> None:
    """Every message that was acknowledged is answered in a turn that was completed, and no call ran twice."""
    kills = KILLS // 5
    reports = run("continued", ["--folder", tmp_path, "--kills", kills], limit=120 + 5 * kills)

    assert [] == violations(reports)
    assert kills == in_all(reports, "kills")
    assert kills < in_all(reports, "acknowledged")  # or it tests little


@needs_postgres
def test_kill_nine_of_processes_that_continue_on_postgresql(tmp_path: Path) -> None:
    """The same on PostgreSQL, where the server lives on."""
    server = find_server()
    assert server is not None, "no PostgreSQL server was found"
    kills = KILLS // 20
    with running_server(server) as where:
        reports = run("continued", ["--folder", tmp_path, "--kills", kills, "--database", where], limit=120 + 5 * kills)

    assert [] == violations(reports)
    assert kills == in_all(reports, "kills")
    assert kills < in_all(reports, "acknowledged")

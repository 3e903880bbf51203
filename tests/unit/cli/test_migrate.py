"""`trio-sagents migrate FILE`."""

from pathlib import Path

import pytest

from tests.support.stores import make_first
from trio_sagents.cli import main


def test_migrate_when_the_file_is_old(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An older file is rewritten once; the command says what it did."""
    path = tmp_path / "chat.db"
    make_first(path)

    assert [0, 0] == [main(["migrate", str(path)]) for _ in range(2)]
    assert f"{path} is migrated.\n{path} needs no migration.\n" == capsys.readouterr().out


def test_migrate_when_there_is_no_such_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is one line on standard error, and the exit status is 1."""
    status = main(["migrate", str(tmp_path / "absent.db")])

    assert 1 == status
    assert f"trio-sagents: the database '{tmp_path / 'absent.db'}': there is no such file\n" == capsys.readouterr().err

"""Which model, which database: from the command line and the environment."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.apps.cli._kit import SECRET
from trio_sagents.cli import main
from trio_sagents.cli._models import UsageError, choose_model
from trio_sagents.cli._setup import Options, default_database, set_up


@pytest.mark.parametrize(
    ("environ", "provider", "name", "label"),
    [
        ({}, None, None, "offline"),
        ({"ANTHROPIC_API_KEY": SECRET}, None, None, "anthropic claude-sonnet-5-5"),
        ({"ANTHROPIC_API_KEY": SECRET}, "offline", None, "offline"),
        ({"ANTHROPIC_API_KEY": SECRET, "OPENAI_API_KEY": SECRET}, "openai", "x", "openai x"),
        ({"OPENAI_API_KEY": SECRET}, None, None, "openai gpt-5.4-mini"),
        ({"OPENAI_API_KEY": SECRET, "TRIO_SAGENTS_MODEL": "y"}, None, None, "openai y"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, None, "llama", "openai llama"),
        ({"GROQ_API_KEY": SECRET}, None, "groq:llama-3.3", "groq llama-3.3"),
        ({"ANTHROPIC_API_KEY": SECRET}, None, "ollama:llama3.2:3b", "ollama llama3.2:3b"),
        ({"OPENAI_API_KEY": SECRET}, "ollama", "llama3.2:3b", "ollama llama3.2:3b"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}, None, "llama3.2:3b", "openai llama3.2:3b"),
        ({"TRIO_SAGENTS_MODEL": "ollama:x"}, None, None, "ollama x"),
    ],
)
def test_the_model_is_the_one_whose_key_is_set(
    environ: dict[str, str], provider: Any, name: str | None, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anthropic's key comes first, then OpenAI's or a compatible server, else the embedded model. A provider that is named is used."""
    for key in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environ.items():
        monkeypatch.setenv(key, value)

    choice = choose_model(provider, name, environ)

    assert label == choice.label
    assert SECRET not in repr(choice)


@pytest.mark.parametrize(("provider", "package"), [("anthropic", "anthropic"), ("openai", "openai")])
def test_a_missing_package_is_named_with_its_install_line(provider: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without the extra is a line on how to install it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package or name == f"trio_sagents.models.{provider}"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"pip install 'trio-sagents\[{provider}\]'"):
        choose_model(provider, "x", {"ANTHROPIC_API_KEY": SECRET, "OPENAI_API_KEY": SECRET})


@pytest.mark.parametrize(
    ("provider", "name", "words"), [(None, "groq:x", "GROQ_API_KEY"), ("groq", None, "--model"), ("azure", "x", "AZURE")]
)
def test_what_is_missing_for_a_provider_is_told(provider: Any, name: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key, its address or its model."""
    for key in ("GROQ_API_KEY", "AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(UsageError, match=words):
        choose_model(provider, name, {})


def test_a_server_of_ones_own_needs_the_models_name() -> None:
    """There is no default name for such a model."""
    with pytest.raises(UsageError, match="--model"):
        choose_model(None, None, {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})


def test_the_database_is_found(tmp_path: Path) -> None:
    """The variable, then the data folder, which must be absolute to count."""
    assert default_database({"TRIO_SAGENTS_DB": "x.db"}) == Path("x.db")
    assert default_database({"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "trio-sagents" / "chat.db"
    assert default_database({"XDG_DATA_HOME": "relative"}) == Path.home() / ".local" / "share" / "trio-sagents" / "chat.db"
    assert set_up(Options(), {"XDG_DATA_HOME": str(tmp_path)}).database == tmp_path / "trio-sagents" / "chat.db"
    assert (tmp_path / "trio-sagents").stat().st_mode & 0o777 == 0o700


def test_a_data_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """With the way out."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--db"):
        set_up(Options(), {"XDG_DATA_HOME": str(tmp_path / "file")})


def test_help_names_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """The author of a script finds the statuses in the help."""
    with pytest.raises(SystemExit) as caught:
        main(["chat", "--help"])

    assert caught.value.code == 0
    assert "3 a person must decide" in capsys.readouterr().out


def test_the_command_to_come_back_names_what_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command has model, database, folder and servers, for any directory. What was allowed was for one run only."""
    monkeypatch.chdir(tmp_path)
    given = Options(
        provider="offline", database=Path("a b.db"), folder=Path(), servers=["time 'x y'"], allowed=["create_file"], conversation_id="old"
    )
    words = shlex.split(set_up(given, {}).command_for("c"))

    expected = ["--provider", "offline", "--db", str(tmp_path / "a b.db"), "--files", str(tmp_path), "--mcp", "time 'x y'"]
    assert ["trio-sagents", "chat", *expected, "--conversation", "c"] == words
    assert "trio-sagents chat --conversation c" == set_up(Options(), {"XDG_DATA_HOME": str(tmp_path)}).command_for("c")


def test_the_command_to_come_back_in_a_venv_that_is_not_active(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command has the path of the program, because the name alone would not be found."""
    program = tmp_path / "bin" / "trio-sagents"
    monkeypatch.setattr(sys, "argv", [str(program), "chat"])
    monkeypatch.setenv("PATH", str(tmp_path))

    assert f"{program} chat --conversation c" == set_up(Options(), {"XDG_DATA_HOME": str(tmp_path)}).command_for("c")

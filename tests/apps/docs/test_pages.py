"""Every block of code in the documentation runs, prints what the page says, and names only what exists."""

import contextlib
import faulthandler
import functools
import io
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.apps.docs._pages import PAGES, ROOT, Page, read_page
from trio_sagents.cli import main

READ: Final = tuple(read_page(path) for path in PAGES)
WITH_PROGRAMS: Final = [page for page in READ if any(block.kind == "python" for block in page.blocks)]
_LINK: Final = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_TEST: Final = re.compile(r"\[`?(test_\w+)`?\]\(([^)]+\.py)\)")
_COMMANDS: Final = re.compile(r"`((?:\.venv/bin/)?trio-sagents chat[^`]*)`")


def _virtual_run(*args: Any, **options: Any) -> Any:
    return _RUN(*args, clock=trio.testing.MockClock(autojump_threshold=0), **options)


_RUN: Final = trio.run


@pytest.mark.parametrize("page", WITH_PROGRAMS, ids=lambda page: page.name)
def test_page_when_run(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other, and print the output that the page shows below them."""
    faulthandler.dump_traceback_later(120, exit=True)  # a page that loads an SDK takes long on a machine that does other things
    monkeypatch.chdir(tmp_path)
    # A page may make a model of a provider, which needs a key. Nothing is sent: the pages ask only models of their own.
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-nobody")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody")
    if not page.is_real_time:
        monkeypatch.setattr(trio, "run", functools.wraps(_RUN)(_virtual_run))
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in page.blocks:
        match block.kind:
            case "fresh":
                namespace = {"__name__": "__main__"}
            case "python":
                # As many empty lines before it, so that a traceback names the line of the page.
                code = compile("\n" * (block.line - 1) + block.text, str(page.path), "exec")
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(code, namespace)
                printed = out.getvalue()
            case "prints":
                assert block.text.strip() == printed.strip(), f"{page.name}:{block.line}"


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_page_when_it_links(page: Page) -> None:
    """A link to a file of the repository leads to a file, and a test that a page names exists."""
    targets = [target for target in _LINK.findall(page.path.read_text(encoding="utf-8")) if not re.match(r"[a-z]+:", target)]
    missing = [target for target in targets if not (page.path.parent / target).exists()]
    for test, file in _TEST.findall(page.path.read_text(encoding="utf-8")):
        path = page.path.parent / file
        if path.is_file() and not re.search(rf"def {test}\b", path.read_text(encoding="utf-8")):
            missing.append(f"{file}::{test}")

    assert [] == missing


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_page_when_it_names_sources(page: Page) -> None:
    """A source file or folder that a page names exists."""
    named = set(re.findall(r"`(trio_sagents/[\w/]*(?:\.py)?)`", page.path.read_text(encoding="utf-8")))

    assert [] == [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", READ, ids=lambda page: page.name)
def test_page_when_it_has_commands(page: Page) -> None:
    """Commands for a shell are valid shell, and our own parser accepts the commands of this project."""
    text = page.path.read_text(encoding="utf-8")
    for block in page.blocks:
        if block.kind == "shell":
            done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
            assert "" == done.stderr, f"{page.name}:{block.line}"
            text += "".join(f"\n`{part.strip()}`" for part in re.split(r"&&|\n", block.text))
    for command in _COMMANDS.findall(text):
        words = shlex.split(command)
        with pytest.raises(SystemExit) as left, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
            main([*words[1:], "--help"])
        assert 0 == left.value.code, f"{page.name}: {command}: {err.getvalue()}"


def test_commands_when_both_stand_in_the_readme() -> None:
    """The README has two commands, each on one line. The second is the command that the project's own checks run."""
    (first, second) = [block.text for block in read_page(ROOT / "README.md").blocks if block.kind == "shell"][:2]

    assert 1 == len(first.splitlines()) == len(second.splitlines())
    assert first.endswith("trio-sagents chat")
    assert "pytest" in second
    assert second.rpartition("&&")[2].strip().removeprefix(".venv/bin/") in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.slow
def test_documentation_when_built(tmp_path: Path) -> None:
    """The documentation builds without a warning."""
    faulthandler.dump_traceback_later(240, exit=True)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees"), str(ROOT / "docs")]
    done = subprocess.run([*command, str(tmp_path / "html")], capture_output=True, text=True, check=False)

    assert (0, "") == (done.returncode, done.stderr)

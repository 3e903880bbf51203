"""Both encoders: what each event of the union becomes, and that whatever happens is a valid stream."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, get_args

import pytest

from tests.apps.web._events import Example, envelope, examples
from tests.apps.web._grammars import objects
from trio_sagents import Event, MiddlewareEvent
from trio_sagents.web._ag_ui import AgUiEncoder
from trio_sagents.web._frames import frames
from trio_sagents.web._vercel import VercelEncoder

GOLDEN: Final = Path(__file__).parent / "golden"
EXAMPLES: Final = examples()


def _vercel(example: Example) -> bytes:
    encoder = VercelEncoder()
    encoder.has_started = True
    return encoder.encode(example.relay().apply(envelope(example.event)))


def _ag_ui(example: Example) -> bytes:
    return AgUiEncoder("c", "run-1", {"title": "T"}).encode(example.relay().apply(envelope(example.event)))


ENCODERS: Final[dict[str, Callable[[Example], bytes]]] = {"vercel": _vercel, "ag_ui": _ag_ui}


def _page(name: str) -> str:
    """Return what all examples become, as the text of a golden file."""
    sections = [f"## {example.name}\n\n{ENCODERS[name](example).decode()}" for example in EXAMPLES]
    return "\n".join(sections)


def _sections(text: str) -> dict[str, str]:
    return dict(section.split("\n", 1) for section in text.split("## ")[1:])


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_event_when_encoded(name: str, example: Example) -> None:
    """Each event becomes what the golden file says. After a change that is meant, run this module to write the files anew."""
    golden = _sections((GOLDEN / f"{name}.txt").read_text(encoding="utf-8"))

    assert golden[example.name].strip() == ENCODERS[name](example).decode().strip()


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_event_when_it_is_new(kind: type[Event]) -> None:
    """Each event of the union has an example, so each has its place in the golden files."""
    assert [
        example for example in EXAMPLES if (type(example.event) is kind or (kind is MiddlewareEvent and isinstance(example.event, kind)))
    ]


@pytest.mark.parametrize("name", ENCODERS)
def test_golden_file_when_read(name: str) -> None:
    """The golden files hold nothing that anybody wanted to keep for developers, and no example that is gone."""
    text = (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")

    assert "secret" not in text
    assert [example.name for example in EXAMPLES] == list(_sections(text))


def test_event_when_it_has_no_json() -> None:
    """A number or a text of a host's own event that JSON cannot hold does not break the stream."""
    (weather,) = objects(frames([{"sky": float("nan"), "name": "\ud800"}]))

    assert {"sky": None, "name": "\ud800"} == weather


def _write(names: Sequence[str]) -> None:
    for name in names:
        (GOLDEN / f"{name}.txt").write_text(_page(name), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(_write(tuple(ENCODERS)))

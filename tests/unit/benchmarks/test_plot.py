"""The plots of the comparison with other libraries."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.plot import PICTURES, draw, read_bars
from benchmarks.rounds import Spread
from benchmarks.table import Row, render


def _table() -> str:
    what = {
        "a turn at 10 stored messages, SQLite; CPU": ("4.19 ms", "13.60 ms"),
        "a turn at 1,000 stored messages, SQLite; CPU": ("5.17 ms", "322.00 ms"),
        "bytes that a turn at 10 stored messages hands to the system": ("35.2 KB", "2270.1 KB"),
        "a streamed token, to one reader; CPU": ("53.6 us", "79.8 us"),
        "a conversation of two messages, kept in memory; resident bytes": ("19.9 KB", "0.6 KB"),
    }
    return render(
        Row(name=name, what=text, ours=ours, baseline=theirs, ratio=Spread(1, 1, 1))
        for text, (ours, theirs) in what.items()
        for name in ("one", "another")
    )


def test_read_bars_when_the_table_was_printed() -> None:
    """Each figure of the printed table is a bar, ours once for each group."""
    bars = read_bars(_table(), PICTURES["peers-turns"][0])

    expected = [("10", "trio_sagents", 4.19), ("10", "one", 13.6), ("10", "another", 13.6)]
    assert expected == [(bar.group, bar.library, bar.value) for bar in bars[:3]]
    assert 6 == len(bars)


@pytest.mark.parametrize("name", PICTURES)
def test_draw_when_the_figures_differ(name: str) -> None:
    """A picture is well-formed, and a larger figure has a longer bar."""
    pattern, title = PICTURES[name]
    bars = read_bars(_table(), pattern)
    picture = ET.fromstring(draw(title, bars))

    lengths = [float(rect.attrib["width"]) for rect in picture.iter("{http://www.w3.org/2000/svg}rect") if "x" in rect.attrib]
    assert len(bars) == len(lengths)
    assert (lengths[0] < lengths[1]) == (bars[0].value < bars[1].value)

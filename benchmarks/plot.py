"""`python -m benchmarks.plot TABLE FOLDER`: draw the printed table of `--compare` as SVG, a picture for each kind of figure.

TABLE is a file with what `python -m benchmarks --compare` printed. The scale is logarithmic, because the figures differ by orders of
magnitude.
"""

import html
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

UNITS: Final[Mapping[str, float]] = {"us": 1e-3, "ms": 1.0, "KB": 1.0}
PICTURES: Final[Mapping[str, tuple[str, str]]] = {
    "peers-turns": (r"a turn at ([\d,]+) stored messages", "Processor time of a turn, by the messages that are stored before it (ms)"),
    "peers-bytes": (r"bytes that a turn at ([\d,]+) stored", "Bytes that a turn hands to the system, by the messages before it (KB)"),
    "peers-tokens": (r"a streamed token", "Processor time of a streamed token (ms)"),
    "peers-memory": (r"a conversation of two messages", "A conversation of two messages in memory (KB)"),
}
"""By the name of the picture: what its rows say, with the group of bars in brackets; and its title."""
COLOURS: Final = ("#2563eb", "#64748b", "#94a3b8", "#a8a29e", "#78716c")
WIDTH: Final = 720
LEFT: Final = 150
BAR: Final = 16


@attrs.frozen
class Bar:
    """One figure."""

    group: str
    library: str
    value: float
    text: str


def read_bars(table: str, pattern: str) -> Sequence[Bar]:
    """Return the figures of the rows whose text fits a pattern: ours once for each group, then those of the peers."""
    bars: dict[tuple[str, str], Bar] = {}
    for line in table.splitlines():
        cells = re.split(r" {2,}", line.strip())
        found = re.match(pattern, cells[1]) if len(cells) >= 4 else None
        if found is None:
            continue
        group = found[1] if found.groups() else ""
        for library, text in (("trio_sagents", cells[2]), (cells[0], cells[3])):
            number, unit = text.split()
            bars.setdefault((group, library), Bar(group, library, float(number.replace(",", "")) * UNITS[unit], text))
    return tuple(bars.values())


def draw(title: str, bars: Sequence[Bar]) -> str:
    """Return a picture of bars, in groups, as SVG."""
    low = math.floor(math.log10(min(bar.value for bar in bars)))
    high = math.ceil(math.log10(max(bar.value for bar in bars)))
    scale = (WIDTH - LEFT - 110) / max(high - low, 1)
    libraries = list(dict.fromkeys(bar.library for bar in bars))
    lines, y, group = [], 40, None
    for bar in sorted(bars, key=lambda bar: [b.group for b in bars].index(bar.group)):
        if bar.group != group:
            group = bar.group
            y += 10
            if group:
                y += 14
                lines.append(f'<text x="8" y="{y}" font-weight="bold">{html.escape(group)} messages</text>')
                y += 6
        length = max((math.log10(bar.value) - low) * scale, 2)
        colour = COLOURS[libraries.index(bar.library) % len(COLOURS)]
        lines.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{html.escape(bar.library)}</text>')
        lines.append(f'<rect x="{LEFT}" y="{y}" width="{length:.0f}" height="{BAR - 4}" fill="{colour}"/>')
        lines.append(f'<text x="{LEFT + length + 6:.0f}" y="{y + 11}">{html.escape(bar.text)}</text>')
        y += BAR
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 12}" font-family="sans-serif" font-size="12" role="img">'
    back = '<rect width="100%" height="100%" fill="white"/>'
    name = f'<title>{html.escape(title)}</title><text x="8" y="22" font-size="14">{html.escape(title)}; logarithmic scale</text>'
    return "\n".join((head, back, name, *lines, "</svg>", ""))


def main() -> None:
    """Draw the pictures of the table that the arguments name."""
    table, folder = Path(sys.argv[1]).read_text(encoding="utf-8"), Path(sys.argv[2])
    for name, (pattern, title) in PICTURES.items():
        bars = read_bars(table, pattern)
        if not bars:
            raise SystemExit(f"{sys.argv[1]} has no row for {name}: is it what `python -m benchmarks --compare` printed?")
        (folder / f"{name}.svg").write_text(draw(title, bars), encoding="utf-8")


if __name__ == "__main__":
    main()

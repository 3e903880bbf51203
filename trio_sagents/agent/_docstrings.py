"""Docstrings: what a model is told about a tool, and about each of its parameters.

The styles of Google, NumPy and Sphinx are read. The descriptions of parameters are taken out; everything else, all paragraphs and
the other sections, is the description of the tool.
"""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

PARAMETERS: Final = frozenset(
    {"args", "arguments", "parameters", "params", "keyword args", "keyword arguments", "other parameters", "attributes"}
)
"""The headers of sections that describe parameters, in lower case."""
_GOOGLE_ENTRY: Final = re.compile(r"([-*+]\s+)?`{0,2}\*{0,2}(?P<name>\w+)`{0,2}\s*(\(.*?\)|\[.*?\])?\s*:(?!:)\s*(?P<text>.*)$")
_NUMPY_ENTRY: Final = re.compile(r"(?P<names>\*{0,2}\w+(\s*,\s*\*{0,2}\w+)*)\s*(:.*)?$")
_FIELD: Final = re.compile(r":(?P<kind>[a-zA-Z]+)(\s+(?P<subject>[^:]*))?:(\s+(?P<text>.*))?$")
_UNDERLINE: Final = re.compile(r"(-{3,}|={3,})\s*$")
_KEPT: Final = re.compile(r"\s|[-*+>|#]|\d+[.)]\s|```|~~~|>>>")
"""How a line begins that is not joined with the line before it."""
_FIELD_OF_PARAMETER: Final = frozenset({"param", "parameter", "arg", "argument", "key", "keyword", "var", "ivar", "cvar"})
_DROPPED_FIELDS: Final = frozenset({"type", "rtype", "vartype"})
_OTHER_FIELDS: Final = frozenset({"return", "returns", "yield", "yields", "raise", "raises", "except", "exception", "note", "warning"})
_FIELDS: Final = _FIELD_OF_PARAMETER | _DROPPED_FIELDS | _OTHER_FIELDS


@attrs.define
class _Reader:
    """A docstring, read line by line."""

    lines: Sequence[str]
    prose: list[str] = attrs.field(factory=list)
    """The lines of the description."""
    found: dict[str, list[str]] = attrs.field(factory=dict)
    """The lines of each parameter."""
    place: int = 0

    def read(self) -> None:
        while self.place < len(self.lines):
            line = self.lines[self.place]
            name = line.strip()
            header = name.removesuffix(":").lower()
            if self._is_underlined():
                self.place += 2
                if header in PARAMETERS:
                    self._read_numpy()
                else:
                    self.prose += [f"{name}:", *self._until_header()]
            elif name.endswith(":") and header in PARAMETERS and not _is_indented(line):
                self.place += 1
                self._read_google(line)
            elif (field := _FIELD.match(line)) is not None and field["kind"].lower() in _FIELDS:
                self.place += 1
                self._read_field(field)
            else:
                self.place += 1
                self.prose.append(line)

    def _is_underlined(self) -> bool:
        """Return whether the line is a header in the style of NumPy."""
        line, after = self.lines[self.place], self.lines[self.place + 1 : self.place + 2]
        return bool(line.strip()) and not _is_indented(line) and bool(after) and _UNDERLINE.match(after[0]) is not None

    def _until_header(self) -> Sequence[str]:
        taken: list[str] = []
        while self.place < len(self.lines) and not self._is_underlined():
            taken.append(self.lines[self.place])
            self.place += 1
        return taken

    def _indented(self) -> Sequence[str]:
        """Take the lines that are indented, and blank lines between them."""
        taken: list[str] = []
        while self.place < len(self.lines) and (not self.lines[self.place].strip() or _is_indented(self.lines[self.place])):
            taken.append(self.lines[self.place])
            self.place += 1
        if taken and not taken[-1].strip():
            self.prose.append("")
        return taken

    def _read_google(self, header: str) -> None:
        depth, name = 0, ""
        lines = self._indented()
        if not any(line.strip() for line in lines) and self.place < len(self.lines):
            self.prose.append(header)  # what follows is written in another way, and stays as it is
        for line in lines:
            indent = len(line) - len(line.lstrip())
            depth = depth or indent
            entry = _GOOGLE_ENTRY.match(line.strip()) if indent <= depth else None
            if entry is not None:
                name = entry["name"]
                self.found[name] = [entry["text"]]
            elif name:
                self.found[name].append(line.strip())

    def _read_numpy(self) -> None:
        names: Sequence[str] = ()
        for line in self._until_header():
            entry = None if _is_indented(line) else _NUMPY_ENTRY.match(line.strip())
            if entry is not None:
                names = [name.strip().lstrip("*") for name in entry["names"].split(",")]
                self.found.update({name: [] for name in names})
            for name in names if entry is None else ():
                self.found[name].append(line.strip())

    def _read_field(self, field: re.Match[str]) -> None:
        kind, subject = field["kind"].lower(), (field["subject"] or "").strip()
        lines = [field["text"] or "", *self._indented()]
        if kind in _FIELD_OF_PARAMETER and subject:
            self.found[subject.split()[-1].lstrip("*")] = [line.strip() for line in lines]
        elif kind not in _DROPPED_FIELDS:
            self.prose += ["", " ".join([f"{kind.capitalize()}{f' {subject}' if subject else ''}:", *_words(lines)])]


def read_docstring(text: str | None) -> tuple[str, Mapping[str, str]]:
    """Return the description in a docstring, and the description of each parameter or attribute.

    Args:
        text: the docstring as it is in the source, or None.

    Returns:
        All paragraphs and sections but those about parameters, "" if there are none. A paragraph is one line; lists, code and
        sections keep their lines. Then, by name, the descriptions of the parameters, each on one line.
    """
    lines = inspect.cleandoc(text or "").splitlines()
    if len(lines) > 1 and lines[0].rstrip(":").lower() in PARAMETERS and lines[1].strip() and not _is_indented(lines[1]):
        # The docstring begins with the section, so that all of its lines have lost their indentation.
        lines[1:] = [f"    {line}" if line.strip() else line for line in lines[1:]]
    reader = _Reader(lines)
    reader.read()
    return _joined(reader.prose), {name: " ".join(_words(lines)) for name, lines in reader.found.items()}


def _is_indented(line: str) -> bool:
    return line[:1].isspace()


def _words(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines if line.strip()]


def _joined(lines: Sequence[str]) -> str:
    """Return the text of the lines; those of a paragraph are joined."""
    kept: list[str] = []
    in_code = False
    for line in lines:
        is_fence = line.lstrip().startswith(("```", "~~~"))
        is_joined = bool(kept) and bool(kept[-1].strip()) and not in_code and not _KEPT.match(line) and not _ends(kept[-1])
        if line.strip() and is_joined:
            kept[-1] = f"{kept[-1]} {line.strip()}"
        elif line.strip() or (kept and kept[-1].strip()) or in_code:
            kept.append(line.rstrip())
        in_code ^= is_fence
    return "\n".join(kept).strip()


def _ends(line: str) -> bool:
    """Return whether nothing is joined to a line: it is a header, a part of a list, or code."""
    return line.endswith(":") or _KEPT.match(line) is not None

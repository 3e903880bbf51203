"""The mutants of a module: mutmut's operators, and three of our own, applied to the bodies of functions.

A mutant is one node of the syntax tree, replaced. Left out is what no test is to notice: docstrings, prose (an error's words, a
log record's), annotations, decorators, defaults, asserts, which state invariants, and what is there for the type checker alone.
"""

import difflib
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import libcst as cst
import libcst.matchers as m
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation.mutators import mutation_operators

from tests.mutation.generated._groups import ROOT, files_of

NAME: Final = re.compile(r"\w*['\"][\w.:/-]*['\"]")
"""A text that is a name, and no prose."""
MOST_LINES: Final = 3
"""How many lines may lie between the begin of a changed node and the first line that changes. A key beyond counts as gone."""
Place: TypeAlias = tuple[cst.CSTNode, cst.CSTNode, int, int, str]
"""The node, its replacement, its line, the line of its statement, and the function."""
UNTESTED_CALLS: Final = m.OneOf(m.Name("cast"), m.Attribute(value=m.Name("log")), m.Name("assert_never"))


def negated(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    """`if x` becomes `if not x`."""
    inner = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(operator=cst.Not(), expression=inner))


def left_out(node: cst.Expr) -> Iterator[cst.CSTNode]:
    """A statement that is a call becomes none."""
    if m.matches(node.value, m.Call() | m.Await()):
        yield cst.Pass()


def returning_nothing(node: cst.Return) -> Iterator[cst.CSTNode]:
    """`return x` becomes `return None`."""
    if node.value is not None and not m.matches(node.value, m.Name("None")):
        yield node.with_changes(value=cst.Name("None"), whitespace_after_return=cst.SimpleWhitespace(" "))


Operator = Callable[[Any], Iterable[cst.CSTNode]]
OPERATORS: Final[tuple[tuple[Any, Operator], ...]] = (
    *mutation_operators,
    ((cst.If, cst.While), negated),
    (cst.Expr, left_out),
    (cst.Return, returning_nothing),
)


@attrs.frozen
class Mutant:
    """One change to one function."""

    path: str
    """Of the module, from the root of the project."""
    line: int
    """Where the change begins."""
    statement: int
    """Where the statement begins that contains the change."""
    function: str
    """The outermost function that it is in, by its qualified name."""
    text: str = attrs.field(repr=False)
    """The whole module, changed."""
    diff: tuple[str, ...]
    """The removed lines, after `-`, and the added lines, after `+`."""

    @property
    def key(self) -> str:
        """What a table calls it: it stays what it is when lines above it come and go."""
        return f"{self.path}::{self.function}: {' '.join(' '.join(line.split()) for line in self.diff)}"

    def __str__(self) -> str:
        return "\n".join([f"{self.path}:{self.line}  {self.function}", *(f"    {line}" for line in self.diff)])


def _diff(old: str, new: str) -> tuple[str, ...]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return tuple(f"{line[0]} {line[1:].strip()}" for line in lines if line[:1] in {"-", "+"} and line[:3] not in {"---", "+++"})


class _Places(cst.CSTVisitor):
    """Collects the nodes that can be replaced, with what replaces them."""

    METADATA_DEPENDENCIES = (PositionProvider, ParentNodeProvider)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Place] = []
        self.names: list[str] = []
        self.functions: list[str] = []
        self.statements: list[int] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Look at a node; say whether to look into it."""
        match node:
            case cst.Annotation() | cst.Decorator() | cst.Parameters() | cst.Assert() | cst.Import() | cst.ImportFrom():
                return False
            case cst.Call() if m.matches(node.func, UNTESTED_CALLS):
                return False
            case cst.Expr(value=cst.SimpleString()):
                return False
            case cst.ClassDef(name=name):
                self.names.append(name.value)
            case cst.FunctionDef(name=name):
                self.names.append(name.value)
                self.functions.append(".".join(self.names))
                return True
            case cst.BaseStatement() | cst.BaseSmallStatement() | cst.MatchCase() | cst.ExceptHandler():
                self.statements.append(self._line(node))
        if self.functions:
            self._replace(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        """Leave a node."""
        match original_node:
            case cst.Assert() | cst.Import() | cst.ImportFrom() | cst.Expr(value=cst.SimpleString()):
                return
            case cst.ClassDef():
                self.names.pop()
            case cst.FunctionDef():
                self.names.pop()
                self.functions.pop()
            case cst.BaseStatement() | cst.BaseSmallStatement() | cst.MatchCase() | cst.ExceptHandler():
                self.statements.pop()

    def _line(self, node: cst.CSTNode) -> int:
        return self.get_metadata(PositionProvider, node).start.line

    def _replace(self, node: cst.CSTNode) -> None:
        if isinstance(node, cst.SimpleString) and not NAME.fullmatch(node.value):
            return
        is_message = m.matches(node, m.Call()) and m.matches(self.get_metadata(ParentNodeProvider, node), m.Raise() | m.From())
        if is_message:
            return  # an error without its words is found by no caller, one of another class is
        line = self._line(node)
        statement = self.statements[-1] if self.statements else line
        for kinds, operator in OPERATORS:
            if isinstance(node, kinds):
                news = list(operator(node))
                if isinstance(node, cst.SimpleString):
                    news = news[:1]  # another text is as wrong as one more letter
                self.found.extend((node, new, line, statement, self.functions[0]) for new in news)


@functools.cache  # a module is read once
def places_in(path: Path) -> tuple[cst.Module, list[Place]]:
    """Return a module's tree, and what can be replaced in it, in the order of the text."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text(encoding="utf-8")))
    places = _Places()
    wrapper.visit(places)
    return wrapper.module, places.found


def _may_be(keys: Collection[str], path: Path, module: cst.Module, lines: Sequence[str], place: Place) -> bool:
    _, new, line, _, function = place
    begin = f"{path.relative_to(ROOT).as_posix()}::{function}: - "
    near = {" ".join(text.split()) for text in lines[line - 1 : line - 1 + MOST_LINES]}
    code = module.code_for_node(new).strip()
    text = "" if "\n" in code else " ".join(code.split())  # of several lines some may be as they were
    return any(text in key and any(key.startswith(begin + tail) for tail in near if tail) for key in keys if key.startswith(begin))


def mutants_of(group: str, chosen: Callable[[int], Iterable[int]] = range, only: Collection[str] | None = None) -> tuple[int, list[Mutant]]:
    """Return how many places a group has, and the chosen mutants. A change that is not valid Python gives no mutant.

    Args:
        group: of `GROUPS`.
        chosen: given how many there are, the numbers of those to make.
        only: the keys to look for: made are the mutants of their functions that begin near the first line that they change.
    """
    every: list[tuple[Path, cst.Module, Place]] = []
    for path in files_of(group):
        if only is None or any(key.startswith(f"{path.relative_to(ROOT).as_posix()}::") for key in only):
            module, places = places_in(path)
            lines = module.code.splitlines()
            every += [(path, module, place) for place in places if only is None or _may_be(only, path, module, lines, place)]
    made: list[Mutant] = []
    for number in chosen(len(every)):
        path, module, (old, new, line, statement, function) = every[number]
        changed = module.deep_replace(old, new)
        text = changed.code if isinstance(changed, cst.Module) else ""
        name = path.relative_to(ROOT).as_posix()
        try:
            compile(text, name, "exec")
        except SyntaxError:
            continue
        made.append(Mutant(name, line, statement, function, text, _diff(module.code, text)))
    return len(every), made

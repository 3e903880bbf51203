"""Nothing grows too long to be read: modules, functions, and classes with their fields and methods."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import pytest

import trio_sagents

ROOT: Final = Path(trio_sagents.__file__).parent
MODULES: Final = tuple(sorted(ROOT.rglob("*.py")))
MAX_LINES: Final = 700
MAX_FUNCTION_LINES: Final = 60
MAX_FIELDS: Final = 15
MAX_METHODS: Final = 25

LARGE: Final[Mapping[str, str]] = {
    "conversation.state.ConversationState": "a field for each part of a conversation that is stored",
    "conversation.state.Step": "a field for each thing that one commit may change",
    "web._policy.WebPolicy": "as SessionPolicy: each field is a limit that a host may want to change, and none depends on another",
    "data.config.SessionPolicy": "each field is a setting that a host may want to change, and none depends on another",
    "agent._nested.NestedTurn": "it implements the turn's context for a sub-agent, which has as many members as the context",
    "cli._chat.Chat": "to be split: the state of the prompt, the screen and the conversation are in one class",
    "broadcast._subscription.Subscription": "one reader's place in a conversation; what is to be read of it is in classes of its own",
    "sessions._sessions.Sessions": "the front door, which lists everything that a host may ask for; each method is short",
    "nodes._mirror.Mirror": "it implements `OwnedAgent`, which lists everything that an agent may be asked for; each method is short",
    "nodes._post_office.PostOffice": "mail is sent, received and answered in one place, so that no call is answered twice",
    "supervisor._agent.LiveAgent": "the one class that knows all parts of an agent; each method hands on to one of them",
    "persistence.memory._Stored": "one stored conversation: each part of a commit has its own field",
    "asyncio._sessions.Sessions": "it has the methods of `sessions._sessions.Sessions`",
    "supervisor._services.Services": "a field for each service and each table of the whole block; it has no behaviour",
    "supervisor._journal.Journal": "the one writer of a conversation: what is submitted, stored, applied and told goes through it",
    "supervisor._registry.Entry": "one reservation: its boot, its end, and who waits for either of them",
    "supervisor._live_turn.LiveTurn": "it implements the turn's context, which lists everything that a turn may ask for",
}
"""Classes with more fields or methods than the limits, and the reason. A class that gets smaller leaves the table."""


@attrs.frozen
class Size:
    """How large a class is, without what it inherits."""

    fields: int
    methods: int

    @property
    def is_large(self) -> bool:
        """Whether the class needs a reason."""
        return self.fields > MAX_FIELDS or self.methods > MAX_METHODS


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _fields(node: ast.ClassDef) -> set[str]:
    """Return the annotated fields of a class, and what its `__init__` and `__attrs_post_init__` assign to `self`."""
    fields = set()
    for child in node.body:
        match child:
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if "ClassVar" not in ast.unparse(annotation):
                fields.add(name)
            case ast.FunctionDef(name="__init__" | "__attrs_post_init__"):
                fields |= {
                    inner.attr
                    for inner in ast.walk(child)
                    if isinstance(inner, ast.Attribute)
                    and isinstance(inner.ctx, ast.Store)
                    and isinstance(inner.value, ast.Name)
                    and inner.value.id == "self"
                }
    return fields


def _classes() -> Iterator[tuple[str, Size]]:
    """Yield (qualified name, size) of each class. A property and its setter are one method."""
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = {child.name for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)}
                yield f"{_name(path)}.{node.name}", Size(len(_fields(node)), len(methods))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_when_long(path: Path) -> None:
    """No module is longer than one subject needs."""
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= MAX_LINES


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_function_when_long(path: Path) -> None:
    """No function is longer than a page; its docstring does not count."""
    long: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            lines = 1 + ((body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0)
            if lines > MAX_FUNCTION_LINES:
                long[node.name] = lines

    assert {} == long


def test_classes_when_large() -> None:
    """No class has more than 15 fields or 25 methods without a written reason, and no reason is out of date."""
    large = {name: size for name, size in _classes() if size.is_large}

    assert set(LARGE) == set(large), large

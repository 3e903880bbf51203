"""Nothing public does nothing: of each name there is code in the library that makes it, calls it, raises it or reads it.

The library's own source is scanned. That a name occurs where it is defined, in a docstring, in a comparison or in a pattern makes nothing.
What nothing makes today is listed in `MISSING`, with what is missing; an entry that has become true must be taken out of the list.
"""

import ast
import enum
import functools
import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio

import trio_sagents
from tests.support.scenarios import make_config
from trio_sagents import DisplayMessagePersistence, LocalPubSub, Middleware, MiddlewareEvent, open_sessions
from trio_sagents.data import config, events, interrupts, messages, records, scopes

ROOT: Final = Path(trio_sagents.__file__).parent
MISSING: Final[Mapping[str, str]] = {}
"""By name, what would have to happen to make it true."""

CONTENT_TYPES: Final = ("text", "thinking", "image", "file_reference", "tool_call", "tool_result", "notification", "error")
"""As `DisplayMessage.content_type` lists them."""


# ── what the source does


@attrs.frozen
class Uses:
    """What the library's source makes, calls, raises, reads and says."""

    makers: Mapping[str, frozenset[str]]
    """By the name of a class or function: the modules that call it, or hand it on to be called."""
    members: Mapping[str, frozenset[str]]
    """By "Enum.MEMBER": the modules that use it as a value."""
    words: Mapping[str, frozenset[str]]
    """By a text: the modules that use it as a value."""
    attributes: Mapping[str, frozenset[str]]
    """By the name of an attribute: the modules that read it."""
    fields: Mapping[str, frozenset[str]]
    """By "Class.field", and by "evolve.field": the modules that give it in a call."""
    content: Mapping[str, frozenset[str]]
    """By a content type: the modules that make rows of it."""
    asked: Mapping[str, frozenset[str]]
    """By an action: the modules that ask whether somebody may do it."""


def _parents(tree: ast.AST) -> dict[int, ast.AST]:
    return {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _only_looks(node: ast.AST, parents: Mapping[int, ast.AST]) -> bool:
    """Return whether an expression is compared, matched, imported, a docstring, or part of a type: then it makes nothing."""
    below, above = node, parents.get(id(node))
    while above is not None and not isinstance(above, ast.stmt):
        if isinstance(above, ast.Compare | ast.pattern | ast.arg):
            return True
        if isinstance(above, ast.Call) and _name(above.func) in {"isinstance", "issubclass", "cast", "TypeVar"}:
            return True
        below, above = above, parents.get(id(above))
    match above:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.AnnAssign(annotation=annotation) if below is annotation:
            return True
        case ast.FunctionDef(returns=returns) | ast.AsyncFunctionDef(returns=returns) if below is returns:
            return True
        case ast.AnnAssign(annotation=annotation):
            return _name(annotation) == "TypeAlias"
        case ast.ClassDef(bases=bases):
            return below in bases
        case _:
            return False


def _constants(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the texts that occur in some expressions."""
    for node in nodes:
        yield from (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant) and isinstance(inner.value, str))


def _content(node: ast.AST) -> Iterator[str]:
    """Yield the content types in whatever makes a row: an argument of `DisplayMessage`, or a member of a returned tuple."""
    match node:
        case ast.Call(func=function, args=arguments, keywords=keywords):
            yield from _constants([*arguments] if _name(function) == "DisplayMessage" else ())
            yield from _constants(keyword.value for keyword in keywords if keyword.arg == "content_type")
        case ast.Yield(value=ast.Tuple(elts=members)) | ast.Return(value=ast.Tuple(elts=members)):
            yield from _constants(member for member in members if isinstance(member, ast.Constant))
        case ast.Return(value=ast.IfExp() | ast.Constant() as value):
            yield from _constants(child for child in ast.walk(value) if isinstance(child, ast.Constant))


def _asked(node: ast.AST) -> Iterator[str]:
    """Yield the actions that some code asks about."""
    match node:
        case ast.Call(func=function, args=arguments) if _name(function) in {"require", "allows", "find", "_ask"}:
            yield from _constants(arguments)
        case ast.AnnAssign(annotation=ast.Name(id="Action"), value=ast.expr() as value):
            yield from _constants([value])


def _given(node: ast.Call, name: str) -> Iterator[str]:
    """Yield "Class.field" for what a call gives; the fields that are given by place are counted."""
    for keyword in node.keywords:
        if keyword.arg is not None:
            yield f"{name}.{keyword.arg}"
    for place, argument in enumerate(node.args):
        yield f"{name}.*" if isinstance(argument, ast.Starred) else f"{name}.{place}"


@functools.cache
def uses() -> Uses:
    """Read all of the library's source, but for the kit for tests."""
    found: dict[str, dict[str, set[str]]] = {field.name: {} for field in attrs.fields(Uses)}

    def add(kind: str, name: str, module: str) -> None:
        found[kind].setdefault(name, set()).add(module)

    for path in sorted(ROOT.rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").as_posix()
        if module.startswith("testing/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        parents = _parents(tree)
        for node in ast.walk(tree):
            for word in _content(node):
                add("content", word, module)
            for word in _asked(node):
                add("asked", word, module)
            if isinstance(node, ast.Call):
                for field in _given(node, _name(node.func)):
                    add("fields", field, module)
            elif isinstance(node, ast.Name) and not _only_looks(node, parents):
                add("makers", node.id, module)
            elif isinstance(node, ast.Attribute):
                add("attributes", node.attr, module)
                if isinstance(node.value, ast.Name) and not _only_looks(node, parents):
                    add("members", f"{node.value.id}.{node.attr}", module)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not _only_looks(node, parents):
                add("words", node.value, module)
            elif isinstance(node, ast.keyword) and node.arg is not None:
                add("words", node.arg, module)
    return Uses(**{kind: {name: frozenset(modules) for name, modules in names.items()} for kind, names in found.items()})


def _elsewhere(modules: frozenset[str] | None, *own: str) -> set[str]:
    """Return the modules but for those of the definition."""
    return set(modules or ()) - set(own)


def _module_of(value: Any) -> str:
    return str(value.__module__).removeprefix("trio_sagents.").replace(".", "/")


# ── what there is


HOSTS_MAKE: Final = frozenset(
    {
        "Budget",
        "DebugLog",
        "MemoryCluster",
        "MemoryLeases",
        "MiddlewareEvent",
        "ProcessContext",
        "Scope",
        "SqliteCluster",
        "SqliteFiles",
        "SqliteLeases",
        "StoredState",
        "ToolResultPart",
    }
)
"""Classes that only hosts make, or inherit from. `ToolResultPart` is made under its own name, `ToolResult`."""


def _public(base: type) -> Iterator[tuple[str, type]]:
    for name in trio_sagents.__all__:
        value = getattr(trio_sagents, name)
        if inspect.isclass(value) and issubclass(value, base):
            yield name, value


def _events() -> Iterator[tuple[str, bool]]:
    seen = uses().makers
    for event in typing.get_args(events.Event):
        if event is not MiddlewareEvent:
            yield event.__name__, bool(_elsewhere(seen.get(event.__name__), "data/events"))


def _members() -> Iterator[tuple[str, bool]]:
    for name, kind in _public(enum.Enum):
        for member in typing.cast("type[enum.Enum]", kind):
            yield f"{name}.{member.name}", bool(_elsewhere(uses().members.get(f"{name}.{member.name}"), _module_of(kind)))


def _classes() -> Iterator[tuple[str, bool]]:
    seen = uses().makers
    for name, kind in _public(object):
        if kind in typing.get_args(events.Event):
            continue
        if issubclass(kind, Exception) and kind is not trio_sagents.SagentsError:
            yield f"error {name}", any(seen.get(maker.__name__) for maker in (kind, *kind.__subclasses__()))
        elif not issubclass(kind, Exception | enum.Enum) and not getattr(kind, "_is_protocol", False) and name not in HOSTS_MAKE:
            yield f"class {name}", bool(seen.get(name))


def _literals() -> Iterator[tuple[str, bool]]:
    seen = uses()
    for kind, values, where, own in (
        ("Lifecycle", typing.get_args(records.Lifecycle), seen.words, "data/records"),
        ("Action", typing.get_args(scopes.Action), seen.asked, ""),
        ("tool status", typing.get_args(messages.ToolStatus), seen.words, "data/messages"),
        ("decision", typing.get_args(interrupts.DecisionKind), seen.words, "data/interrupts"),
        ("content type", CONTENT_TYPES, seen.content, ""),
    ):
        for word in values:
            yield f"{kind} {word!r}", bool(_elsewhere(where.get(word), own))


def _hooks() -> Iterator[tuple[str, bool]]:
    """A hook is called by the library; that one middleware of the library has it or hands it on is not enough."""
    seen = uses()
    for name, function in vars(Middleware).items():
        if not name.startswith("_") and (inspect.isfunction(function) or isinstance(function, property)):
            used = _elsewhere(seen.words.get(name), "agent/_agent") | _elsewhere(seen.attributes.get(name), "agent/_agent")
            yield (
                f"hook Middleware.{name}",
                any(not module.startswith(("middleware/", "otel/", "mcp/")) for module in used) or (name == "middleware_id"),
            )


def _optional_methods() -> Iterator[tuple[str, bool]]:
    """What the docstring of a port lists behind "Optional:" is called."""
    listed = (inspect.getdoc(DisplayMessagePersistence) or "").partition("Optional:")[2]
    for name in re.findall(r"`(\w+)`", listed):
        used = _elsewhere(uses().words.get(name), "storage/ports") | _elsewhere(uses().attributes.get(name), "storage/ports")
        yield f"optional DisplayMessagePersistence.{name}", bool(used)


def _fields() -> Iterator[tuple[str, bool]]:
    seen = uses()
    for cls in (config.SessionPolicy, config.TurnLimits, trio_sagents.SessionConfig):
        for field in attrs.fields(cls):
            yield f"{cls.__name__}.{field.name}", bool(seen.attributes.get(field.name))
    for cls in (interrupts.Interrupt, interrupts.DecisionRecord, events.Snapshot, events.ChainError):
        for place, field in enumerate(attrs.fields(cls)):
            ways = (f"{cls.__name__}.{field.name}", f"{cls.__name__}.{place}", f"evolve.{field.name}", f"{cls.__name__}.*")
            yield f"field {cls.__name__}.{field.name}", any(seen.fields.get(way) for way in ways)


FACTS: Final = dict([*_events(), *_members(), *_classes(), *_literals(), *_hooks(), *_optional_methods(), *_fields()])
"""By name, whether the library makes it, calls it, raises it or reads it."""


@pytest.mark.parametrize("name", FACTS)
def test_name_when_it_is_public(name: str) -> None:
    """The library makes, calls, raises or reads it; or `MISSING` says what is missing, as long as that is so."""
    assert (name not in MISSING) == FACTS[name], MISSING.get(name, "nothing makes it")


class SpyPubSub(LocalPubSub):
    """Keeps the topics on which something was published."""

    def __init__(self) -> None:
        super().__init__()
        self.topics: list[str] = []

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish, and keep the topic."""
        self.topics.append(topic)
        super().publish(topic, payload)


async def test_pubsub_when_a_viewer_comes(autojump_clock: Any) -> None:
    """Presence travels by the pub/sub of the config; or `MISSING` says that it does not."""
    pubsub = SpyPubSub()
    async with open_sessions(make_config(pubsub=pubsub)) as sessions, sessions.watch("c", viewer="alice"):
        await trio.sleep(1)

    assert ("SessionConfig.pubsub travels" not in MISSING) == bool(pubsub.topics)


def test_missing_when_it_is_read() -> None:
    """`MISSING` names only what there is, so an entry goes when its name does."""
    assert set() == set(MISSING) - set(FACTS) - {"SessionConfig.pubsub travels"}


@pytest.mark.parametrize(
    ("code", "only_looks"),
    [
        ("x = Status.IDLE", False),
        ("f(Status.IDLE)", False),
        ("x = y is Status.IDLE", True),
        ("x: Status.IDLE = 1", True),
        ("def f() -> Status.IDLE: ...", True),
        ("match x:\n    case Status.IDLE: pass", True),
        ("match x:\n    case 1: y = Status.IDLE", False),
        ("isinstance(x, Status.IDLE)", True),
        ("class C(Status.IDLE): ...", True),
    ],
)
def test_scan_when_a_name_is_only_looked_at(code: str, only_looks: bool) -> None:
    """A comparison, a pattern or a type makes nothing: a scan that finds everything made would prove nothing."""
    tree = ast.parse(code)
    (node,) = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]

    assert only_looks == _only_looks(node, _parents(tree))

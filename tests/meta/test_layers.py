"""The architecture, as tests: who may import whom, in which order, and which modules are pure.

Two tables say what is allowed. `ALLOWED` is about the units, which are the top-level modules and subpackages. `ORDER` is about the
modules inside one package. Every import counts, those for the type checker and those inside functions too.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import pytest

import trio_sagents

PACKAGE: Final = "trio_sagents"
ROOT: Final = Path(trio_sagents.__file__).parent
MODULES: Final = tuple(sorted(ROOT.rglob("*.py")))

# ── what each unit may import

_BASE: Final = frozenset({"data", "exceptions", "_text", "_trio"})
ALLOWED: Final[Mapping[str, frozenset[str]]] = {
    "_text": frozenset(),
    "exceptions": frozenset({"_text"}),
    "_trio": frozenset({"_text", "exceptions"}),
    "_sqlite": _BASE,
    "_postgres": _BASE,
    "data": frozenset({"_text", "exceptions"}),
    "conversation": frozenset({"_text", "data", "exceptions"}),
    "abc": frozenset({"agent", "broadcast", "data", "sessions", "storage", "supervisor"}),
    "storage": _BASE | {"conversation"},
    "agent": _BASE | {"conversation"},
    "broadcast": _BASE | {"conversation.rows"},
    "models": _BASE,
    "files": _BASE | {"_sqlite"},
    "mcp": _BASE | {"agent"},
    "otel": _BASE | {"agent"},
    "middleware": _BASE | {"agent", "files"},
    "persistence": _BASE | {"_postgres", "_sqlite"},
    "cluster": _BASE | {"_postgres", "_sqlite", "nodes"},
    "supervisor": _BASE | {"agent", "broadcast", "conversation", "storage"},
    "nodes": _BASE | {"broadcast", "conversation", "supervisor"},
    # `persistence.memory` is the default store, and the only adapter that the layers from here down may know.
    "sessions": _BASE | {"agent", "broadcast", "conversation", "nodes", "storage", "supervisor", "persistence.memory"},
    "__init__": frozenset(
        {
            "abc",
            "agent",
            "broadcast",
            "cluster",
            "data",
            "exceptions",
            "files",
            "middleware",
            "nodes",
            "persistence",
            "sessions",
            "supervisor",
        }
    ),
    "testing": frozenset({"__init__", "agent", "data", "exceptions", "mcp", "nodes", "persistence", "storage", "supervisor"}),
    "asyncio": frozenset({"__init__", "_trio", "data", "exceptions", "sessions"}),
    "web": frozenset({"__init__"}),
    "cli": frozenset({"__init__", "cluster", "nodes", "files", "mcp", "middleware", "models", "persistence", "web"}),
}
"""From each unit, the units or modules that it may import."""

# ── the order of the modules in each package

ORDER: Final[Mapping[str, Sequence[str]]] = {
    "_sqlite": ("kinds", "opening", "watching"),
    "_postgres": ("migrating", "database"),
    "_trio": ("groups", "failures", "hosts", "opening", "place", "timers", "tree", "watching"),
    "agent": (
        "_text_types",
        "_shapes",
        "_compounds",
        "_pydantic",
        "_json_forms",
        "_constraints",
        "_docstrings",
        "_schema",
        "_tool_text",
        "_model",
        "_tools",
        "_host",
        "_progress",
        "_agent",
        "_context",
        "_identity",
        "_middleware",
        "_checks",
        "_gate",
        "_model_call",
        "_attempts",
        "_shortening",
        "_asking",
        "_tool_chain",
        "_nested",
        "_tool_calls",
        "_until",
        "_steps",
        "_turn",
        "_extract",
    ),
    "asyncio": (
        "_waiting",
        "_signals",
        "_steps",
        "_guest",
        "_job",
        "_crossing",
        "_block",
        "_handles",
        "_readers",
        "_presence",
        "_streams",
        "_sessions",
        "_open",
        "_asgi",
    ),
    "broadcast": (
        "_feed",
        "_flusher",
        "_backlog",
        "_subscription",
        "_announcements",
        "_subscriber",
        "_page_present",
        "_page_view",
        "_pubsub",
        "_presence_wire",
        "_differences",
        "_peers",
        "_exchange",
        "_presence",
    ),
    "cli": (
        "_words",
        "_lines",
        "_colours",
        "_screen",
        "_prompt",
        "_keyboard",
        "_models",
        "_servers",
        "_arithmetic",
        "_notebook",
        "_tools",
        "_folder",
        "_agent",
        "_setup",
        "_catalogue",
        "_progress",
        "_news",
        "_render",
        "_preview",
        "_decide",
        "_deciding",
        "_commands",
        "_chat",
        "_once",
        "_migrate",
        "_nodes",
        "_serve",
        "_main",
        "__main__",
    ),
    "cluster": ("_rules", "_file", "memory", "sqlite", "sqlite_nodes", "_postgres_nodes", "postgres"),
    "conversation": (
        "limits",
        "ids",
        "history",
        "failures",
        "validity",
        "decided",
        "rows",
        "checkpoints",
        "unfinished",
        "state",
        "codec",
        "pending",
        "status",
        "outcomes",
        "expansions",
        "expiry",
        "results",
        "closing",
        "decisions",
        "messages_in",
        "turn_steps",
    ),
    "data": (
        "json",
        "scopes",
        "ids",
        "cursors",
        "errors",
        "status",
        "config",
        "retries",
        "todos",
        "messages",
        "interrupts",
        "records",
        "outcomes",
        "state",
        "requests",
        "wire",
        "draft_wire",
        "decisions",
        "events",
        "interrupt_wire",
        "event_wire",
        "estimates",
        "reading",
    ),
    "files": (
        "_errors",
        "_paths",
        "_text",
        "_backend",
        "_config",
        "_changes",
        "_serial_queue",
        "_entry",
        "_volume",
        "_details",
        "_saving",
        "_changing",
        "_tree",
        "_area",
        "memory",
        "_walk",
        "directory",
        "sqlite",
        "_system",
    ),
    "mcp": (
        "_servers",
        "_errors",
        "_wire",
        "_answers",
        "_results",
        "_schemas",
        "_tools",
        "_streams",
        "_stdio",
        "_http",
        "_listening",
        "_memory",
        "_opening",
        "_connection",
        "_middleware",
    ),
    "middleware": (
        "_built_in",
        "_own_calls",
        "_transcripts",
        "ask_user",
        "budget",
        "conversation_title",
        "debug_log",
        "files",
        "patch_tool_calls",
        "process_context",
        "sub_agents",
        "approvals",
        "summarization",
        "todo_list",
    ),
    "models": (
        "_thinking",
        "_dialects",
        "_fields",
        "_failure_words",
        "_errors",
        "_environment",
        "_tls",
        "_sse",
        "_answer",
        "_settings",
        "_parts",
        "_history",
        "_notices",
        "_anthropic_request",
        "_anthropic_events",
        "anthropic",
        "_openai_extras",
        "_openai_calls",
        "_openai_request",
        "_openai_events",
        "openai",
        "_responses_request",
        "_responses_events",
        "openai_responses",
        "_offline_readers",
        "_offline_asks",
        "_offline_jobs",
        "_offline_words",
        "_offline_duties",
        "offline",
        "_names",
    ),
    "nodes": (
        "_ports",
        "_calls",
        "_releases",
        "_keeper",
        "_wire",
        "_letters",
        "_links",
        "_post_office",
        "_present",
        "_relay",
        "_desk",
        "_mirror",
        "_bus",
        "_neighbours",
    ),
    "otel": ("_attributes", "_contents", "_spans", "_tracing"),
    "persistence": (
        "_records",
        "_windows",
        "_sqlite_windows",
        "_sqlite_schema",
        "_sqlite_messages",
        "_sqlite_tables",
        "_sqlite_group_commit",
        "_sqlite_migration",
        "memory",
        "sqlite",
        "_postgres_schema",
        "_postgres_windows",
        "_postgres_tables",
        "postgres",
    ),
    "sessions": (
        "_routing",
        "_collecting",
        "_config",
        "_reports",
        "_watch",
        "_mailboxes",
        "_admission",
        "_page",
        "_commands",
        "_boot",
        "_task",
        "_starting",
        "_recovering",
        "_deleting",
        "_closing",
        "_sessions",
        "_open",
    ),
    "storage": ("ports", "returned", "adapter", "unified", "state_data", "memory_states", "transcript", "split", "commit_queue"),
    "supervisor": (
        "_bell",
        "_blueprint",
        "_access",
        "_admission",
        "_info",
        "_receipts",
        "_registry",
        "_leases",
        "_services",
        "_rows",
        "_journal",
        "_lifetime",
        "_status_board",
        "_drafts",
        "_host",
        "_live_turn",
        "_turns",
        "_inbox",
        "_approvals",
        "_agent",
        "_release",
        "_handle",
    ),
    "testing": (
        "_threads",
        "_trio_hooks",
        "_scripted",
        "_habits",
        "invariants",
        "_spy",
        "_store_values",
        "_store_pages",
        "_store_people",
        "_store_windows",
        "conformance_store",
        "conformance_lease",
        "conformance_cluster",
        "conformance_pubsub",
        "_scheduler",
        "_plan",
        "_crash",
        "_faults",
        "_faulty_cluster",
        "_simulation",
        "_tally",
        "_simulator",
        "_sweeps",
        "machines",
        "__main__",
        "_local_server",
        "_wire_words",
        "_speakers",
        "providers",
        "mcp_server",
    ),
    "web": (
        "_asgi",
        "_policy",
        "_request",
        "_visitor",
        "_guards",
        "_json",
        "_wire",
        "_commands",
        "_prices",
        "_texts",
        "_viewers",
        "_connections",
        "_shared",
        "_http",
        "_static",
        "_lanes",
        "_rate",
        "_socket",
        "_events",
        "_routes",
        "_bridge",
        "_quart",
        "_health",
        "_login",
        "_moves",
        "_told",
        "_relay",
        "_answers",
        "_frames",
        "_vercel",
        "_ag_ui",
        "_turn_stream",
        "_turn_routes",
        "_ui_messages",
        "_vercel_routes",
        "_ag_ui_routes",
    ),
}
"""The modules of each package, the lowest first: a module may import those before it. `__init__` comes last."""

NOT_YET: Final[frozenset[str]] = frozenset()
"""Packages whose modules still import each other in a circle. A package that no longer does moves to `ORDER`."""

# ── what may be imported inside a function

LAZY: Final[Mapping[tuple[str, str], str]] = {
    ("models", "models.anthropic"): "the extra `anthropic`: the SDK is imported when the adapter is used",
    ("models", "models.openai"): "the extra `openai`: the SDK is imported when the adapter is used",
    ("models", "models.openai_responses"): "the extra `openai`: the SDK is imported when the adapter is used",
    ("cli._keyboard", "cli._prompt"): "the extra `tui`: without it the command reads plain lines",
    ("cli._screen", "cli._colours"): "the extra `tui`: without it the command prints plain text",
    ("cli._servers", "mcp"): "the extra `mcp`: without it the command has no servers",
    ("cli._main", "cli._serve"): "the extra `web`: the server is imported when it is to serve",
    ("cli._nodes", "cluster.postgres"): "the extra `postgres`: it is imported when a database is named",
    ("web._quart", "quart"): "the framework of the application: the bridge itself needs none",
    ("testing.mcp_server", "mcp"): "the extra `mcp`; and the file is a program of its own, which starts at once",
    ("cli._lines", "termios"): "not on every system",
}
"""From a module, and what a function of it imports: the reason."""

# ── what is pure

PURE: Final = ("data", "conversation")
IMPURE: Final = frozenset(
    {"asyncio", "io", "logging", "os", "pathlib", "random", "socket", "sqlite3", "subprocess", "threading", "time", "trio"}
)
"""What a pure package must not import: it waits for nothing, opens nothing, logs nothing and asks no clock."""
CLOCKS: Final = frozenset({"now", "utcnow", "today"})
"""Methods of `datetime` that ask a clock."""

# ── who composes an agent

COMPOSED: Final = "LiveAgent"
"""The class that composes the parts of an agent; the parts do not know it."""
COMPOSER: Final = "supervisor._agent"
"""The only module that names it, when the supervisor has been rebuilt."""
COMPOSED_NAMES: Final = frozenset({"live"})
"""Variables and fields that hold the composed agent."""
MOST_CHAINS: Final = 24
"""How many chains like `live.ledger.queue` reach through it. To be lowered to 24 when the supervisor has been rebuilt."""
MOST_NAMING: Final = 0
"""How many other modules name it. To be lowered to 0 when the supervisor has been rebuilt."""


@attrs.frozen
class Import:
    """One import statement's target."""

    target: str
    line: int
    in_function: bool


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES: Final[Mapping[str, Path]] = {_name(path): path for path in MODULES}


def _short(dotted: str) -> str:
    """Return a name without the package's."""
    return dotted.removeprefix(f"{PACKAGE}.")


def _unit(dotted: str) -> str:
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _imports(path: Path) -> Sequence[Import]:
    """Return every import of a module, wherever in the file it is. `if TYPE_CHECKING` makes no difference."""
    tree = _tree(path)
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inside = {id(child) for function in functions for child in ast.walk(function)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(alias.name, node.lineno, id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{_name(path)} has a relative import; write the whole name"
            assert node.module is not None
            for alias in node.names:  # `from package import module` names a module, `from module import name` does not
                child = f"{node.module}.{alias.name}"
                found.append(Import(child if child in NAMES else node.module, node.lineno, id(node) in inside))
    return found


def _ours(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a module imports."""
    yield from (each.target for each in _imports(path) if each.target in NAMES)


def _is_allowed(unit: str, target: str) -> bool:
    other = _unit(target)
    return other == unit or other in ALLOWED[unit] or _short(target) in ALLOWED[unit]


def _circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that reach each other, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1:
                circles.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return circles


def _misplaced(package: str, order: Sequence[str]) -> list[str]:
    """Return a sentence for each import of a module that comes later in the order of its package."""
    place = {f"{PACKAGE}.{package}.{name}": number for number, name in enumerate(order)}
    place[f"{PACKAGE}.{package}"] = len(order)
    return [
        f"{_short(name)} imports {_short(target)}, which comes later"
        for name in place
        for target in _ours(NAMES[name])
        if target in place and place[target] >= place[name] and target != name
    ]


def _packages() -> set[str]:
    return {path.parent.name for path in MODULES if path.name == "__init__.py" and path.parent != ROOT}


# ── units


def test_units_when_one_is_new() -> None:
    """A new subpackage declares what it may import before it imports anything."""
    units = {_unit(name) for name in NAMES}

    assert set() == units - set(ALLOWED)


@pytest.mark.parametrize("name", NAMES)
def test_imports_when_they_leave_the_unit(name: str) -> None:
    """A module imports from its own unit, and from the units that are declared to be below it."""
    unit = _unit(name)

    assert [] == [target for target in _ours(NAMES[name]) if not _is_allowed(unit, target)]


# ── circles and orders


def test_imports_when_followed_in_circles() -> None:
    """No two modules import each other, not even through others, and not even for the type checker."""
    graph = {name: set(_ours(path)) - {name} for name, path in NAMES.items()}
    unknown = [group for group in _circles(graph) if not {_unit(name) for name in group} <= NOT_YET]

    assert [] == unknown


def test_orders_when_a_package_is_new() -> None:
    """Each package with more than one module declares the order of its modules."""
    larger = {package for package in _packages() if len(list((ROOT / package).glob("*.py"))) > 1}

    assert larger == set(ORDER) | NOT_YET
    assert set() == set(ORDER) & NOT_YET


@pytest.mark.parametrize("package", sorted(ORDER))
def test_order_when_complete(package: str) -> None:
    """The order names every module of the package once, and nothing else."""
    modules = [path.stem for path in (ROOT / package).glob("*.py") if path.stem != "__init__"]

    assert sorted(modules) == sorted(ORDER[package])


@pytest.mark.parametrize("package", sorted(ORDER))
def test_order_when_followed(package: str) -> None:
    """No module imports a later module of its package."""
    assert [] == _misplaced(package, [name for name in ORDER[package] if f"{PACKAGE}.{package}.{name}" in NAMES])


@pytest.mark.parametrize("package", sorted(ORDER))
def test_order_when_the_package_prints_it(package: str) -> None:
    """A package whose docstring lists its modules, lowest first, lists them in the declared order."""
    docstring = ast.get_docstring(_tree(ROOT / package / "__init__.py")) or ""
    printed = tuple(re.findall(r"^    (\w+)  +\S", docstring, re.MULTILINE)) if "lowest first" in docstring else None

    assert printed in {None, tuple(ORDER[package])}


def test_order_when_it_is_still_missing() -> None:
    """A package is excused as long as its modules import each other in a circle, and no longer."""
    for package in NOT_YET:
        names = [name for name in NAMES if _unit(name) == package]
        graph = {name: set(_ours(NAMES[name])) & set(names) - {name} for name in names}

        assert _circles(graph), f"{package} has no circle any more: declare its order in ORDER, and take it out of NOT_YET"


def test_circles_when_there_are_some() -> None:
    """The search finds circles of two modules and of more, and nothing else."""
    graph = {"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"e"}, "e": {"c"}, "f": {"a", "f2"}, "f2": set()}

    assert [["a", "b"], ["c", "d", "e"]] == sorted(_circles(graph))


# ── imports inside functions


def test_imports_when_they_are_inside_functions() -> None:
    """A function imports only an optional dependency that is listed, with a reason."""
    lazy = {(_short(name), _short(each.target)) for name, path in NAMES.items() for each in _imports(path) if each.in_function}

    assert lazy == set(LAZY)


# ── purity


@pytest.mark.parametrize("name", [name for name in NAMES if _unit(name) in PURE])
def test_pure_module_when_it_imports(name: str) -> None:
    """A pure module knows no Trio, no log, no files and no clock, so its rules can be tested without any."""
    imported = {each.target.partition(".")[0] for each in _imports(NAMES[name])}

    assert set() == imported & IMPURE


@pytest.mark.parametrize("name", [name for name in NAMES if _unit(name) in PURE])
def test_pure_module_when_it_wants_the_time(name: str) -> None:
    """A pure module is told the time: it does not ask for the time of day, and it awaits nothing."""
    nodes = list(ast.walk(_tree(NAMES[name])))
    asked = [
        node.func.attr
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CLOCKS
        and "date" in ast.unparse(node.func.value)
    ]

    assert [] == asked
    assert [] == [node.lineno for node in nodes if isinstance(node, ast.Await)]


# ── who composes an agent


def test_composed_agent_when_named() -> None:
    """Only the composing module names the composed agent: the parts get values, the journal and small callables."""
    naming = {
        _short(name)
        for name, path in NAMES.items()
        for node in ast.walk(_tree(path))
        if (isinstance(node, ast.Name) and node.id == COMPOSED)
        or (isinstance(node, ast.alias) and node.name == COMPOSED)
        or (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value == COMPOSED)
    }

    assert len(naming - {COMPOSER}) <= MOST_NAMING, sorted(naming)


def _reaches_through(node: ast.AST) -> bool:
    """Whether an expression is `live.x.y`, or `self.live.x.y`."""
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)):
        return False
    base = node.value.value
    return (isinstance(base, ast.Name) and base.id in COMPOSED_NAMES) or (isinstance(base, ast.Attribute) and base.attr in COMPOSED_NAMES)


def test_composed_agent_when_reached_through() -> None:
    """Few chains like `live.x.y` reach through the composed agent into one of its parts."""
    chains = [
        f"{_short(name)}:{node.lineno}: {ast.unparse(node)}"
        for name, path in NAMES.items()
        for node in ast.walk(_tree(path))
        if _reaches_through(node)
    ]

    assert len(chains) <= MOST_CHAINS, "\n".join(chains)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("live.ledger.queue", True), ("self.live.ledger.queue", True), ("live.ledger", False), ("self.live.ledger", False), ("a.b.c", False)],
)
def test_chain_when_counted(text: str, expected: bool) -> None:
    """A chain reaches through the agent if it goes on behind the agent's own field."""
    assert expected == _reaches_through(ast.parse(text, mode="eval").body)

"""The delivered names keep the signatures of `api.pyi`: programs that nobody here will see are written against them."""

import ast
import enum
import importlib
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from trio_sagents.abc import FactoryRouter

STUB: Final = ast.parse(Path(__file__).with_name("api.pyi").read_text(encoding="utf-8"))
Statement = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign


def _promised() -> Iterator[tuple[str, str, Statement]]:
    """Yield (module, name, statement) for every name of the page."""
    module = ""
    for node in STUB.body[1:]:
        match node:
            case ast.Expr(value=ast.Constant(value=str(name))):
                module = name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield module, name, node
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield module, name, node


def _of(kind: type[ast.stmt] | tuple[type[ast.stmt], ...]) -> list[Any]:
    return [pytest.param(module, name, node, id=f"{module}.{name}") for module, name, node in _promised() if isinstance(node, kind)]


def _real(module: str, name: str) -> Any:
    if module == "trio_sagents.models" and name in {"AnthropicModel", "OpenAIModel"}:
        pytest.importorskip(name.removesuffix("Model").lower())
    return getattr(importlib.import_module(module), name)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, Any, ast.expr | None]]:
    """Yield (name, kind, default) for each parameter that a stub has."""
    kinds = inspect.Parameter
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    for index, (argument, default) in enumerate(zip(positional, defaults, strict=True)):
        yield argument.arg, kinds.POSITIONAL_ONLY if index < len(arguments.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD, default
    if arguments.vararg is not None:
        yield arguments.vararg.arg, kinds.VAR_POSITIONAL, None
    for kwonlyarg, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield kwonlyarg.arg, kinds.KEYWORD_ONLY, default
    if arguments.kwarg is not None:
        yield arguments.kwarg.arg, kinds.VAR_KEYWORD, None


def _differences(where: str, node: ast.FunctionDef | ast.AsyncFunctionDef, real: Any, *, is_bound: bool = False) -> Iterator[str]:
    """Yield each difference from the stub. More parameters are allowed if they have defaults."""
    found = dict(inspect.signature(real).parameters)
    promised = list(_parameters(node))
    if is_bound:
        promised = promised[1:]
    places = list(found)
    for place, (name, kind, default) in enumerate(promised):
        parameter = found.pop(name, None)
        if parameter is None:
            yield f"{where} has no parameter {name!r}"
            continue
        if parameter.kind is not kind:
            yield f"{where}: {name!r} is {parameter.kind.description}, not {kind.description}"
        if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and places.index(name) != place:
            yield f"{where}: {name!r} stands at place {places.index(name)}, not {place}"
        has_default = parameter.default is not inspect.Parameter.empty
        if kind in {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}:
            continue
        if has_default != (default is not None):
            yield f"{where}: {name!r} {'has a' if has_default else 'has no'} default"
        elif default is not None and not _is_ellipsis(default) and parameter.default != ast.literal_eval(default):
            yield f"{where}: the default of {name!r} is {parameter.default!r}, not {ast.unparse(default)}"
    for name, parameter in found.items():
        if parameter.default is inspect.Parameter.empty and parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
            yield f"{where}: {name!r} is new, and has no default"
    inner = inspect.unwrap(real)
    if inspect.iscoroutinefunction(inner) != isinstance(node, ast.AsyncFunctionDef):
        yield f"{where} is {'not ' if isinstance(node, ast.AsyncFunctionDef) else ''}async"


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _attribute_differences(name: str, node: ast.ClassDef, cls: type) -> Iterator[str]:
    wanted = [
        statement.target.id for statement in node.body if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]
    fields = [field.name for field in attrs.fields(cls)] if attrs.has(cls) else []
    annotated = typing.get_type_hints(cls) if getattr(cls, "_is_protocol", False) else {}
    for attribute in wanted:
        if attribute in fields or attribute in annotated or isinstance(inspect.getattr_static(cls, attribute, None), property):
            continue
        if f"self.{attribute}" in inspect.getsource(cls):
            continue  # set by __init__, of an error or a plain class
        yield f"{name} has no attribute {attribute!r}"
    if attrs.has(cls):
        order = [attribute for attribute in fields if attribute in wanted]
        if order != [attribute for attribute in wanted if attribute in fields]:
            yield f"{name} has its fields in the order {order}"


def _member_differences(name: str, node: ast.ClassDef, cls: Any) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            member = statement.targets[0].id
            if member not in cls.__members__:
                yield f"{name} has no member {member!r}"
            elif not _is_ellipsis(statement.value) and cls[member].value != ast.literal_eval(statement.value):
                yield f"{name}.{member} is {cls[member].value!r}"


def _method_differences(name: str, node: ast.ClassDef, cls: type) -> Iterator[str]:
    for statement in node.body:
        if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        decorators = {ast.unparse(decorator) for decorator in statement.decorator_list}
        static = inspect.getattr_static(cls, statement.name, None)
        if "property" in decorators:
            is_field = attrs.has(cls) and statement.name in [field.name for field in attrs.fields(cls)]
            if not isinstance(static, property) and not is_field:
                yield f"{name} has no property {statement.name!r}"
        elif statement.name == "__init__":
            yield from _differences(name, statement, cls, is_bound=True)
        elif static is None:
            yield f"{name} has no method {statement.name!r}"
        elif statement.name not in {"__aiter__", "__anext__", "__str__"}:
            real = getattr(cls, statement.name)
            yield from _differences(f"{name}.{statement.name}", statement, real, is_bound="classmethod" in decorators)


def test_page_when_read() -> None:
    """The page has names, and none of them twice."""
    names = [(module, name) for module, name, _ in _promised()]

    assert len(names) > 100
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("module", "name", "node"), _of(ast.ClassDef))
def test_class_when_compared(module: str, name: str, node: ast.ClassDef) -> None:
    """A class has the bases, attributes, members and methods that the page says."""
    cls = _real(module, name)
    differences = [*_attribute_differences(name, node, cls), *_method_differences(name, node, cls)]
    if issubclass(cls, enum.Enum):
        differences += _member_differences(name, node, cls)
    bases = {base.__name__ for base in cls.__mro__}
    differences += [f"{name} is no {ast.unparse(base)}" for base in node.bases if ast.unparse(base).partition("[")[0] not in bases]

    assert [] == differences


@pytest.mark.parametrize(("module", "name", "node"), _of((ast.FunctionDef, ast.AsyncFunctionDef)))
def test_function_when_compared(module: str, name: str, node: ast.FunctionDef) -> None:
    """A function has the parameters that the page says."""
    assert [] == list(_differences(name, node, _real(module, name)))


@pytest.mark.parametrize(("module", "name", "node"), _of(ast.Assign))
def test_value_when_compared(module: str, name: str, node: ast.Assign) -> None:
    """A literal or constant is what the page says; of other types only the name is compared."""
    real = _real(module, name)
    match node.value:
        case ast.Constant(value=value):
            assert value == real
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            assert ast.literal_eval(choices) == typing.get_args(real)
        case ast.BinOp():
            members = {part.strip() for part in ast.unparse(node.value).split("|")}
            assert members == {member.__name__ for member in typing.get_args(real)}
        case _:
            assert real is not None


def test_comparison_when_something_differs() -> None:
    """The comparison finds each kind of difference: a test that cannot fail is useless."""
    wrong = ast.parse("def resolve(self, conversation_id, scope, opts=1, *, more): ...").body[0]
    assert isinstance(wrong, ast.FunctionDef)
    found = list(_differences("resolve", wrong, FactoryRouter.resolve))

    assert [
        "resolve: 'conversation_id' stands at place 2, not 1",
        "resolve: 'scope' stands at place 1, not 2",
        "resolve has no parameter 'opts'",
        "resolve has no parameter 'more'",
        "resolve: 'request_opts' is new, and has no default",
        "resolve is async",
    ] == found

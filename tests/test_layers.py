"""Who may import whom, and no cycle: checked on the source, so that an import counts wherever it stands.

An import inside a function, under TYPE_CHECKING or through `import_module("…")` ties two modules together as much
as one at the top.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "shadowcat"

BASE = "errors clock aio secret"
ALL_BUT_CLI = (
    f"{BASE} wire core http stores downstream upstream proxy plugins replay admin config demo doctor"
)

# The table of docs/architecture.md. A part may always import itself.
MAY_IMPORT = {
    "errors": "",
    "clock": "",
    "aio": "",
    "secret": "",
    "wire": "errors",
    "core": "errors wire",
    "http": BASE,
    "stores": f"{BASE} wire core",
    "downstream": f"{BASE} wire core http",
    "upstream": f"{BASE} wire core http",
    "proxy": f"{BASE} wire core",
    "plugins": f"{BASE} wire core",
    "replay": f"{BASE} wire core",
    "admin": f"{BASE} wire core proxy",
    "demo": f"{BASE} wire core http",
    "doctor": f"{BASE} wire http upstream",
    "config": "errors secret",
    "app": ALL_BUT_CLI,
    "cli": "app config errors secret wire",
    # The library's front, what it offers to its users' tests, and python -m shadowcat.
    "__init__": f"{ALL_BUT_CLI} app",
    "testing": f"{ALL_BUT_CLI} app",
    "__main__": "cli",
}

# Parts that decide and never do: time, chance and I/O are handed to them.
PURE = ("wire", "core")
IMPURE = ("asyncio", "socket", "time", "random", "os", "logging")


def find_modules(root: Path) -> dict[str, Path]:
    """The modules of the package at `root` by dotted name; a package goes by its own name, without __init__."""
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def find_imports(module: str, modules: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """Every import in a module: its line, and the module it names in full."""
    path = modules[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(names=names):
                source = _resolve("." * node.level + (node.module or ""), package)
                for alias in names:
                    inner = f"{source}.{alias.name}"
                    yield node.lineno, inner if inner in modules else source
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, _resolve(name, package)


def _resolve(name: str, package: str) -> str:
    level = len(name) - len(name.lstrip("."))
    if level == 0:
        return name
    base = package.split(".")[: len(package.split(".")) - (level - 1)]
    return ".".join([*base, name[level:]]) if name[level:] else ".".join(base)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def rule_breaks(root: Path) -> list[str]:
    """The imports that the table does not allow, one line each."""
    modules = find_modules(root)
    broken: list[str] = []
    for module in modules:
        part = part_of(module)
        if part not in MAY_IMPORT:
            broken.append(f"{module}: {part!r} has no row in the table")
            continue
        for line, target in find_imports(module, modules):
            top = target.split(".")[0]
            if top == root.name:
                allowed = part_of(target) in (part, *MAY_IMPORT[part].split())
            else:
                allowed = not (part in PURE and top in IMPURE)
            if not allowed:
                broken.append(f"{module}:{line}: {part} may not import {target}")
    return broken


def find_cycle(root: Path) -> str | None:
    modules = find_modules(root)
    graph = {
        module: {_known(target, modules) for _, target in find_imports(module, modules)} - {""}
        for module in modules
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # graphlib lists each module before the one that imports it.
        return " -> ".join(reversed(error.args[1]))
    return None


def _known(target: str, modules: dict[str, Path]) -> str:
    """The module that a dotted name ends up in, or nothing when it is not one of ours."""
    while target and target not in modules:
        target = target.rpartition(".")[0]
    return target


def test_every_import_follows_the_table() -> None:
    assert rule_breaks(SOURCE) == []


def test_no_import_cycle() -> None:
    assert find_cycle(SOURCE) is None


def test_the_source_is_found() -> None:
    assert "shadowcat.errors" in find_modules(SOURCE)


def test_the_table_names_only_its_own_rows() -> None:
    assert {name for row in MAY_IMPORT.values() for name in row.split()} <= set(MAY_IMPORT)


# From here on: the checks themselves are checked, on small trees with one thing wrong.


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "shadowcat"


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for package in path.relative_to(root.parent).parents:
            if package.name:
                (root.parent / package / "__init__.py").touch()
        path.write_text(text)
    return root


UNDER_TYPE_CHECKING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "
IN_A_FUNCTION = "def f():\n    "


@pytest.mark.parametrize(
    "statement",
    [
        "import shadowcat.core.stream",
        "import shadowcat.core.stream as s",
        "from shadowcat.core.stream import StreamLog",
        "from shadowcat.core import stream",
        "from shadowcat import core",
        "from ..core import stream",
        "from ..core.stream import StreamLog",
        "from .. import core",
        "import importlib; importlib.import_module('shadowcat.core.stream')",
        "from importlib import import_module; import_module('..core', __package__)",
        "__import__('shadowcat.core')",
    ],
)
@pytest.mark.parametrize("place", ["", UNDER_TYPE_CHECKING, IN_A_FUNCTION], ids=["top", "typing", "lazy"])
def test_a_forbidden_import_is_caught(root: Path, statement: str, place: str) -> None:
    plant(root, {"core/stream.py": "", "wire/sse.py": place + statement})
    (only,) = rule_breaks(root)
    assert only.startswith("shadowcat.wire.sse:")
    assert "wire may not import shadowcat.core" in only


def test_an_import_from_a_package_file_is_resolved_from_the_package(root: Path) -> None:
    plant(root, {"core/stream.py": "", "wire/__init__.py": "from ..core import stream"})
    assert rule_breaks(root) == ["shadowcat.wire:1: wire may not import shadowcat.core.stream"]


def test_allowed_imports_pass(root: Path) -> None:
    plant(
        root,
        {
            "errors.py": "import enum",
            "wire/sse.py": "from shadowcat.errors import Fault\nfrom shadowcat.wire import lines",
            "wire/lines.py": "import re\nimport osmosis",
            "http/server.py": "import asyncio, os, logging\nfrom shadowcat import errors",
            "app.py": "from shadowcat.http import server",
            "cli/main.py": "from shadowcat import app",
            "__main__.py": "from shadowcat.cli import main",
            "__init__.py": "from shadowcat.app import App",
        },
    )
    assert rule_breaks(root) == []
    assert find_cycle(root) is None


@pytest.mark.parametrize("part", PURE)
@pytest.mark.parametrize("module", IMPURE)
@pytest.mark.parametrize("statement", ["import {}", "from {} import path", "import {}.path as p"])
def test_a_pure_part_imports_nothing_impure(root: Path, part: str, module: str, statement: str) -> None:
    plant(root, {f"{part}/x.py": IN_A_FUNCTION + statement.format(module)})
    (only,) = rule_breaks(root)
    assert f"{part} may not import {module}" in only


def test_a_part_without_a_row_is_caught(root: Path) -> None:
    plant(root, {"utils.py": ""})
    assert rule_breaks(root) == ["shadowcat.utils: 'utils' has no row in the table"]


@pytest.mark.parametrize("place", ["", UNDER_TYPE_CHECKING, IN_A_FUNCTION], ids=["top", "typing", "lazy"])
def test_a_cycle_inside_a_part_is_caught(root: Path, place: str) -> None:
    files = {f"wire/{a}.py": place + f"from shadowcat.wire import {b}" for a, b in pairwise("abca")}
    assert find_cycle(plant(root, files)) is not None
    assert rule_breaks(root) == []


def test_a_cycle_is_told_in_the_order_of_its_imports(root: Path) -> None:
    files = {f"wire/{a}.py": f"import shadowcat.wire.{b}" for a, b in pairwise("abca")}
    cycle = find_cycle(plant(root, files))
    assert cycle is not None
    told = [module.rpartition(".")[2] for module in cycle.split(" -> ")]
    assert set(pairwise(told)) == {("a", "b"), ("b", "c"), ("c", "a")}


def test_a_cycle_through_a_package_is_caught(root: Path) -> None:
    plant(
        root,
        {
            "wire/__init__.py": "from shadowcat.wire.sse import SseEvent",
            "wire/sse.py": IN_A_FUNCTION + "from shadowcat.wire import Message",
        },
    )
    assert find_cycle(root) is not None


def test_a_package_may_gather_modules_that_know_each_other(root: Path) -> None:
    plant(
        root,
        {
            "wire/__init__.py": "from shadowcat.wire.sse import SseEvent",
            "wire/sse.py": "from shadowcat.wire import lines",
            "wire/lines.py": "",
        },
    )
    assert find_cycle(root) is None

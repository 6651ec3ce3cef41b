"""The values that were given, each with its source, in a tree of tables in which later values win."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias, cast


class Origin(NamedTuple):
    name: str
    """A file, a variable, a flag."""
    is_file: bool = False

    def where(self, path: str) -> str:
        """As a person looks for it."""
        return f"{self.name}: {path}" if self.is_file and path else self.name


DEFAULT = Origin("default")


class Given(NamedTuple):
    value: Any
    origin: Origin
    is_text: bool = False
    """From where everything is text, also numbers."""


Tables: TypeAlias = "dict[str, Tables | Given]"


def tables_of(value: Mapping[str, Any], origin: Origin) -> Tables:
    return {name: _node(inner, origin) for name, inner in value.items()}


def _node(value: Any, origin: Origin) -> Tables | Given:
    if isinstance(value, Mapping) and value:  # one with nothing in it would not tell where it comes from
        return tables_of(cast(Mapping[str, Any], value), origin)
    return Given(value, origin)


def plain(node: Tables | Given) -> Any:
    """As it was written."""
    return node.value if isinstance(node, Given) else {name: plain(inner) for name, inner in node.items()}


def put(tables: Tables, path: tuple[str, ...], given: Given) -> None:
    *parents, name = path
    for parent in parents:
        inner = tables.setdefault(parent, {})
        assert isinstance(inner, dict), f"{parent} of {path} is a value"
        tables = inner
    tables[name] = given


def merged(earlier: Tables, later: Tables) -> Tables:
    """Tables are put together name by name, values are replaced whole."""
    result = dict(earlier)
    for name, inner in later.items():
        before = result.get(name)
        is_both = isinstance(before, dict) and isinstance(inner, dict)
        result[name] = merged(before, inner) if is_both else inner  # type: ignore[arg-type] - just looked at
    return result


def origin_in(node: Tables | Given) -> Origin | None:
    """Of something in it."""
    if isinstance(node, Given):
        return node.origin
    return next((origin for inner in node.values() if (origin := origin_in(inner)) is not None), None)

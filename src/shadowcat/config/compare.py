"""Which settings differ between two versions of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from msgspec import Struct
from msgspec.structs import fields as struct_fields


def members(table: Any) -> Mapping[str, Any]:
    if isinstance(table, Struct):
        return {field.encode_name: getattr(table, field.name) for field in struct_fields(type(table))}
    return cast(Mapping[str, Any], table)


def is_table(value: Any) -> bool:
    return isinstance(value, Struct | dict)


def changed(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Their paths; that of a section where it came or went as a whole."""
    if is_table(old) and is_table(new):
        before, after = members(old), members(new)
        for name in (*before, *(name for name in after if name not in before)):
            yield from changed(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        yield path


def flat(table: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that is in it, by its path."""
    for name, value in members(table).items():
        inner = f"{path}.{name}" if path else name
        if is_table(value):
            yield from flat(value, inner)
        else:
            yield inner, value

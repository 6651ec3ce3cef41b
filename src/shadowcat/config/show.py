"""Prints the settings as a file with the same meaning, and where each comes from. Secrets are left out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date, time
from typing import Any, NamedTuple, cast

from shadowcat.config.compare import is_table, members
from shadowcat.config.load import Loaded
from shadowcat.config.problem import FILE_SUFFIX
from shadowcat.secret import Secret

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_COLUMN = 44


class _Line(NamedTuple):
    text: str
    origin: str = ""

    def __str__(self) -> str:
        return f"{self.text:<{_COLUMN}}  # {self.origin}" if self.origin else self.text


def shown(loaded: Loaded[Any]) -> str:
    return "".join(f"{line}\n" for line in _table(loaded, loaded.settings, "", ())).lstrip("\n")


def _table(loaded: Loaded[Any], table: Any, path: str, names: tuple[str, ...]) -> Iterator[_Line]:
    inside = members(table)
    # A section may know that secrets are written where others have none.
    shown = {**inside, **table.shown()} if hasattr(table, "shown") else inside
    values = [name for name, value in inside.items() if not is_table(value)]
    if names and values:
        yield _Line(f"\n[{'.'.join(map(_key, names))}]")
    for name in values:
        yield _value(loaded, f"{path}.{name}" if path else name, name, inside[name], shown[name])
    for name, value in inside.items():
        if is_table(value):
            yield from _table(loaded, shown[name], f"{path}.{name}" if path else name, (*names, name))


def _value(loaded: Loaded[Any], path: str, name: str, value: Any, shown: Any) -> _Line:
    origin = loaded.origin(path).name
    if isinstance(value, Secret):
        return _secret(loaded, path, name)
    if value is None:
        return _Line(f"# {name} is not set")
    told = shown.shown() if hasattr(shown, "shown") else shown
    if told != value:
        return _Line(f"# {name} = {_encoded(told)} and what may be secret", origin)
    return _Line(f"{_key(name)} = {_encoded(value)}", origin)


def _secret(loaded: Loaded[Any], path: str, name: str) -> _Line:
    file = loaded.files.get(path)
    if file is not None:
        return _Line(f"{name}{FILE_SUFFIX} = {_encoded(file)}", loaded.origin(path).name)
    return _Line(f"# {name} is secret", loaded.origin(path).name)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _encoded(name)


def _encoded(value: Any) -> str:
    """In TOML; its strings are those of JSON, but for one character."""
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, frozenset):
        return _encoded(sorted(cast(frozenset[Any], value)))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_encoded, cast(list[Any], value)))}]"
    pairs = (
        f"{_key(name)} = {_encoded(inner)}" for name, inner in members(value).items() if inner is not None
    )
    return f"{{ {', '.join(pairs)} }}"

"""What is wrong with a list of tools, resources or prompts: clients refuse it, or never reach its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shadowcat.doctor.loose import as_list, as_object

METHODS = {"tools": "tools/list", "resources": "resources/list", "prompts": "prompts/list"}
MAX_PAGES = 20
_NEEDED = {
    "tools": {"name": str, "inputSchema": dict},
    "resources": {"name": str, "uri": str},
    "prompts": {"name": str},
}


def flaws_of(capability: str, result: dict[str, Any]) -> Iterator[str]:
    """Of one page."""
    method = METHODS[capability]
    if not isinstance(result.get(capability), list):
        yield f"{method} is answered without a list of {capability}"
    for entry in as_list(result.get(capability)):
        described = as_object(entry)
        name = described.get("name")
        for member, kind in _NEEDED[capability].items():
            if not isinstance(described.get(member), kind):
                whose = f" {name!r}" if isinstance(name, str) else ""
                yield f"{method} has a {capability.removesuffix('s')}{whose} without {member}"
                break


def names_of(capability: str, result: dict[str, Any]) -> Iterator[str]:
    """On one page."""
    for entry in as_list(result.get(capability)):
        name = as_object(entry).get("name")
        if isinstance(name, str):
            yield name


def cursor_of(result: dict[str, Any]) -> str | None:
    """Of the page that follows."""
    cursor = result.get("nextCursor")
    return cursor if isinstance(cursor, str) and cursor else None

"""A value that is used but never shown, and the part of a URL that may be shown."""

from __future__ import annotations


class Secret:
    """Neither `repr` nor `str` tells it, so no log and no traceback does by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def shown_url(url: str) -> str:
    """Without who asks, and without what it asks with: both hold secrets. Other text is as it was."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    authority, slash, path = rest.partition("/")
    shown = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    return shown.partition("?")[0].partition("#")[0]

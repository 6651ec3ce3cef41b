"""The mistakes in what was given: all of them, one per line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from shadowcat.config.given import Given
from shadowcat.config.shape import SCALARS
from shadowcat.secret import shown_url

FILE_SUFFIX = "_file"
"""A secret called `key` stands in the file that `key_file` names."""
_SHOWN_CHARS = 60
_MAX_MEANT = 3


class ConfigError(Exception):
    """Each of `problems` is a line that names its place and says what was expected there."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def quoted(value: Any) -> str:
    """What was given, as far as it tells a person something."""
    if not isinstance(value, SCALARS):
        return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else "this"
    text = repr(shown_url(value)) if isinstance(value, str) else str(value).lower()
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def did_you_mean(
    word: str, known: Iterable[str], likeness: float = 0.6, elsewhere: Sequence[str] = ()
) -> str:
    """`elsewhere`: what is called just that, in another place. Of more than a few, none was meant."""
    close = elsewhere or get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f"; did you mean {' or '.join(close)}?" if 0 < len(close) <= _MAX_MEANT else ""


def told(given: Given, path: str, what: str) -> str:
    return f"{given.origin.where(path)}: {what}"

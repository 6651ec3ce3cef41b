"""Text for a line that a person reads. Nothing a peer wrote can end it, colour it, or turn it around."""

from __future__ import annotations

import re

# Control characters, the line separators of Unicode, and what changes the direction of text.
_FORGES = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_FRAME = " \t" + "".join(map(chr, range(0x2500, 0x25A0)))
"""Lines and blocks, of which banners and tracebacks are made."""


def on_one_line(text: str) -> str:
    return _FORGES.sub(_escaped, text.encode("utf-8", "backslashreplace").decode())


def printable(raw: bytes, max_chars: int = 1_000) -> str:
    text = raw[: max_chars * 4].decode("utf-8", "backslashreplace")
    shown = _FORGES.sub(_escaped, text[:max_chars])
    return shown if len(text) <= max_chars and len(raw) <= max_chars * 4 else shown + "…"


def without_frame(text: str) -> str:
    """A line without the box that a program has drawn around it; empty for a piece of the box alone."""
    return text.strip(_FRAME)


def counted(number: int, noun: str) -> str:
    """`1 request`, `2 requests`, `no requests`."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]

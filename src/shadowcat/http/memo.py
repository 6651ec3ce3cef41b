"""The last head of a connection, read once.

Who keeps a connection open sends the same head again and again; only the length of the body changes, and a server's
date once a second. What llhttp and the checks made of a head is then taken from here. Nothing gets around them: the
bytes must be those they judged, but for the digits of Content-Length, and the message must be all there is.

Measured on a relay: a seventh of the CPU time of a request.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

T = TypeVar("T")

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)(?=[ \t]*\r\n)", re.IGNORECASE)
_MAX_DIGITS = 7


class HeadMemo(Generic[T]):
    """`T` is what was made of the head."""

    __slots__ = ("_after", "_before", "_digits", "_head", "_length", "_value")

    def __init__(self) -> None:
        # No message starts with a line end followed by nothing: until something was learned nothing is recalled.
        self._before = b"\r"
        self._after = b""
        self._value: T | None = None
        self._head = b"\r"
        """With the length that it had last, which is often the next one's too."""
        self._digits = b""
        self._length = 0

    def learn(self, message: bytes, value: T) -> None:
        """`message` was judged to be one good message; anything around it, or no length in it, and it is not kept."""
        head_length = message.find(b"\r\n\r\n") + 4
        found = _LENGTH.search(message, 0, head_length)
        if found is not None and head_length + int(found[1]) == len(message):
            self._before = message[: found.start(1)]
            self._after = message[found.end(1) : head_length]
            self._value = value
            self._note_length(found[1])

    def keep(self, value: T) -> None:
        """What was made of the head with the length that it had last."""
        self._value = value

    def _note_length(self, digits: bytes) -> None:
        self._digits = digits
        self._head = self._before + digits + self._after
        self._length = len(self._head) + int(digits)

    def recall(self, data: bytes) -> tuple[T, bytes, bytes] | None:
        """What was made of this head, the digits of the length, and the body; None if this is anything else."""
        if len(data) == self._length and data.startswith(self._head) and self._value is not None:
            return self._value, self._digits, data[len(self._head) :]
        before = self._before
        if not data.startswith(before):
            return None
        end = data.find(b"\r", len(before))
        digits = data[len(before) : end]
        if len(digits) > _MAX_DIGITS or not digits.isdigit():
            return None
        after = self._after
        body_at = end + len(after)
        if data[end:body_at] != after or len(data) - body_at != int(digits) or self._value is None:
            return None
        self._note_length(digits)
        return self._value, digits, data[body_at:]

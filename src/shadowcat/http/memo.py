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

    __slots__ = ("_digits_at", "_digits_end", "_head", "_length", "_value")

    def __init__(self) -> None:
        self._head = b""
        self._digits_at = self._digits_end = 0
        self._length = 0
        """Of the last message, which is often the next one's too."""
        self._value: T | None = None

    def learn(self, message: bytes, value: T) -> None:
        """`message` was judged to be one good message; anything around it, or no length in it, and it is not kept."""
        head_length = message.find(b"\r\n\r\n") + 4
        found = _LENGTH.search(message, 0, head_length)
        if found is not None and head_length + int(found[1]) == len(message):
            self._head = message[:head_length]
            self._digits_at, self._digits_end = found.span(1)
            self._length = len(message)
            self._value = value

    def keep(self, value: T) -> None:
        """What is made of the head with the length that it has now."""
        self._value = value

    def recall(self, data: bytes) -> tuple[T, bytes, bytes] | None:
        """What was made of this head, the digits of the length and the body; None if this is anything else.

        No digits where the length is the last one's, which is usual: then nothing about the head is another.
        """
        value = self._value
        if value is None:
            return None
        head, start = self._head, self._digits_at
        if len(data) == self._length and data.startswith(head):
            return value, b"", data[len(head) :]
        if data[:start] != head[:start]:
            return None
        end = data.find(b"\r", start)
        digits = data[start:end]
        if len(digits) > _MAX_DIGITS or not digits.isdigit():
            return None
        after = head[self._digits_end :]
        body_at = end + len(after)
        if data[end:body_at] != after or len(data) - body_at != int(digits):
            return None
        self._head, self._digits_end, self._length = data[:body_at], end, len(data)
        return value, digits, data[body_at:]

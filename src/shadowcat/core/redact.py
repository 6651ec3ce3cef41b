"""Secrets that must not be written down, recognised by their keys and by how they look.

A message is edited as text, so that all that is not secret stays as it was, byte for byte. Looked at are `params`,
`result` and `error`: values whose key says that they are secret, and strings that hold one, as plain text, as JSON
inside a string, or in base64. Most messages hold nothing of the kind; `Redactor.is_clean` finds that out in about a
microsecond.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw

from shadowcat.core.looks import Looks
from shadowcat.wire import json_strict
from shadowcat.wire.json_strict import JsonError
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.text import printable

MASK = "[redacted]"

SECRET_WORDS = (
    "authorization",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "cookie",
)
"""A key that holds one of these, in whatever spelling, is one of a secret."""

HARMLESS = ("progresstoken",)
_COUNTED = "tokens"
"""How many there are of them is no secret."""

_MAX_DEPTH_OF_TEXT = 3
"""JSON in a string in JSON in a string…"""

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class Redactor:
    """`keys` are those to redact beside the usual ones."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self.keys = tuple(keys)
        self._words = (*SECRET_WORDS, *filter(None, map(_plain, self.keys)))
        self._looks = Looks(self.keys)

    def is_clean(self, raw: bytes) -> bool:
        """Whether a look is enough to see that there is nothing to redact; also in several messages at once."""
        return self._looks.are_absent(raw)

    def redact(self, raw: bytes) -> bytes:
        """A JSON value without its secrets; the very same bytes where there are none."""
        return raw if not raw or self.is_clean(raw) else self._edited(raw, 0)

    def redact_message(self, message: Message) -> bytes:
        """All of a message, without the secrets in its parameters, result or error."""
        part = message.raw_params or message.raw_result or message.raw_error
        edited = self.redact(part)
        if edited == part:
            return message.raw
        if part[:1] == b"{" and edited[:1] != b"{":
            edited = b"{}"  # it cannot be told what is in it, and must stay an object
        if message.raw.count(part) > 1:
            # An id may hold the same text, before it or behind.
            return _with_part(message, edited)
        before, _, after = message.raw.partition(part)
        return before + edited + after

    # Values.

    def _edited(self, raw: bytes, depth: int) -> bytes:
        match raw[:1]:
            case b"{":
                return self._edited_object(raw, depth)
            case b"[":
                elements = _decode(raw, type=list[Raw])
                edited = [self._edited(bytes(element), depth) for element in elements]
                return _same_or(raw, elements, edited, lambda: b"[" + b",".join(edited) + b"]")
            case b'"':
                return self._edited_string(raw, depth)
            case _:
                return raw

    def _edited_string(self, raw: bytes, depth: int) -> bytes:
        text = _decode(raw, type=str)
        clean = self.text(text, depth)
        return raw if clean == text else _encode(clean)

    def _edited_object(self, raw: bytes, depth: int, *, names_only: bool = False) -> bytes:
        """`names_only`: the keys are names of arguments, and what stands under them describes them."""
        try:
            found = json_strict.members(raw)
        except JsonError:
            # Two values under one key: whoever reads it may take either.
            return _MASKED
        named = not names_only and self._names_a_secret(found)
        edited = [
            self._edited_member(key, bytes(value), depth, names_only, named) for key, value in found.items()
        ]
        return _same_or(raw, found.values(), edited, lambda: _object(found, edited))

    def _edited_member(self, key: str, value: bytes, depth: int, names_only: bool, named: bool) -> bytes:
        if (named and key == "value") or self.is_secret_key(key, value):
            if not (names_only and _is_schema(value)):
                return _masked(value)
        elif key == "properties" and value[:1] == b"{":
            return self._edited_object(value, depth, names_only=True)
        return self._edited(value, depth)

    def _names_a_secret(self, found: dict[str, Raw]) -> bool:
        """`{"name": "Authorization", "value": …}`, as headers and variables are often given."""
        if "value" not in found:
            return False
        for key in ("name", "key", "header"):
            raw = bytes(found.get(key, b""))
            if raw[:1] == b'"' and self.is_secret_key(_decode(raw, type=str)):
                return True
        return False

    def is_secret_key(self, key: str, value: bytes = b"") -> bool:
        plain = _plain(key)
        if plain in HARMLESS or not any(word in plain for word in self._words):
            return False
        is_number = value[:1] not in (b"", b'"', b"{", b"[")
        return not (is_number and plain.endswith(_COUNTED))

    # Texts.

    def text(self, text: str, depth: int = 0) -> str:
        """A string without the secrets in it."""
        if depth < _MAX_DEPTH_OF_TEXT and text.lstrip()[:1] in ("{", "["):
            inner = self._inner_json(text, depth)
            if inner is not None:
                return inner
        return self._looks.masked(text, MASK)

    def _inner_json(self, text: str, depth: int) -> str | None:
        raw = text.strip().encode("utf-8", "surrogatepass")
        try:
            _decode(raw, type=Raw)
            json_strict.check(raw)
        except (msgspec.MsgspecError, RecursionError, JsonError):
            return None
        edited = self._edited(raw, depth + 1)
        return text if edited == raw else edited.decode()


def shown(raw: bytes, max_chars: int) -> str:
    """What a peer wrote, as it may stand in a log: cut, on one line, without secrets."""
    # More of it than is shown: of a secret that is cut off nobody could tell that it is one.
    text = Redactor().text(raw[: max_chars * 8].decode("utf-8", "backslashreplace"))
    return printable(text.encode("utf-8", "backslashreplace"), max_chars)


def _with_part(message: Message, part: bytes) -> bytes:
    name = "params" if message.raw_params else message.kind.value
    found = json_strict.members(message.raw)
    return _object(found, [part if key == name else bytes(value) for key, value in found.items()])


def _plain(key: str) -> str:
    """`API-Key`, `api_key` and `apiKey` are one."""
    return re.sub(r"[-_ .]", "", key.lower())


def _is_schema(value: bytes) -> bool:
    if value[:1] != b"{":
        return False
    return not {"type", "$ref", "anyOf", "oneOf", "allOf", "enum", "description"}.isdisjoint(
        _decode(value, type=dict[str, Raw])
    )


_MASKED = _encode(MASK)


def _masked(value: bytes) -> bytes:
    """What stands under a secret's key: all of it, but whether there was anything."""
    return value if value in (b"null", b"true", b"false", b'""', b"{}", b"[]") else _MASKED


def _same_or(raw: bytes, before: Iterable[Raw], after: list[bytes], build: Callable[[], bytes]) -> bytes:
    return raw if all(bytes(old) == new for old, new in zip(before, after, strict=True)) else build()


def _object(found: Iterable[str], values: list[bytes]) -> bytes:
    members = (_encode(key) + b":" + value for key, value in zip(found, values, strict=True))
    return b"{" + b",".join(members) + b"}"

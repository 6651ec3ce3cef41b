"""What secrets look like in messages and texts: keys of known forms, `password=…`, either of them in base64.

No pattern may take the square of a text's length. Each begins where no word goes on, so that a run of a million
letters is not gone through a million times; one that may fail at the end of such a run does not begin inside it either.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable

_PIECE_CHARS = 64 * 1024
"""A regular expression holds up everything else for as long as it takes."""
_BASE64_CHARS = 19
"""Shorter runs hold no secret that would be known for one."""
_MAX_BASE64_CHARS = 8 * 1024

_FORMS = {
    "sk-": r"sk-[A-Za-z0-9_-]{16,}",
    "_live_": r"[a-z]{2,5}_live_[A-Za-z0-9]{10,}",
    "_test_": r"(?:sk|pk|rk)_test_[A-Za-z0-9]{10,}",
    "gh": r"gh[pousr]_[A-Za-z0-9]{20,}",
    "github_pat_": r"github_pat_[A-Za-z0-9_]{20,}",
    "glpat-": r"glpat-[A-Za-z0-9_-]{16,}",
    "xox": r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "AKIA": r"AKIA[A-Z0-9]{16}",
    "ASIA": r"ASIA[A-Z0-9]{16}",
    "AIza": r"AIza[A-Za-z0-9_-]{30,}",
    "ya29.": r"ya29\.[A-Za-z0-9_-]{20,}",
    "eyJ": r"(?<![_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",
    "npm_": r"npm_[A-Za-z0-9]{30,}",
    "pypi-": r"pypi-[A-Za-z0-9_-]{30,}",
    "hf_": r"hf_[A-Za-z0-9]{20,}",
    "SG.": r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "://": r"(?<=://)[^/\s:@]{1,256}:[^/\s@]{1,256}(?=@)",
}
"""What a text must hold for the form to be looked for, and the form."""

_LOOKS = [(needle, re.compile(rf"(?<![A-Za-z0-9]){form}")) for needle, form in _FORMS.items()]
_SCHEME = re.compile(r"\b(bearer|basic)\s{1,4}[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL
)

_NEEDLES = (
    *(b"authoriz", b"passw", b"passphrase", b"secret", b"token", b"key", b"credential", b"cookie"),
    *(b"bearer", b"basic", b"_live_", b"k_test_", b"xox", b"eyj", b"@", b"\\u00"),
)
"""What a message must hold, in lower case, for there to be a secret in it, unless it has a run like `_RUN`.

The last one begins a letter spelled with an escape, which none needs.
"""
_WORDS = ("authoriz", "passw", "passphrase", "secret", "key", "token", "cookie", "credential")
"""One of these stands in every pair."""
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
_FOLD = bytes(ord("A") if byte in _ALPHABET else ord(" ") for byte in range(256))
_RUN = b"A" * _BASE64_CHARS
_UUID_CHARS = 36
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![A-Za-z0-9+/_-])")
_BASE64 = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{_BASE64_CHARS},}}={{0,2}}")
_URL_SAFE = str.maketrans("-_", "+/")


class Looks:
    """`keys` are those of secrets beside the usual ones."""

    def __init__(self, keys: Iterable[str]) -> None:
        keys = tuple(keys)
        self._needles = (*_NEEDLES, *map(_needle_of, keys))
        self._pairs = _pairs_of(keys)
        self._words = (*_WORDS, *map(str.lower, keys))

    def are_absent(self, raw: bytes) -> bool:
        lowered = raw.lower()
        for needle in self._needles:
            if lowered.find(needle) >= 0 and not (needle == b"token" and _only_progress(lowered)):
                return False
        return _only_uuids(raw)

    def masked(self, text: str, mask: str) -> str:
        if "PRIVATE KEY" in text:
            text = _PRIVATE_KEY.sub(mask, text)
        return "".join(self._masked_piece(piece, mask) for piece in _pieces(text))

    def _masked_piece(self, text: str, mask: str) -> str:
        for needle, pattern in _LOOKS:
            if needle in text:
                text = pattern.sub(mask, text)
        lowered = text.lower()
        if _names_a_scheme(lowered):
            text = _SCHEME.sub(rf"\1 {mask}", text)
        if self._has_words(lowered):
            text = self._pairs.sub(rf"\1{mask}", text)
        if len(text) < _BASE64_CHARS:
            return text
        return _BASE64.sub(lambda run: mask if self._hides_a_secret(run[0]) else run[0], text)

    def _hides_a_secret(self, run: str) -> bool:
        return any(self._shows_a_secret(text) for text in _base64_texts(run[:_MAX_BASE64_CHARS]))

    def _shows_a_secret(self, text: str) -> bool:
        lowered = text.lower()
        return (
            "PRIVATE KEY" in text
            or any(needle in text and pattern.search(text) for needle, pattern in _LOOKS)
            or (_names_a_scheme(lowered) and _SCHEME.search(text) is not None)
            or (self._has_words(lowered) and self._pairs.search(text) is not None)
        )

    def _has_words(self, lowered: str) -> bool:
        """The pattern takes fifty times as long to find nothing."""
        return any(word in lowered for word in self._words)


def _needle_of(key: str) -> bytes:
    """The longest part of a key that is the same in every spelling of it."""
    return max(re.split(r"[-_ .]", key.lower()), key=len).encode()


def _names_a_scheme(lowered: str) -> bool:
    return "bearer" in lowered or "basic" in lowered


def _only_progress(lowered: bytes) -> bool:
    return lowered.count(b"token") == lowered.count(b'"progresstoken"')


def _only_uuids(raw: bytes) -> bool:
    """Whether all long runs are UUIDs, as tokens and ids often are: they hold nothing.

    To find the runs first takes a tenth of what it takes to have the expression find the UUIDs.
    """
    folded = raw.translate(_FOLD)
    at = folded.find(_RUN)
    while at >= 0:
        if _UUID.match(raw, at) is None:
            return False
        at = folded.find(_RUN, at + _UUID_CHARS)
    return True


_NO_COUNT = r"(?!(?<=token)s[\"'\\]{0,4}\s{0,4}[:=]\s{0,4}\d{1,12}(?:\.\d{1,6})?(?!\.?[\w+/=~@-]))"
"""Not `max_tokens=10`: how many there are is no secret."""


def _pairs_of(keys: Iterable[str]) -> re.Pattern[str]:
    """`password=…`, `api_key: …`, `"token": "…"` in running text."""
    usual = r"authorization|passw(?:or)?d|passphrase|secret|api[-_ ]?key|access[-_ ]?key|private[-_ ]?key|token|cookie"
    words = "|".join((usual, "credential", *(re.escape(key) for key in keys)))
    return re.compile(
        rf"((?:{words}){_NO_COUNT}[\w-]{{0,40}}[\"'\\]{{0,4}}\s{{0,4}}[:=]\s{{0,4}}[\"'\\]{{0,4}})[^\s\"'\\&,;<>\[]{{3,}}",
        re.IGNORECASE,
    )


def _base64_texts(run: str) -> Iterable[str]:
    run = run.rstrip("=").translate(_URL_SAFE)
    # As many as make whole bytes: a run that was cut, or has a letter more before it, shows most of what is in it.
    for start in (0, 1, 2, 3):
        part = run[start : start + (len(run) - start) // 4 * 4]
        rest = run[start + len(part) :]
        whole = part + (rest + "=" * (4 - len(rest)) if len(rest) > 1 else "")
        try:
            yield base64.b64decode(whole).decode("latin-1")
        except (binascii.Error, ValueError):
            continue


def _pieces(text: str) -> Iterable[str]:
    """A long text in pieces, cut at white space where there is any."""
    at = 0
    while len(text) - at > 2 * _PIECE_CHARS:
        end = text.find(" ", at + _PIECE_CHARS, at + 2 * _PIECE_CHARS)
        end = at + 2 * _PIECE_CHARS if end < 0 else end
        yield text[at:end]
        at = end
    yield text[at:]

"""Answers that no browser caches, sniffs, or shows in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

SECURE = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Problem(msgspec.Struct, kw_only=True):
    """What was wrong with a request."""

    reason: str
    """A word for programs."""
    error: str
    """A sentence for people."""


def answer(value: Any, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
    # With an end of line, for who asks with curl.
    body = msgspec.json.encode(value) + b"\n"
    return Response(body, status, {**SECURE, **(headers or {})}, media_type="application/json")


def problem(status: int, reason: str, told: str, *, headers: Mapping[str, str] | None = None) -> Response:
    return answer(Problem(reason=reason, error=told), status, headers=headers)

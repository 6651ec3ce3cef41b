"""Long lists, one page at a time. A cursor marks where the next page begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from heapq import nsmallest
from itertools import islice
from typing import TypeVar

from starlette.requests import Request

from shadowcat.admin.handles import HANDLE_CHARS, handle_of
from shadowcat.admin.operations import Parameter
from shadowcat.proxy.session import Session

T = TypeVar("T")

MAX_LIMIT = 500
USUAL_LIMIT = 100
_SESSION_CURSOR = rf"[0-9a-f]{{{HANDLE_CHARS}}}"
_STREAM_CURSOR = rf"[0-9a-f]{{{HANDLE_CHARS}}}\.[0-9]{{1,15}}"

LIMIT = Parameter(
    "limit",
    "How many at most.",
    {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": USUAL_LIMIT},
)
AFTER_SESSION = Parameter(
    "after", "`next` of the page before.", {"type": "string", "pattern": f"^{_SESSION_CURSOR}$"}
)
AFTER_STREAM = Parameter(
    "after", "`next` of the page before.", {"type": "string", "pattern": f"^{_STREAM_CURSOR}$"}
)


class BadParameter(ValueError):
    pass


def limit_of(request: Request) -> int:
    given = request.query_params.getlist("limit")
    if not given:
        return USUAL_LIMIT
    # No sign, no spaces, and no digits of other scripts, all of which `int` takes.
    if len(given) != 1 or not re.fullmatch(r"[0-9]{1,4}", given[0]) or not 1 <= int(given[0]) <= MAX_LIMIT:
        raise BadParameter(f"limit is a number from 1 to {MAX_LIMIT}")
    return int(given[0])


def session_cursor(request: Request) -> str:
    return _cursor(request, _SESSION_CURSOR)


def stream_cursor(request: Request) -> tuple[str, int]:
    session, _, stream = _cursor(request, _STREAM_CURSOR).partition(".")
    return session, int(stream or -1)


def _cursor(request: Request, pattern: str) -> str:
    given = request.query_params.getlist("after")
    if not given:
        return ""
    if len(given) != 1 or not re.fullmatch(pattern, given[0], re.ASCII):
        raise BadParameter("after is what a page before gave as next")
    return given[0]


def sessions_after(sessions: Iterable[Session], handle: str, limit: int) -> list[Session]:
    """In the order of their handles."""
    following = (session for session in sessions if handle_of(session.id) > handle)
    return nsmallest(limit, following, key=lambda session: session.id)


def page_of(found: Iterable[T], limit: int, cursor: Callable[[T], str]) -> tuple[list[T], str | None]:
    """The first of them, and where the next page begins if there is one."""
    page = list(islice(found, limit + 1))
    return page[:limit], cursor(page[limit - 1]) if len(page) > limit else None

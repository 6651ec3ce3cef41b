"""The operations as data. Routes and the OpenAPI document are both made from it, so they cannot differ."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    told: str
    schema: dict[str, Any]
    where: str = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its JSON as a type, or another content type, or nothing."""

    told: str
    json: Any = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    name: str
    told: str
    endpoint: Endpoint
    replies: dict[int, Reply]
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    """The type of the JSON that it takes, if any."""
    is_open: bool = False
    """Asked without a token."""

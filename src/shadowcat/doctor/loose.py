"""Reads what a server sent without trusting its shape: whatever has another shape reads as empty."""

from __future__ import annotations

from typing import Any, cast

from shadowcat.doctor.facts import Opened
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Meta


def as_object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def result_of(answer: Message | None) -> dict[str, Any]:
    return as_object(answer.result()) if answer is not None and answer.raw_result else {}


def refusal_of(answer: Message | None) -> tuple[int | None, str]:
    """The code and the sentence of an error."""
    error = answer.error() if answer is not None and answer.raw_error else {}
    code = error.get("code")
    return code if isinstance(code, int) else None, str(error.get("message", ""))


def promise_of(result: dict[str, Any], took_ms: float, *, has_session_id: bool = False) -> Opened | None:
    """What `initialize` or `server/discover` was answered with, if that is an answer to one of them."""
    version = result.get("protocolVersion")
    versions = [version] if isinstance(version, str) else as_list(result.get("supportedVersions"))
    if not versions:
        return None
    info = as_object(result.get("serverInfo") or as_object(result.get("_meta")).get(Meta.SERVER_INFO))
    name = f"{info.get('name', '')} {info.get('version', '')}".strip()
    capabilities = sorted(as_object(result.get("capabilities")))
    return Opened([str(one) for one in versions], name, capabilities, took_ms, has_session_id)

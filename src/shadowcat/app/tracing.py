"""Tracing, if requested: OpenTelemetry is loaded only then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shadowcat.errors import CannotTrace

if TYPE_CHECKING:
    from shadowcat.plugins.tracing import Tracing


def tracing(is_on: bool) -> tuple[Tracing, ...]:
    """Raises `CannotTrace`."""
    if not is_on:
        return ()
    try:
        from shadowcat.plugins.tracing import Tracing
    except ImportError as error:
        raise CannotTrace("OpenTelemetry is not installed: pip install 'shadowcat[otel]'") from error
    return (Tracing(),)

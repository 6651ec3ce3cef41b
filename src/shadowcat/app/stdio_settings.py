"""What `forward stdio` is run from: the sections of the configuration tree that apply to it, and no others.

Apart from `settings`, because that loads the HTTP side with all its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from shadowcat.app.logs import LogOptions
from shadowcat.config.load import Flag, Loaded, load
from shadowcat.plugins.recording.options import RecordOptions


class StdioSettings(Struct, frozen=True, kw_only=True):
    record: RecordOptions | None = None
    log: LogOptions = field(default_factory=lambda: LogOptions(level="warning"))


def load_stdio_settings(environment: Mapping[str, str], flags: Iterable[Flag]) -> Loaded[StdioSettings]:
    """Raises `ConfigError`."""
    return load(StdioSettings, environment=environment, flags=flags)

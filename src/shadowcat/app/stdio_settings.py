"""The settings of `forward stdio`: those sections of the configuration tree that apply to it.

Apart from `settings`, because that loads the HTTP side with all its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from shadowcat.app.logs import LogOptions
from shadowcat.app.plugin_settings import PluginTable
from shadowcat.config.load import Flag, Loaded, load
from shadowcat.plugins.hold import HoldOptions
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.rules import RulesOptions


class StdioSettings(Struct, frozen=True, kw_only=True):
    record: RecordOptions | None = None
    rules: RulesOptions | None = None
    plugins: PluginTable = {}
    hold: HoldOptions = field(default_factory=HoldOptions)
    log: LogOptions = field(default_factory=lambda: LogOptions(level="warning"))


def load_stdio_settings(environment: Mapping[str, str], flags: Iterable[Flag]) -> Loaded[StdioSettings]:
    """Raises `ConfigError`."""
    return load(StdioSettings, environment=environment, flags=flags)

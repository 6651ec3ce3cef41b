"""Interceptors by name: found, given their options, and replaced when their files change.

What is loaded anew is loaded whole, or what was there stays; a line in the log says which. Messages under way are
judged to the end by the interceptor that they began with.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from shadowcat.app.plugin_code import PluginCode
from shadowcat.app.plugin_settings import PluginSettings
from shadowcat.core.chain import Chain
from shadowcat.core.interceptor import Interceptor, Phase
from shadowcat.core.phases import method_meant
from shadowcat.core.rule_file import RuleFileError, read_rules
from shadowcat.errors import PluginError
from shadowcat.plugins.hold import HoldDesk, HoldOptions
from shadowcat.plugins.rules import Rules, RulesOptions
from shadowcat.proxy.pipeline import Pipeline

log = logging.getLogger("shadowcat.plugins")

LOOK_EVERY_S = 0.5

BUILT_IN = {
    "redact": "shadowcat.plugins.redact:Redact",
}


class _Source(Protocol):
    @property
    def label(self) -> str: ...

    @property
    def file(self) -> str | None:
        """Which is looked at for changes."""
        ...

    def make(self) -> Interceptor:
        """Raises `PluginError`."""
        ...


class Plugins:
    def __init__(self, sources: Sequence[_Source], desk: HoldDesk) -> None:
        """Raises `PluginError`."""
        self.desk = desk
        """Where rules hold messages."""
        self._sources = tuple(sources)
        # Before what is in them is read: a change meanwhile is then seen later.
        self._seen = [_signature(source.file) for source in self._sources]
        self._loaded = list(self._seen)
        self._current = [_made(source) for source in self._sources]

    @property
    def interceptors(self) -> Sequence[Interceptor]:
        return tuple(self._current)

    async def watch(self, pipeline: Pipeline) -> None:
        """Looks for changes for as long as it is let."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look(pipeline)

    def become(self, other: Plugins, pipeline: Pipeline) -> None:
        """Goes on as those, in the place that its own had."""
        beside = [one for one in pipeline.interceptors if one not in self._current]
        pipeline.put([*other._current, *beside])
        self._sources, self._seen, self._loaded = other._sources, other._seen, other._loaded
        self._current = other._current

    def look(self, pipeline: Pipeline) -> None:
        """Loads what has changed and is the same at a second look: until then it may be half written."""
        for at, source in enumerate(self._sources):
            signature = _signature(source.file)
            is_settled, self._seen[at] = signature == self._seen[at], signature
            if is_settled and signature != self._loaded[at]:
                self._loaded[at] = signature
                if signature is None:
                    log.warning("%s: the file is gone; keeping what was loaded before", source.label)
                else:
                    self._reload(at, source, pipeline)

    def _reload(self, at: int, source: _Source, pipeline: Pipeline) -> None:
        try:
            new = _made(source)
        except PluginError as error:
            log.error("%s; keeping what was loaded before", error)
        else:
            pipeline.replace(self._current[at], new)
            self._current[at] = new
            log.info("%s was reloaded", source.label)


def load_plugins(
    settings: Sequence[PluginSettings],
    *,
    rules: RulesOptions | None = None,
    hold: HoldOptions | None = None,
    upstreams: Collection[str] | None = None,
    desk: HoldDesk | None = None,
) -> Plugins:
    """The rules, then the others in their order; `upstreams` are the names that rules may use.

    Raises `PluginError`, whose one line says what is wrong, and where.
    """
    desk = desk or HoldDesk(hold)
    first = [] if rules is None else [_RuleFile(rules, desk, upstreams)]
    return Plugins([*first, *(_source(one, desk, upstreams) for one in settings)], desk)


def check_rules(options: RulesOptions, upstreams: Collection[str] | None = None) -> None:
    """Raises `PluginError` where they cannot be used."""
    _RuleFile(options, HoldDesk(), upstreams).make()


def _source(settings: PluginSettings, desk: HoldDesk, upstreams: Collection[str] | None) -> _Source:
    if settings.use == "rules":
        return _RuleFile(_rules_options(settings), desk, upstreams)
    if settings.use in BUILT_IN:
        return PluginCode(BUILT_IN[settings.use], settings.options, is_watched=False)
    return PluginCode(settings.use, settings.options)


def _rules_options(settings: PluginSettings) -> RulesOptions:
    try:
        return msgspec.convert(settings.options, RulesOptions)
    except msgspec.ValidationError as error:
        raise PluginError(f"plugin rules, options: {error}") from error


class _RuleFile:
    def __init__(self, options: RulesOptions, desk: HoldDesk, upstreams: Collection[str] | None) -> None:
        self.file = options.file
        self.label = f"rules {self.file}"
        self._desk = desk
        self._upstreams = upstreams

    def make(self) -> Rules:
        try:
            rules = read_rules(Path(self.file).read_text("utf-8"), self._upstreams)
        except OSError as error:
            raise PluginError(f"{self.label} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise PluginError(f"{self.label}: it is not UTF-8") from error
        except RuleFileError as error:
            raise PluginError(f"{self.label}: {error}") from error
        except ValueError as error:
            # A path that can be none, with a NUL in it.
            raise PluginError(f"{self.label!r} cannot be read: {error}") from error
        return Rules(rules, self._desk)


def _made(source: _Source) -> Interceptor:
    """Raises `PluginError`, also for one that says wrongly which messages it wants: that is asked only here."""
    made = source.make()
    try:
        Chain([made])
        methods = _named_by(made)
    except Exception as error:
        raise PluginError(f"{source.label}: {error}") from error
    for method in sorted(methods):
        if (meant := method_meant(method)) is not None:
            log.warning("%s: MCP has no method %s; did you mean %s?", source.label, method, meant)
    return made


def _named_by(interceptor: Interceptor) -> set[str]:
    if isinstance(interceptor, Rules):
        patterns = [pattern for rule in interceptor.rules.rules for pattern in rule.match.methods]
        return {pattern.text for pattern in patterns if pattern.is_exact}
    return {method for phase in Phase for method in interceptor.wanted(phase) or ()}


def _signature(file: str | None) -> tuple[int, int, int] | None:
    """Differs once a file was changed; None for one that is not there, as it is for a moment while it is replaced."""
    if file is None:
        return None
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

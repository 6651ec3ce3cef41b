"""SIGHUP: reads the settings again. What can change does, and the log says what needs a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from msgspec import structs

from shadowcat.app import logs
from shadowcat.app.plugins import Plugins, load_plugins
from shadowcat.app.proxy import ReverseProxy
from shadowcat.app.settings import Settings
from shadowcat.config.compare import changed
from shadowcat.config.load import Loaded
from shadowcat.config.problem import ConfigError
from shadowcat.errors import PluginError
from shadowcat.plugins.faults import FaultOptions
from shadowcat.plugins.message_log import MessageLog, message_log

log = logging.getLogger("shadowcat")

Load = Callable[[], Loaded[Settings]]
Prepare = Callable[[Settings], Callable[[], object]]

_LIVE_LIMITS = ("idle_s", "recovery_gap_s", "log", "server_request_s", "linger_s", "upgrade_after_s")


class Reload:
    """Each part says what of the settings it can take under way: `reload.takes(("log",), set_up)`."""

    def __init__(self, load: Load, settings: Settings) -> None:
        self._load = load
        self._begun_with = settings
        self._last = settings
        self._always: list[Callable[[Settings], object]] = []
        self._parts: list[tuple[tuple[str, ...], Prepare]] = []

    def prepares(self, paths: Iterable[str], prepare: Prepare) -> None:
        """Where one of these, or what is in a section of these, has changed: `prepare` looks at the new settings.

        It changes nothing yet, but returns what does, which is called when all parts can take theirs; or it raises
        `PluginError`.
        """
        self._parts.append((tuple(paths), prepare))

    def takes(self, paths: Iterable[str], apply: Callable[[Settings], object]) -> None:
        """For what cannot fail."""
        self.prepares(paths, lambda settings: partial(apply, settings))

    def always(self, apply: Callable[[Settings], object]) -> None:
        self._always.append(apply)

    def __call__(self) -> None:
        try:
            loaded = self._load()
            news = list(changed(self._last, loaded.settings))
            steps = [prepare(loaded.settings) for paths, prepare in self._parts if _any_within(news, paths)]
        except ConfigError as error:
            _stays(error.problems)
        except PluginError as error:
            _stays([str(error)])
        else:
            for apply in self._always:
                apply(loaded.settings)
            for step in steps:
                step()
            self._last = loaded.settings
            self._tell(loaded, news)

    def _tell(self, loaded: Loaded[Settings], news: Sequence[str]) -> None:
        for warning in loaded.warnings:
            log.warning("%s", warning)
        if loaded.file is None:
            certificate = "" if loaded.settings.tls is None else "; the certificate was"
            log.info("there is no settings file to reload: --config names none%s", certificate)
            return
        told = [f"changed {', '.join(taken)}"] if (taken := list(filter(self._can_change, news))) else []
        # Compared with the beginning: what waits for a restart does so until it comes, or is taken back.
        waiting = [path for path in changed(self._begun_with, loaded.settings) if not self._can_change(path)]
        if waiting:
            told.append(f"until a restart these stay as they were: {', '.join(waiting)}")
        log.log(
            logging.WARNING if waiting else logging.INFO,
            "the configuration was read again: %s",
            "; ".join(told) or "nothing in it has changed",
        )

    def _can_change(self, path: str) -> bool:
        return any(_any_within([path], paths) for paths, _ in self._parts)


def _stays(problems: Iterable[str]) -> None:
    for problem in problems:
        log.error("the configuration is unchanged: %s", problem)


def _any_within(paths: Iterable[str], sections: Iterable[str]) -> bool:
    return any(_is_within(path, sections) for path in paths)


def _is_within(path: str, sections: Iterable[str]) -> bool:
    return any(path == section or path.startswith(f"{section}.") for section in sections)


def reload_of(load: Load, settings: Settings, proxy: ReverseProxy, plugins: Plugins) -> Reload:
    """With what a proxy can take by itself."""
    reload = Reload(load, settings)
    upstreams = settings.upstreams

    def limit(settings: Settings) -> None:
        live = {name: getattr(settings.sessions, name) for name in _LIVE_LIMITS}
        proxy.shared.limits = structs.replace(proxy.shared.limits, **live)

    def log_as(settings: Settings) -> None:
        logs.set_up(settings.log)
        pipeline = proxy.shared.pipeline
        others = [tap for tap in pipeline.taps if not isinstance(tap, MessageLog)]
        pipeline.tap([*others, *message_log(settings.log.level)])

    def allow(settings: Settings) -> None:
        proxy.guard.allow(settings.endpoint.allow_hosts, settings.endpoint.allow_origins)

    def intercept(settings: Settings) -> Callable[[], object]:
        # The servers are those that it began with, whatever the file says of them by now.
        fresh = load_plugins(
            tuple(settings.plugins.values()),
            rules=settings.rules,
            upstreams=tuple(upstreams) or None,
            desk=plugins.desk,
        )
        return partial(plugins.become, fresh, proxy.shared.pipeline)

    def hold(settings: Settings) -> None:
        plugins.desk.options = settings.hold

    def spoil(settings: Settings) -> None:
        proxy.spoil(settings.faults or FaultOptions())

    def certify(settings: Settings) -> None:
        if settings.tls is not None and proxy.server_tls is not None:
            settings.tls.load_into(proxy.server_tls)

    # Certificates are renewed where they are: nothing that can be compared has changed then.
    reload.always(certify)
    reload.takes(("tls.cert_file", "tls.key_file"), lambda _: None)
    reload.takes(("log",), log_as)
    reload.takes(("endpoint.allow_hosts", "endpoint.allow_origins"), allow)
    reload.prepares(("rules", "plugins"), intercept)
    reload.takes(("hold",), hold)
    if settings.faults is not None:
        # Where there were none, nothing stands around the servers that could make them.
        reload.takes(("faults",), spoil)
    reload.takes([f"sessions.{name}" for name in _LIVE_LIMITS], limit)
    return reload

"""SIGHUP: the settings are read again. What can change under way does, and the log says what cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from msgspec import structs

from shadowcat.app import logs
from shadowcat.app.proxy import ReverseProxy
from shadowcat.app.settings import Settings
from shadowcat.config.compare import changed
from shadowcat.config.load import Loaded
from shadowcat.config.problem import ConfigError

log = logging.getLogger("shadowcat")

Load = Callable[[], Loaded[Settings]]

_LIVE_LIMITS = ("idle_s", "recovery_gap_s", "log", "server_request_s", "linger_s", "upgrade_after_s")


class Reload:
    """Each part says what of the settings it can take under way: `reload.takes(("rules",), rules.replace)`."""

    def __init__(self, load: Load, settings: Settings) -> None:
        self._load = load
        self._begun_with = settings
        self._last = settings
        self._always: list[Callable[[Settings], object]] = []
        self._parts: list[tuple[tuple[str, ...], Callable[[Settings], object]]] = []

    def takes(self, paths: Iterable[str], apply: Callable[[Settings], object]) -> None:
        """`apply` is called with the new settings where one of these, or what is in a section of these, has changed."""
        self._parts.append((tuple(paths), apply))

    def always(self, apply: Callable[[Settings], object]) -> None:
        self._always.append(apply)

    def __call__(self) -> None:
        try:
            loaded = self._load()
        except ConfigError as error:
            for problem in error.problems:
                log.error("the configuration stays as it was: %s", problem)
            return
        for warning in loaded.warnings:
            log.warning("%s", warning)
        self._apply(loaded.settings)

    def _apply(self, settings: Settings) -> None:
        news = list(changed(self._last, settings))
        for apply in self._always:
            apply(settings)
        for paths, apply in self._parts:
            if any(_is_within(path, paths) for path in news):
                apply(settings)
        taken = [path for path in news if self._can_change(path)]
        log.info(
            "the configuration was read again: %s", f"changed {', '.join(taken)}" if taken else "no change"
        )
        # Compared with the beginning: what waits for a restart does so until it comes, or is taken back.
        if waiting := [path for path in changed(self._begun_with, settings) if not self._can_change(path)]:
            log.warning("until a restart these stay as they were: %s", ", ".join(waiting))
        self._last = settings

    def _can_change(self, path: str) -> bool:
        return any(_is_within(path, paths) for paths, _ in self._parts)


def _is_within(path: str, sections: Iterable[str]) -> bool:
    return any(path == section or path.startswith(f"{section}.") for section in sections)


def reload_of(load: Load, settings: Settings, proxy: ReverseProxy) -> Reload:
    """With what a proxy can take by itself."""
    reload = Reload(load, settings)

    def limit(settings: Settings) -> None:
        live = {name: getattr(settings.sessions, name) for name in _LIVE_LIMITS}
        proxy.shared.limits = structs.replace(proxy.shared.limits, **live)

    def allow(settings: Settings) -> None:
        proxy.guard.allow(settings.endpoint.allow_hosts, settings.endpoint.allow_origins)

    def certify(settings: Settings) -> None:
        if settings.tls is not None and proxy.server_tls is not None:
            settings.tls.load_into(proxy.server_tls)

    # Certificates are renewed where they are: nothing that can be compared has changed then.
    reload.always(certify)
    reload.takes(("tls.cert_file", "tls.key_file"), lambda _: None)
    reload.takes(("log",), lambda settings: logs.set_up(settings.log))
    reload.takes(("endpoint.allow_hosts", "endpoint.allow_origins"), allow)
    reload.takes([f"sessions.{name}" for name in _LIVE_LIMITS], limit)
    return reload

"""Loads a command's settings, and checks what no single setting can know about the others.

Those are settings that exclude each other, and settings that can never take effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from shadowcat.app.plugins import check_rules
from shadowcat.app.settings import FORWARD, PROFILES, Settings
from shadowcat.clock import SystemClock
from shadowcat.config.load import Flag, Loaded, load
from shadowcat.config.problem import ConfigError
from shadowcat.downstream.peers import SILENCE_S
from shadowcat.errors import PluginError, StoreUnusable
from shadowcat.http.tls import trouble
from shadowcat.stores.urls import store_of
from shadowcat.wire.hosts import is_reached_by


def load_settings(
    profile: str, *, file: Path | None = None, environment: Mapping[str, str], flags: Iterable[Flag] = ()
) -> Loaded[Settings]:
    """Raises `ConfigError`."""
    loaded = load(Settings, file=file, environment=environment, flags=flags, profile=PROFILES[profile])
    if found := list(_problems(loaded.settings, profile)):
        raise ConfigError(found)
    return loaded._replace(warnings=(*loaded.warnings, *_warnings(loaded)))


def _problems(settings: Settings, profile: str) -> Iterator[str]:
    """Opens nothing but the files of rules and certificates; plugins are code, and are not run."""
    if settings.forward.allow_targets and (settings.upstreams or profile != FORWARD):
        yield "forward.allow_targets: it is for clients that name the server: for `forward http` without one"
    for name, upstream in settings.upstreams.items():
        if upstream.url is not None and upstream.url.leads_to(settings.listen):
            yield (
                f"upstreams.{name}: {upstream.url.shown()} is this proxy itself, which listens on "
                f"{settings.listen}: name the server, or choose another address with --listen"
            )
    admin = settings.admin.listen
    if admin.is_on and admin.port and is_reached_by(settings.listen, admin.host, admin.port):
        yield f"admin.listen: {admin} is where clients are served: choose another with --admin"
    if settings.cluster is not None and not (settings.store or "").startswith("redis"):
        yield "cluster: it is for nodes that share a Redis: give --store redis://HOST too"
    if settings.store is not None:
        try:
            store_of(settings.store, SystemClock())
        except StoreUnusable as error:
            yield f"store: {error}"
    if settings.rules is not None:
        try:
            check_rules(settings.rules, tuple(settings.upstreams) or None)
        except PluginError as error:
            yield str(error)
    for path, tls in (("tls", settings.tls), ("upstream_tls", settings.upstream_tls)):
        if tls is not None and (told := trouble(tls)) is not None:
            yield f"{path}: {told}"


def _warnings(loaded: Loaded[Settings]) -> Iterator[str]:
    """Of what was given; a default that has no effect is nobody's mistake."""
    settings = loaded.settings
    sessions = settings.sessions
    upgrade_after_s = sessions.upgrade_after_s
    if settings.store == "memory:":
        for path in loaded.given("durability"):
            yield f"{path} has no effect: with store memory: nothing is written"
    if upgrade_after_s is not None and upgrade_after_s >= sessions.call_s:
        yield f"sessions.upgrade_after_s has no effect: a call is over after sessions.call_s, {sessions.call_s:g} s"
    if sessions.log.bytes > sessions.all_log_bytes:
        yield "sessions.log.bytes has no effect: sessions.all_log_bytes is less, and bounds all logs together"
    if settings.durability.retry_first_s > settings.durability.retry_cap_s:
        yield "durability.retry_first_s has no effect: durability.retry_cap_s is less"
    urls = [upstream.url for upstream in settings.upstreams.values()]
    if urls and not any(url is not None and url.startswith("https:") for url in urls):
        for path in loaded.given("upstream_tls"):
            yield f"{path} has no effect: no server has an https URL"
    if settings.cluster is not None and settings.endpoint.keepalive_s >= SILENCE_S:
        yield (
            f"endpoint.keepalive_s: nodes take a stream that is silent for {SILENCE_S:g} s for broken; "
            "give it less"
        )
    if settings.upstream_tls.key_file and not settings.upstream_tls.cert_file:
        yield "upstream_tls.key_file has no effect without upstream_tls.cert_file"

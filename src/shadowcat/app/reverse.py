"""The proxy as a command runs it: settings in, served until told to stop."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from shadowcat.admin.options import AdminOptions
from shadowcat.app.cluster import Cluster
from shadowcat.app.forward import ForwardProxy
from shadowcat.app.inherited import Inherited
from shadowcat.app.memory import collect_seldom, give_back_after_floods, keep_freed_memory
from shadowcat.app.plugins import Plugins, load_plugins
from shadowcat.app.process import DRAIN_S, allow_open_files, until_stopped
from shadowcat.app.proxy import ReverseProxy
from shadowcat.app.recording import recording
from shadowcat.app.reload import Load, reload_of
from shadowcat.app.settings import Settings
from shadowcat.app.tracing import tracing
from shadowcat.clock import SystemClock
from shadowcat.core.ports import TapSink, Upstream
from shadowcat.core.targets import TargetRules
from shadowcat.http.tls import ClientTls
from shadowcat.plugins.faults import FaultOptions
from shadowcat.plugins.message_log import message_log
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.stores.sole_user import sole_user
from shadowcat.stores.urls import StoreUrl, sqlite_path, store_of
from shadowcat.upstream.channel import ChannelLimits
from shadowcat.upstream.command import Command
from shadowcat.upstream.stdio import StdioLimits, StdioUpstream
from shadowcat.upstream.streamable import CALL
from shadowcat.wire.hosts import Address, is_loopback

if TYPE_CHECKING:
    from shadowcat.admin.listener import Admin

log = logging.getLogger("shadowcat")


def default_store(listen: Address) -> StoreUrl:
    """A file in the user's state directory, of whoever serves that address; none for a port of chance."""
    if listen.port == 0:
        return StoreUrl("memory:")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    path = Path(state) / "shadowcat" / f"reverse-{listen.host.replace(':', '_')}-{listen.port}.db"
    return StoreUrl(f"sqlite:///{quote(str(path.absolute()))}")


def plugins_of(settings: Settings) -> Plugins:
    """Raises `PluginError`."""
    plugins, names = tuple(settings.plugins.values()), tuple(settings.upstreams) or None
    return load_plugins(plugins, rules=settings.rules, hold=settings.hold, upstreams=names)


def proxy_of(
    settings: Settings,
    store: StoreUrl,
    plugins: Plugins | None = None,
    taps: Sequence[TapSink] = (),
    sock: socket.socket | None = None,
) -> ReverseProxy:
    """Without upstreams it is a forward proxy: clients name them."""
    call_s = settings.sessions.call_s
    traced = tracing(settings.otel)
    if settings.upstreams:
        made = partial(ReverseProxy, {name: _server(settings, name) for name in settings.upstreams})
    else:
        is_local = is_loopback(settings.listen.host)
        made = partial(ForwardProxy, TargetRules(settings.forward.allow_targets, loopback=is_local))
    return made(
        host=settings.listen.host,
        port=settings.listen.port,
        sock=sock,
        endpoint=settings.endpoint,
        session_limits=settings.sessions,
        server_limits=settings.http,
        call_timeouts=replace(CALL, head_s=call_s, gap_s=call_s),
        store=store_of(store, SystemClock()),
        durability=settings.durability,
        cluster=settings.cluster,
        # Tracing last, to see what is sent.
        interceptors=(*(() if plugins is None else plugins.interceptors), *traced),
        taps=(*taps, *traced),
        faults=settings.faults,
        server_tls=None if settings.tls is None else settings.tls.context(),
        client_tls=None if settings.upstream_tls == ClientTls() else settings.upstream_tls.context(),
    )


def _server(settings: Settings, name: str) -> str | Upstream:
    options = settings.upstreams[name]
    server = options.server()
    if not isinstance(server, Command):
        return server
    sessions = settings.sessions
    # A spare that is still starting takes no session's place.
    processes = sessions.max_sessions + options.spares
    limits = StdioLimits(processes=processes, channel=ChannelLimits(call_s=sessions.call_s))
    return StdioUpstream(name, server, shared=options.shared, spares=options.spares, limits=limits)


def _transports(settings: Settings) -> dict[str, str]:
    return {
        name: "stdio" if isinstance(options.server(), Command) else "http"
        for name, options in settings.upstreams.items()
    }


def _admin(
    proxy: ReverseProxy,
    options: AdminOptions,
    plugins: Plugins,
    recorders: Sequence[Recorder],
    sock: socket.socket | None,
) -> AbstractAsyncContextManager[Admin | None]:
    """There before the proxy serves, and until it has drained."""
    if not options.listen.is_on:
        return nullcontext()
    # Here, because it brings a web framework along.
    from shadowcat.admin.listener import Admin

    recorder = next(iter(recorders), None)
    return Admin(proxy, options, holding=plugins.desk, recording=recorder, sock=sock)


@asynccontextmanager
async def _only_user(store: StoreUrl, cluster: Cluster | None) -> AsyncGenerator[str]:
    """What to say where sessions may be taken by another proxy that knows nothing of this one."""
    scheme = store.partition(":")[0].lower()
    if scheme == "sqlite":
        path = sqlite_path(store)
        with sole_user(path) as is_sole:
            yield (
                ""
                if is_sole
                else (
                    f"another proxy uses {path}: unless it is about to end, give each a file of its own, for they take "
                    "sessions from each other; several with the same sessions need Redis and --advertise"
                )
            )
    elif scheme != "memory" and cluster is None:
        yield (
            "only one proxy may use this Redis so: several take sessions from each other, unless each has --advertise "
            "and the same SHADOWCAT_CLUSTER_KEY"
        )
    else:
        yield ""


async def serve_reverse(
    settings: Settings, announce: Callable[[str], None], again: Load, inherited: Inherited | None = None
) -> None:
    """Runs a proxy until told to stop. `again` reads the settings anew.

    The sockets that were inherited listen at the addresses of the settings.
    """
    inherited = inherited or Inherited()
    allow_open_files()
    store = settings.store or default_store(settings.listen)
    plugins = plugins_of(settings)
    plugins.desk.is_attended = settings.admin.listen.is_on
    with recording(settings.record, "http", _transports(settings)) as recorders:
        taps = (*recorders, *message_log(settings.log.level))
        proxy = proxy_of(settings, store, plugins, taps, inherited.front)
        admin = _admin(proxy, settings.admin, plugins, recorders, inherited.admin)
        await _serve(settings, proxy, admin, plugins, store, announce, again)


async def _serve(
    settings: Settings,
    proxy: ReverseProxy,
    admin_listener: AbstractAsyncContextManager[Admin | None],
    plugins: Plugins,
    store: StoreUrl,
    announce: Callable[[str], None],
    again: Load,
) -> None:
    listen = settings.listen
    async with (
        admin_listener as admin,
        proxy,
        _only_user(store, settings.cluster) as warning,
    ):
        shared = proxy.shared
        shared.tasks.spawn(plugins.watch(shared.pipeline), "look for changes of plugins")
        shared.tasks.spawn(give_back_after_floods(lambda: shared.log_budget.used), "give memory back")

        def serving() -> None:
            collect_seldom()
            keep_freed_memory()
            host = f"[{listen.host}]" if ":" in listen.host else listen.host
            scheme = "http" if settings.tls is None else "https"
            where = f"{scheme}://{host}:{proxy.port}"
            is_forward = not settings.upstreams
            served = f"http_proxy={where}" if is_forward else f"{where}{settings.endpoint.path}"
            announce(f"serving {served} (Ctrl-C stops it)")
            if admin is not None:
                announce(f"admin page on {admin.url}/")
            if made := _made_on_purpose(settings.faults):
                log.warning("faults are made on purpose, as the configuration says: %s", made)
            if is_forward:
                if not is_loopback(listen.host):
                    log.warning("anyone who reaches this port can reach the targets of --allow-target")
                return
            where = "memory, and end with the proxy" if store == "memory:" else store.shown()
            log.info("sessions are kept in %s", where)
            if warning:
                log.warning("%s", warning)
            if not is_loopback(listen.host) and not settings.endpoint.allow_hosts:
                log.warning("anyone who reaches this port is served, under any host name: see --allow-host")

        async def stop() -> None:
            announce(f"stopping: running calls have {DRAIN_S:.0f} s to finish (Ctrl-C again ends at once)")
            await proxy.drain()

        await until_stopped(stop, serving, reload_of(again, settings, proxy, plugins))


def _made_on_purpose(faults: FaultOptions | None) -> str:
    """Those that do something: a file of tests that went into production is noticed by them."""
    if faults is None:
        return ""
    usual = FaultOptions(seed=faults.seed, delay_s=faults.delay_s)
    names = (name for name in FaultOptions.__struct_fields__ if getattr(faults, name) != getattr(usual, name))
    return ", ".join(f"{name} {getattr(faults, name):g}" for name in names)

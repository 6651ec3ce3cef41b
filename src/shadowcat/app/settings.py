"""The one configuration tree, from which `reverse` and `forward http` run.

A section is a struct beside the code that it steers, and a line here. docs/internals/configuration.md tells how to add
one.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, field

from shadowcat.admin.options import AdminAddress, AdminOptions
from shadowcat.app.cluster import Cluster
from shadowcat.app.logs import LogOptions
from shadowcat.app.plugin_settings import PluginTable
from shadowcat.app.upstreams import UpstreamOptions
from shadowcat.core.targets import ForwardOptions
from shadowcat.downstream.streamable import EndpointOptions
from shadowcat.http.limits import ServerLimits
from shadowcat.http.tls import ClientTls, ServerTls
from shadowcat.plugins.faults import FaultOptions
from shadowcat.plugins.hold import HoldOptions
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.rules import RulesOptions
from shadowcat.proxy.shared import SessionLimits
from shadowcat.proxy.writer import Durability
from shadowcat.stores.urls import StoreUrl
from shadowcat.wire.hosts import Address


class Settings(Struct, frozen=True, kw_only=True):
    listen: Annotated[Address, Meta(description="Address to serve on.")] = field(
        default_factory=lambda: Address("127.0.0.1:8080")
    )
    upstreams: Annotated[
        dict[str, UpstreamOptions],
        Meta(description="The servers by name. New sessions are spread over them."),
    ] = {}
    store: Annotated[
        StoreUrl | None,
        Meta(
            description="Where sessions are kept: memory:, sqlite:///PATH or redis://HOST. By default, "
            "`reverse` uses an SQLite file in the state directory, one for each --listen address."
        ),
    ] = None
    endpoint: EndpointOptions = field(default_factory=EndpointOptions)
    forward: ForwardOptions = field(default_factory=ForwardOptions)
    sessions: SessionLimits = field(default_factory=SessionLimits)
    http: ServerLimits = field(default_factory=ServerLimits)
    tls: ServerTls | None = None
    upstream_tls: ClientTls = field(default_factory=ClientTls)
    durability: Durability = field(default_factory=Durability)
    cluster: Cluster | None = None
    rules: RulesOptions | None = None
    plugins: PluginTable = {}
    hold: HoldOptions = field(default_factory=HoldOptions)
    faults: FaultOptions | None = None
    record: RecordOptions | None = None
    admin: AdminOptions = field(default_factory=lambda: AdminOptions(listen=AdminAddress("off")))
    otel: Annotated[
        bool,
        Meta(
            description="Make an OpenTelemetry span for each request; needs its SDK, or "
            "opentelemetry-instrument."
        ),
    ] = False
    log: LogOptions = field(default_factory=LogOptions)


FORWARD = "forward http"
PROFILES: dict[str, dict[str, Any]] = {
    "reverse": {},
    # A free port: several may run on one machine.
    FORWARD: {"store": "memory:", "admin": {"listen": "127.0.0.1:0"}},
}
"""What is a default of one command and not of the other, in the form of a file."""

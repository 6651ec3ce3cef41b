"""The settings of `forward stdio --upstream`: those of `forward stdio`, and those an HTTP server needs.

Apart from `stdio_settings`, because before a command nothing of HTTP is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta, Struct, field

from shadowcat.app.stdio_settings import StdioSettings
from shadowcat.app.upstreams import ServerUrl
from shadowcat.config.load import Flag, Loaded, load
from shadowcat.config.problem import ConfigError
from shadowcat.http.tls import ClientTls, trouble
from shadowcat.proxy.shared import SessionLimits


class UrlOptions(Struct, frozen=True):
    url: Annotated[ServerUrl, Meta(description="The server's MCP endpoint.")]


class BridgeSettings(StdioSettings, frozen=True, kw_only=True):
    upstreams: Annotated[dict[str, UrlOptions], Meta(description="The servers by name.")]
    upstream_tls: ClientTls = field(default_factory=ClientTls)
    sessions: SessionLimits = field(default_factory=SessionLimits)


def load_bridge_settings(environment: Mapping[str, str], flags: Iterable[Flag]) -> Loaded[BridgeSettings]:
    """Raises `ConfigError`."""
    loaded = load(BridgeSettings, environment=environment, flags=flags)
    if (told := trouble(loaded.settings.upstream_tls)) is not None:
        raise ConfigError([f"upstream_tls: {told}"])
    return loaded

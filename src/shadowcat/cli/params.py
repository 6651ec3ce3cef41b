"""Types of command line values, with the error a person can act on."""

from __future__ import annotations

import click


class HostPort(click.ParamType[tuple[str, int]]):
    """`HOST:PORT`, `[V6]:PORT`, or `:PORT` for loopback. Port 0 takes a free one."""

    name = "host:port"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, colon, port = value.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            self.fail(f"{value!r} is not HOST:PORT, for example 127.0.0.1:8080", param, ctx)
        if ":" in host and not (host.startswith("[") and host.endswith("]")):
            self.fail(f"{value!r}: write an IPv6 address in brackets, for example [::1]:8080", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


HOST_PORT = HostPort()

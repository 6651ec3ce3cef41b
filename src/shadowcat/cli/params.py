"""Types of command line values, with the error a person can act on."""

from __future__ import annotations

import math
import re
from urllib.parse import urlsplit

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


class UpstreamUrl(click.ParamType[tuple[str, str]]):
    """`URL` or `NAME=URL`; without a name the server is called by its host and port."""

    name = "upstream"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        named = re.fullmatch(r"([A-Za-z0-9_.-]+)=(.*)", value)
        url = named[2] if named else value
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018 - raises for a port that is none
        except ValueError as error:
            self.fail(f"{value!r} is not a URL: {error}", param, ctx)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            self.fail(f"{value!r} is not a URL, for example http://127.0.0.1:3000/mcp", param, ctx)
        if not url.isascii() or len(url.split()) != 1:
            self.fail(f"{value!r}: write spaces and other letters as %XX", param, ctx)
        if parts.username is not None or parts.password is not None:
            self.fail("credentials do not belong into a URL", param, ctx)
        return (named[1] if named else parts.netloc), url


class NodeUrl(click.ParamType[str]):
    """`http://host:port`, as the other nodes can reach it."""

    name = "node"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        url = value.rstrip("/")
        if not re.fullmatch(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?", url):
            self.fail(f"{value!r} is not a node's URL, for example http://10.0.0.5:8080", param, ctx)
        return url


class PageOrigin(click.ParamType[str]):
    """`scheme://host[:port]`, as browsers send it."""

    name = "origin"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        origin = value.lower().rstrip("/")
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/*\s]+", origin):
            self.fail(f"{value!r} is not an origin, for example https://app.example.com", param, ctx)
        return origin


class HostName(click.ParamType[str]):
    """A name or address without scheme and port."""

    name = "host"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        host = value.lower().strip("[]")
        if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
            self.fail(f"{value!r} is not a host name, for example mcp.example.com", param, ctx)
        return host


class Seconds(click.FloatRange):
    """A time that ends: neither infinite nor no number."""

    name = "seconds"

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


class Variable(click.ParamType[tuple[str, str]]):
    """`NAME=VALUE`."""

    name = "variable"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # Not repeated in full: it may hold a secret.
            self.fail("a variable is written NAME=VALUE", param, ctx)
        return name, text


HOST_PORT = HostPort()
ORIGIN = PageOrigin()
HOST = HostName()
NODE = NodeUrl()
UPSTREAM = UpstreamUrl()
VARIABLE = Variable()

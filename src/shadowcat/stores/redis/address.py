"""Where Redis is, parsed from its URL: `redis://`, `rediss://` (TLS) or `redis+unix://`.

The URL may hold a password, so nothing that is said of an address repeats it; `where` is what may be said.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import Connection, SSLConnection, UnixDomainSocketConnection

from shadowcat.errors import StoreUnusable

NAMESPACE = "shadowcat"
DEFAULT_PORT = 6379
OPTIONS = {"redis": {"namespace"}, "rediss": {"namespace", "ca_file"}, "redis+unix": {"namespace", "db"}}


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    where: str
    namespace: str
    connection_class: type[Connection | UnixDomainSocketConnection]
    arguments: Mapping[str, Any]
    """What the class is made with, the password included."""

    @property
    def is_tls(self) -> bool:
        return self.connection_class is SSLConnection

    @classmethod
    def parse(cls, url: str) -> Address:
        try:
            parts = urlsplit(url)
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
            # Looked at here, because it is only then that a bad port is found.
            port = parts.port or DEFAULT_PORT
        except ValueError:
            raise StoreUnusable(
                "the Redis URL cannot be read; write redis://[:PASSWORD@]HOST[:PORT][/DB]"
            ) from None
        known = OPTIONS.get(parts.scheme)
        if known is None:
            raise StoreUnusable("a Redis URL begins with redis://, rediss:// or redis+unix://")
        if unknown := options.keys() - known:
            raise StoreUnusable(f"a {parts.scheme}:// URL has no option {min(unknown)!r}")
        if parts.fragment:
            raise StoreUnusable("the Redis URL has a '#' in it; in a password write %23")
        namespace = _namespace(options)
        login = {
            name: unquote(value)
            for name, value in (("username", parts.username), ("password", parts.password))
            if value
        }
        if parts.scheme == "redis+unix":
            return cls._of_socket(parts, options, namespace, login)
        return cls._of_host(parts, port, options, namespace, login)

    @classmethod
    def _of_socket(
        cls, parts: SplitResult, options: Mapping[str, str], namespace: str, login: Mapping[str, str]
    ) -> Address:
        path = unquote(parts.path)
        if parts.hostname or not path.startswith("/"):
            raise StoreUnusable("a redis+unix:// URL needs an absolute path: redis+unix:///run/redis.sock")
        arguments = {"path": path, "db": _database(options.get("db", "0")), **login}
        return cls(path, namespace, UnixDomainSocketConnection, arguments)

    @classmethod
    def _of_host(
        cls,
        parts: SplitResult,
        port: int,
        options: Mapping[str, str],
        namespace: str,
        login: Mapping[str, str],
    ) -> Address:
        if not parts.hostname:
            raise StoreUnusable(f"the Redis URL names no host: {parts.scheme}://HOST:PORT")
        where = f"[{parts.hostname}]:{port}" if ":" in parts.hostname else f"{parts.hostname}:{port}"
        database = _database(parts.path.removeprefix("/") or "0")
        arguments: dict[str, Any] = {"host": parts.hostname, "port": port, "db": database, **login}
        if parts.scheme == "redis":
            return cls(where, namespace, Connection, arguments)
        arguments["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
        if (ca_file := options.get("ca_file")) is not None:
            if not Path(ca_file).is_file():
                raise StoreUnusable(f"there is no file {ca_file!r}, which the Redis URL names as ca_file")
            arguments["ssl_ca_certs"] = ca_file
        return cls(where, namespace, SSLConnection, arguments)


def _namespace(options: Mapping[str, str]) -> str:
    namespace = options.get("namespace", NAMESPACE)
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", namespace):
        raise StoreUnusable("the namespace in the Redis URL is not 1 to 64 of A-Z a-z 0-9 . _ : -")
    return namespace


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise StoreUnusable("the database in the Redis URL is not a number")
    return int(text)

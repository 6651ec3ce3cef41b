"""What the admin listener needs to know about a proxy; `ReverseProxy` implements it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from shadowcat.proxy.relay import Relay
from shadowcat.proxy.shared import Shared


class HttpNumbers(Protocol):
    @property
    def connections(self) -> int: ...

    @property
    def requests(self) -> int: ...

    @property
    def slow_closed(self) -> int: ...

    @property
    def errors(self) -> Mapping[int, int]: ...

    @property
    def body_bytes(self) -> int: ...


class HttpServer(Protocol):
    def statistics(self) -> HttpNumbers: ...


class Watched(Protocol):
    @property
    def shared(self) -> Shared: ...

    @property
    def relay(self) -> Relay: ...

    @property
    def server(self) -> HttpServer: ...


class RecordNumbers(Protocol):
    @property
    def recorded(self) -> int: ...

    @property
    def dropped(self) -> int: ...

    @property
    def redacted(self) -> int: ...

    @property
    def is_failing(self) -> bool: ...


class Recording(Protocol):
    """Who records, if anybody does."""

    def statistics(self) -> RecordNumbers: ...

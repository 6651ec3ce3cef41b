"""A proxy that is watched, and who asks about it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shadowcat import Admin
from shadowcat.admin.options import AdminOptions
from shadowcat.secret import Secret
from tests.rig.client import Client, Reply, client_of
from tests.rig.stand import Stand, stand

TOKEN = "a-token-of-the-tests"


@dataclass(eq=False)
class Operator:
    """Asks the admin listener as a program on this machine would."""

    admin: Admin
    client: Client
    token: str | None = None

    async def ask(self, path: str, *fields: tuple[str, str], method: str = "GET") -> Reply:
        if self.token is not None:
            fields = (*fields, ("Authorization", f"Bearer {self.token}"))
        return await self.client.request(method, fields, path=path)

    async def get(self, path: str) -> Any:
        reply = await self.ask(path)
        body = await reply.body()
        assert reply.status == 200, body
        return json.loads(body)

    async def metrics(self) -> dict[str, float]:
        """Each sample by its name, labels and all."""
        lines = (await (await self.ask("/metrics")).body()).decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


@asynccontextmanager
async def watched(rig: Stand, **options: Any) -> AsyncIterator[Operator]:
    token = options.pop("token", None)
    given = AdminOptions(token=None if token is None else Secret(token), **options)
    async with Admin(rig.proxy, given) as admin, client_of(admin.port) as client:
        yield Operator(admin, client, token)


@asynccontextmanager
async def watched_stand(
    *, admin: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Stand, Operator]]:
    async with stand(**options) as rig, watched(rig, **(admin or {})) as operator:
        yield rig, operator

"""The OpenAPI document says what is there, and what is there answers as the document says, whatever it is asked."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.admin.kit import TOKEN, Operator, watched_stand
from tests.admin.test_held import waiting
from tests.rig.stand import Stand

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "admin.md"
EXAMPLES = 15
SECONDS = 100


async def test_the_page_has_what_can_be_asked() -> None:
    async with waiting() as held:
        document = await held.operator.get("/api/openapi.json")
        there = {
            f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
        }
        told = set(re.findall(r"`((?:GET|POST|DELETE) /[^`]*)`", PAGE.read_text("utf-8")))
        assert told == there | {"GET /", "GET /api/openapi.json"}


async def test_every_reference_leads_somewhere() -> None:
    async with watched_stand() as (_, operator):
        document = await operator.get("/api/openapi.json")
        text = json.dumps(document)
        names = set(re.findall(r'"#/components/schemas/(\w+)"', text))
        assert names
        assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize("admin", [{}, {"token": TOKEN}], ids=["loopback", "token"])
async def test_whatever_it_is_asked(admin: dict[str, Any], tmp_path: Path) -> None:
    """Schemathesis makes requests of the document, valid and not, and holds each answer to it."""
    async with watched_stand(admin=admin, script={"answers_json": False}) as (rig, operator):
        await _filled(rig)
        code, output = await _schemathesis(operator, tmp_path)
        assert code == 0, output
        # A document that it finds nothing in would pass as well.
        assert re.search(r"\b[1-9]\d* (?:operations|passed|tested)|Test cases:\s+[1-9]", output), output
        assert (await operator.get("/health"))["is_alive"]


async def test_whatever_it_is_asked_while_messages_are_held(tmp_path: Path) -> None:
    async with waiting() as held:
        # What is JSON need not be a message: that is told with 400, whatever the schema allows.
        more = ("--include-path-regex", "^/api/held", "--exclude-checks", "positive_data_acceptance")
        code, output = await _schemathesis(held.operator, tmp_path, *more)
        assert code == 0, output


async def _filled(rig: Stand) -> None:
    for _ in range(3):
        await rig.client.initialize()
        await rig.client.call()


async def _schemathesis(operator: Operator, directory: Path, *more: str) -> tuple[int, str]:
    """It leaves things in the directory that it runs in."""
    url = operator.admin.url
    arguments = [
        *("-m", "schemathesis.cli", "run", f"{url}/api/openapi.json", "--url", url),
        # It has no end; the tests of the feed ask for it.
        *("--exclude-path", "/api/events"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"),
        *("--request-timeout", "10", "--workers", "1", "--no-color", "--generation-database", "none"),
        *more,
    ]
    if operator.token is not None:
        arguments += ["--header", f"Authorization: Bearer {operator.token}"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode is not None
    return process.returncode, output.decode()

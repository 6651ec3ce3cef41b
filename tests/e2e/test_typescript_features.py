"""Every feature with the TypeScript SDK's clients: through the proxy exactly as without it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.e2e.node_client import SDK1, SDK2, NodeApp, node_application
from tests.e2e.python_client import MODERN
from tests.e2e.stage import Stage

FEATURES: dict[str, Callable[[Any], Any]] = {
    "handshake": lambda got: got[1]["name"] == "conformance-everything",
    "tools_list": lambda got: "count" in [tool["name"] for tool in got["tools"]],
    "tools_call": lambda got: got["greeted"].startswith("Hello, Ørjan “quoted” 猫"),
    "tools_that_fail": lambda got: got["failed"]["isError"] and got["unknown"]["code"] == -32602,
    "tools_at_once": lambda got: got == [f"Hello, {number}!" for number in range(20)],
    "resources": lambda got: len(got["list"]["resources"]) == 3 and "unexpected" not in got["missing"],
    "resource_templates": lambda got: '"7"' in got["read"]["contents"][0]["text"],
    "prompts": lambda got: len(got["list"]["prompts"]) == 5 and got["unknown"]["code"] == -32602,
    "completion": lambda got: got["prompt"]["completion"]["values"] == ["paris", "park", "party"],
    "progress": lambda got: [step for step, *_ in got[1]] == [0, 50, 100],
    "cancellation": lambda got: got["fate"] == "CancelledError",
    "cancellation_by_timeout": lambda got: got["fate"] == "CancelledError",
    "sampling": lambda got: got[0].endswith(": Paris"),
    "elicitation": lambda got: "da" in got[0],
    "roots": lambda got: "file:///work" in got,
    "logging": lambda got: (
        [data for _, data in got]
        == ["Tool execution started", "Tool processing data", "Tool execution completed"]
    ),
    "list_changed": lambda got: [what for what, *_ in got] == ["tools/list_changed", "prompts/list_changed"],
    "subscriptions": lambda got: "test://watched-resource" in str(got),
}
LEGACY_FEATURES = FEATURES | {
    "ping": lambda got: got == {},
    "elicitation_schemas": lambda got: len(got[2]) == 2,
    "roots_list_changed": lambda got: got == "changed",
    "standalone_stream": lambda got: got == ["work=file:///work", "answered"],
}
MODERN_FEATURES = FEATURES | {
    "tools_argument_in_a_header": lambda got: got == "region=Tromsø",
    "input_rounds": lambda got: got == ["All inputs received.", "state-ok", "State verified."],
}
RUNS = {
    "sdk1-2025-11-25": (SDK1, "2025-11-25", LEGACY_FEATURES),
    "sdk2-2025-06-18": (SDK2, "2025-06-18", LEGACY_FEATURES),
    "sdk2-2025-11-25": (SDK2, "2025-11-25", LEGACY_FEATURES),
    "sdk2-2026-07-28": (SDK2, MODERN, MODERN_FEATURES),
}

Pair = tuple[NodeApp, NodeApp]


@pytest.fixture(scope="module")
async def pairs(stage: Stage) -> AsyncIterator[dict[str, Pair]]:
    """For each run one application connected straight, and one through the proxy."""
    async with AsyncExitStack() as stack:
        coming = [
            stack.enter_async_context(node_application(script)(url, version))
            for script, version, _ in RUNS.values()
            for url in (stage.direct, stage.proxied)
        ]
        # One after another: starting Node.js keeps a processor busy.
        apps = [await app for app in coming]
        yield dict(zip(RUNS, zip(apps[::2], apps[1::2], strict=True), strict=True))


@pytest.mark.parametrize("run", RUNS)
async def test_every_feature_has_a_test(pairs: dict[str, Pair], run: str) -> None:
    assert sorted(await pairs[run][0].does("features")) == sorted(RUNS[run][2])


@pytest.mark.parametrize(
    ("run", "feature"), [(run, feature) for run, (_, _, features) in RUNS.items() for feature in features]
)
async def test_feature(pairs: dict[str, Pair], run: str, feature: str) -> None:
    direct, proxied = [await app.does("feature", name=feature) for app in pairs[run]]
    assert proxied == direct
    holds = RUNS[run][2][feature]
    assert holds(proxied), proxied

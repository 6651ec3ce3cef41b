from __future__ import annotations

import re

import pytest

from shadowcat.wire import mcp
from shadowcat.wire.mcp import Era, Header, Meta, Method


def constants(of: type) -> dict[str, str | bytes]:
    return {name: value for name, value in vars(of).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("version", "era"),
    [
        ("2024-11-05", Era.LEGACY),
        ("2025-03-26", Era.LEGACY),
        ("2025-06-18", Era.LEGACY),
        ("2025-11-25", Era.LEGACY),
        ("2026-07-28", Era.MODERN),
        ("2025-11-24", None),
        ("2027-01-01", None),
        ("2026-07-28 ", None),
        ("1900-01-01", None),
        ("draft", None),
        ("", None),
    ],
)
def test_era_of(version: str, era: Era | None) -> None:
    assert mcp.era_of(version) is era


def test_versions_are_in_one_set_and_in_order() -> None:
    assert not set(mcp.LEGACY_VERSIONS) & set(mcp.MODERN_VERSIONS)
    assert list(mcp.LEGACY_VERSIONS) == sorted(mcp.LEGACY_VERSIONS, reverse=True)
    assert mcp.LEGACY_VERSIONS[0] == mcp.LATEST_LEGACY


def test_features_belong_to_legacy_versions() -> None:
    assert set(mcp.LEGACY_VERSIONS) >= mcp.BATCH_VERSIONS | mcp.PRIMING_VERSIONS
    assert frozenset({"2025-03-26"}) == mcp.BATCH_VERSIONS
    assert frozenset({"2025-11-25"}) == mcp.PRIMING_VERSIONS


@pytest.mark.parametrize("of", [Header, Meta, Method])
def test_no_two_names_are_the_same(of: type) -> None:
    values = list(constants(of).values())
    assert len(set(values)) == len(values)


def test_header_names_are_compared_in_lower_case() -> None:
    for name in constants(Header).values():
        assert isinstance(name, bytes)
        assert re.fullmatch(rb"[a-z]+(-[a-z]+)+-?", name)
    assert Header.PARAM_PREFIX.endswith(b"-")


def test_meta_keys_bear_the_protocol_s_prefix() -> None:
    keys = set(constants(Meta).values()) - {Meta.PROGRESS_TOKEN}
    assert all(re.fullmatch(r"io\.modelcontextprotocol/[a-zA-Z-]+", str(key)) for key in keys)


def test_method_tables_name_methods() -> None:
    methods = set(constants(Method).values())
    assert methods >= mcp.REMOVED_IN_MODERN
    assert {method for method in mcp.NAMED_BY if not method.startswith("tasks/")} <= methods
    assert set(mcp.LIST_CHANGED.values()) <= methods


def test_notifications_are_told_by_their_prefix() -> None:
    notifications = {"INITIALIZED", "CANCELLED", "PROGRESS", "MESSAGE", "ACKNOWLEDGED", "RESOURCE_UPDATED",
                     "TOOLS_CHANGED", "PROMPTS_CHANGED", "RESOURCES_CHANGED"}  # fmt: skip
    told = {name for name, value in constants(Method).items() if str(value).startswith("notifications/")}
    assert told == notifications


def test_what_modern_removed_and_what_names_a_request() -> None:
    removed = {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
    assert removed == mcp.REMOVED_IN_MODERN
    assert mcp.NAMED_BY == {
        "tools/call": "name",
        "prompts/get": "name",
        "resources/read": "uri",
        "tasks/get": "taskId",
        "tasks/update": "taskId",
        "tasks/cancel": "taskId",
    }
    assert not mcp.REMOVED_IN_MODERN & set(mcp.NAMED_BY)


@pytest.mark.parametrize("capability", ["tools", "prompts", "resources"])
def test_list_changed_is_named_after_its_capability(capability: str) -> None:
    assert mcp.LIST_CHANGED[capability] == f"notifications/{capability}/list_changed"


def test_log_levels_are_those_of_syslog() -> None:
    assert mcp.LOG_LEVELS[0] == "debug"
    assert mcp.LOG_LEVELS[-1] == "emergency"
    assert len(set(mcp.LOG_LEVELS)) == 8

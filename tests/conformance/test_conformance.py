"""The official conformance suite sees no difference between a server and the proxy before it.

This is the plain fixture server in both eras; `make conformance` has every variant and revision.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.conformance import verdict
from tests.conformance.suite import REVISIONS, VARIANTS


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_the_suite_finds_the_same_direct_and_through_the_proxy(revision: str, tmp_path: Path) -> None:
    needs.peers()
    found = await verdict.run("default", revision, tmp_path)
    assert found.problems == ()


def test_every_expected_difference_can_be_seen_somewhere() -> None:
    for reason in verdict.reasons():
        assert set(reason["variants"]) <= set(VARIANTS)
        assert set(reason["revisions"]) <= set(REVISIONS)
        for revision in reason["revisions"]:
            assert set(reason["variants"]) & set(REVISIONS[revision].variants), reason["why"]


def test_no_difference_is_expected_twice() -> None:
    for revision, suite in REVISIONS.items():
        for variant in suite.variants:
            rows = [(entry.scenario, entry.check) for entry in verdict.expected(variant, revision)]
            assert len(rows) == len(set(rows))

"""The comparison itself: what it overlooks on purpose, and that it overlooks nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.compare import Checks, differences, parting
from tests.conformance.verdict import Expected, judge

REFUSAL = {
    "jsonrpc": "2.0",
    "id": 7,
    "error": {"code": -32601, "message": "No", "data": {"reason": "unknown"}},
}
OTHER_WORDS = {"jsonrpc": "2.0", "id": 7, "error": {"code": -32601, "message": "not found", "data": "x"}}


def run(*rows: tuple[str, str, Any]) -> Checks:
    return {"a-scenario": [{"id": id, "status": status, "details": details} for id, status, details in rows]}


def changes(direct: Checks, proxied: Checks) -> list[tuple[str, str, str]]:
    return [(one.check, one.direct, one.proxied) for one in differences(direct, proxied)]


def test_equal_runs_do_not_differ() -> None:
    one = run(("a", "SUCCESS", {"n": 1}), ("a", "SUCCESS", {"n": 2}))
    other = run(("a", "SUCCESS", {"n": 2}), ("a", "SUCCESS", {"n": 1}))
    assert changes(one, other) == []


def test_a_success_that_became_a_remark_is_a_difference() -> None:
    assert changes(run(("a", "SUCCESS", None)), run(("a", "INFO", None))) == [("a", "SUCCESS", "INFO")]


def test_equal_statuses_with_other_details_are_a_difference() -> None:
    (found,) = differences(run(("a", "SUCCESS", {"n": [1]})), run(("a", "SUCCESS", {"n": [2]})))
    assert found.detail == "details.n[0]: 1 => 2"


def test_only_the_repetitions_that_differ_are_told() -> None:
    direct = run(("a", "SUCCESS", 1), ("a", "SUCCESS", 2))
    assert changes(direct, run(("a", "SUCCESS", 2), ("a", "FAILURE", 1))) == [("a", "SUCCESS", "FAILURE")]
    assert changes(direct, run(("a", "SUCCESS", 2))) == [("a", "SUCCESS", "")]


def test_a_scenario_in_one_run_only_is_a_difference() -> None:
    assert changes(run(("a", "SUCCESS", None)), {}) == [("a", "SUCCESS", "")]
    assert changes({}, run(("a", "SUCCESS", None))) == [("a", "", "SUCCESS")]


def test_log_rows_are_not_compared() -> None:
    assert changes(run(("incoming-response", "INFO", 1)), run()) == []


@pytest.mark.parametrize(
    ("direct", "proxied"),
    [
        ("8213812a04264bf5bfdd9dfcc1296a13", "c7ed4ab947165826da946893b29587c0"),
        ("after 3f8a93ec-145", "after jOg5Kbz-CkiP.1.20"),
        ("http://127.0.0.1:3921/mcp", "http://127.0.0.1:40001/mcp"),
        ('{"taskId": "one", "n": 1}', '{"n": 1, "taskId": "other"}'),
        ({"subscriptionId": 1795173576077}, {"subscriptionId": 1795173576103}),
        (OTHER_WORDS, REFUSAL),
        (None, REFUSAL),
    ],
)
def test_what_is_the_proxys_own_is_no_difference(direct: Any, proxied: Any) -> None:
    assert parting(direct, proxied) is None


@pytest.mark.parametrize(
    ("direct", "proxied"),
    [
        ("3f8a93ec-145", ""),
        ('{"n": 1}', '{"n": 2}'),
        ({"subscriptionId": 1795173576077}, {"subscriptionId": "1795173576103"}),
        ({"subscriptionId": 1795173576077}, {}),
        ({**OTHER_WORDS, "error": {"code": -32600}}, REFUSAL),
        ({"jsonrpc": "2.0", "id": 7, "result": {}}, REFUSAL),
        ({**OTHER_WORDS, "id": 8}, REFUSAL),
        ({"status": 404, "body": OTHER_WORDS}, {"status": 200, "body": REFUSAL}),
        (OTHER_WORDS, {**OTHER_WORDS, "error": {"code": -32601, "message": "worded by the server"}}),
        (True, 1),
        ([1], [1, 2]),
        (None, {}),
    ],
)
def test_everything_else_is_a_difference(direct: Any, proxied: Any) -> None:
    assert parting(direct, proxied) is not None


def test_an_expected_difference_is_no_problem() -> None:
    entry = Expected("a-scenario", "a", "SUCCESS", "INFO", "why")
    found = judge(run(("a", "SUCCESS", None)), run(("a", "INFO", None)), [entry], 1)
    assert (found.problems, found.explained, found.same) == ((), (entry,), 0)


def test_an_expected_difference_that_is_not_there_is_a_problem() -> None:
    entry = Expected("a-scenario", "a", "SUCCESS", "INFO", "why")
    found = judge(run(("a", "SUCCESS", None)), run(("a", "SUCCESS", None)), [entry], 1)
    assert found.problems == ("a-scenario: a: expected SUCCESS => INFO",)


def test_a_suite_that_runs_less_is_a_problem() -> None:
    assert judge({}, {}, [], 33).problems == ("0 scenarios ran direct, not 33",)

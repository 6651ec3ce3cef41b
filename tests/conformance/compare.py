"""What differs between two runs of the conformance suite, check by check and detail by detail.

The suite's own verdict is not enough. A proxy that breaks something can turn SUCCESS into INFO or SKIPPED, and a
check can pass for the wrong reason: an error's text is text content, too. So every check must have the same status
and the same recorded details.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# The checks that a run recorded, by scenario.
Checks = dict[str, list[dict[str, Any]]]

# Rows that log what the suite sent and received. What follows from them is in the checks.
LOG = frozenset(
    {
        "incoming-request",
        "incoming-response",
        "incoming-sse-event",
        "outgoing-request",
        "outgoing-response",
        "outgoing-sse-event",
        "outgoing-stream-close",
        "stream-closed",
    }
)

# What no two runs have in common, whoever serves.
VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d.]*(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"v1\.[\w-]{40,}"), "<state>"),
    (re.compile(r"(first|second|confirm)-[\w-]{6}\b"), r"\1-<task>"),
    (re.compile(r"(127\.0\.0\.1|localhost):\d+"), "<host>"),
    # Session ids: 32 hex digits from either.
    (re.compile(r"\b[0-9a-f]{32}\b"), "<session>"),
    # Event ids: the fixture's are `run-number`, the proxy's `epoch.stream.number`.
    (re.compile(r"\b[0-9a-f]{8}-\d+\b|(?<![\w-])[\w-]{12}\.\d+\.\d+\b"), "<event>"),
)
VOLATILE_KEYS = frozenset({"taskId", "subscriptionId", "io.modelcontextprotocol/subscriptionId"})


@dataclass(frozen=True, slots=True)
class Difference:
    scenario: str
    check: str
    # The statuses of the check where they were not the same, as "SUCCESS+SUCCESS"; "" where the check is absent.
    direct: str
    proxied: str
    # For people: where the two part.
    detail: str


def differences(direct: Checks, proxied: Checks) -> list[Difference]:
    return [
        difference
        for scenario in sorted(direct.keys() | proxied.keys())
        for difference in _in_scenario(scenario, direct.get(scenario, []), proxied.get(scenario, []))
    ]


def _in_scenario(
    scenario: str, direct: list[dict[str, Any]], proxied: list[dict[str, Any]]
) -> Iterator[Difference]:
    here, there = _by_id(scenario, direct), _by_id(scenario, proxied)
    for check in sorted(here.keys() | there.keys()):
        left, came = _unpaired(here[check], there[check])
        if left or came:
            detail = (parting(left[0], came[0]) if left and came else None) or "one of them is absent"
            yield Difference(scenario, check, _statuses(left), _statuses(came), detail)


def _by_id(scenario: str, checks: list[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for check in checks:
        if check["id"] not in LOG:
            found[check["id"]].append(_told_by(scenario, check))
    return found


def _told_by(scenario: str, check: dict[str, Any]) -> dict[str, Any]:
    details = check.get("details")
    if scenario.startswith("tasks-") and isinstance(details, dict):
        # How often a task is asked for its state before it is done is a matter of time.
        details = {key: value for key, value in details.items() if key != "messagesValidated"}
    return {"status": check["status"], "errorMessage": check.get("errorMessage"), "details": details}


def _unpaired(
    direct: list[dict[str, Any]], proxied: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What remains after every check that is in both has been crossed out; one check may occur several times."""
    left, came = [], list(proxied)
    for check in direct:
        twin = next((other for other in came if parting(check, other) is None), None)
        if twin is None:
            left.append(check)
        else:
            came.remove(twin)
    return left, came


def _statuses(checks: list[dict[str, Any]]) -> str:
    return "+".join(sorted(check["status"] for check in checks))


def parting(direct: Any, proxied: Any, where: str = "") -> str | None:
    """Where two records part, or None when they tell the same."""
    if _is_own_refusal(proxied):
        return _parting_of_refusals(direct, proxied, where)
    if isinstance(direct, dict) and isinstance(proxied, dict):
        for key in sorted(direct.keys() | proxied.keys()):
            if key not in direct or key not in proxied:
                return f"{where}.{key} only {'proxied' if key in proxied else 'direct'}".lstrip(".")
            if key in VOLATILE_KEYS and type(direct[key]) is type(proxied[key]):
                continue
            if found := parting(direct[key], proxied[key], f"{where}.{key}"):
                return found
        return None
    if isinstance(direct, list) and isinstance(proxied, list) and len(direct) == len(proxied):
        pairs = enumerate(zip(direct, proxied, strict=True))
        return next(filter(None, (parting(a, b, f"{where}[{i}]") for i, (a, b) in pairs)), None)
    if isinstance(direct, str) and isinstance(proxied, str):
        return _parting_of_texts(direct, proxied, where)
    return None if (type(direct), direct) == (type(proxied), proxied) else _told(direct, proxied, where)


def _is_own_refusal(body: Any) -> bool:
    """Whether it is an error that the proxy worded: those have their reason in `data`, the fixture's have not."""
    error = body.get("error") if isinstance(body, dict) else None
    data = error.get("data") if isinstance(error, dict) else None
    return isinstance(data, dict) and isinstance(data.get("reason"), str)


def _parting_of_refusals(direct: Any, proxied: dict[str, Any], where: str) -> str | None:
    """The proxy refuses in words of its own, but with the same code, and the HTTP status beside it is the same.

    Where the fixture's refusal has no JSON body, the suite records None.
    """
    if direct is None:
        return None
    error = direct.get("error") if isinstance(direct, dict) else None
    if isinstance(error, dict):
        there = (proxied.get("id"), proxied["error"].get("code"))
        if (direct.get("id"), error.get("code")) == there:
            return None
    return _told(direct, proxied, where)


def _parting_of_texts(direct: str, proxied: str, where: str) -> str | None:
    if direct.startswith("{") and proxied.startswith("{"):
        try:
            return parting(json.loads(direct), json.loads(proxied), where)
        except ValueError:
            pass
    for pattern, name in VOLATILE:
        direct, proxied = pattern.sub(name, direct), pattern.sub(name, proxied)
    return None if direct == proxied else _told(direct, proxied, where)


def _told(direct: Any, proxied: Any, where: str) -> str:
    return f"{where.lstrip('.')}: {_short(direct)} => {_short(proxied)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "…"

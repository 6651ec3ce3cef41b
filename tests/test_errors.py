from __future__ import annotations

import re
from pathlib import Path

import pytest

from shadowcat.errors import Fault, FaultKind, Side, describe, without_frames

every_kind = pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.value)

JSON_RPC = {-32700, -32600, -32601, -32602, -32603}
MCP = {-32020, -32021, -32022}


@every_kind
def test_every_kind_is_told(kind: FaultKind) -> None:
    told = describe(kind)
    assert 400 <= told.status < 600
    assert re.fullmatch(r"[A-Z][^\n]*[^.\s]", told.message)


@every_kind
def test_codes_are_the_protocol_s_or_outside_its_range(kind: FaultKind) -> None:
    """-32768 … -32000 is reserved; of -32020 … -32099 the protocol has defined three."""
    code = describe(kind).code
    assert code in JSON_RPC | MCP or not -32768 <= code <= -32000


def test_each_private_code_means_one_thing() -> None:
    private = [describe(kind).code for kind in FaultKind if describe(kind).code not in JSON_RPC]
    assert len(set(private)) == len(private)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (FaultKind.PARSE, 400, -32700),
        (FaultKind.INVALID_REQUEST, 400, -32600),
        (FaultKind.METHOD_NOT_FOUND, 404, -32601),
        (FaultKind.INVALID_PARAMS, 400, -32602),
        (FaultKind.HEADER_MISMATCH, 400, -32020),
        (FaultKind.MISSING_CAPABILITY, 400, -32021),
        (FaultKind.UNSUPPORTED_VERSION, 400, -32022),
        (FaultKind.FORBIDDEN, 403, -32600),
        (FaultKind.SESSION_UNKNOWN, 404, -32600),
        (FaultKind.METHOD_NOT_ALLOWED, 405, -32600),
        (FaultKind.NOT_ACCEPTABLE, 406, -32600),
        (FaultKind.BODY_TOO_LARGE, 413, -32600),
        (FaultKind.UNSUPPORTED_MEDIA_TYPE, 415, -32600),
        (FaultKind.STREAM_NOT_RESUMABLE, 400, -31001),
        (FaultKind.UPSTREAM_INVALID, 502, -31003),
        (FaultKind.OUTCOME_UNKNOWN, 502, -31004),
        (FaultKind.UPSTREAM_UNAVAILABLE, 503, -31005),
        (FaultKind.OVER_CAPACITY, 503, -31002),
        (FaultKind.INTERNAL, 500, -32603),
    ],
    ids=lambda value: value.value if isinstance(value, FaultKind) else "",
)
def test_what_the_protocol_and_the_promise_fix(kind: FaultKind, status: int, code: int) -> None:
    told = describe(kind)
    assert (told.status, told.code) == (status, code)


@every_kind
def test_a_fault_of_a_kind_alone(kind: FaultKind) -> None:
    fault = Fault(kind)
    assert (fault.kind, fault.status) == (kind, describe(kind).status)
    assert (fault.reason, fault.message, str(fault)) == (
        kind.value,
        describe(kind).message,
        describe(kind).message,
    )
    assert (fault.sent, fault.data) == (False, None)
    assert fault.error() == {
        "code": describe(kind).code,
        "message": describe(kind).message,
        "data": {"reason": kind.value},
    }


@every_kind
def test_the_usual_side_follows_the_status(kind: FaultKind) -> None:
    """Below 500 the client is told that it erred; above, that it did not."""
    client_erred = describe(kind).status < 500
    assert (Fault(kind).side is Side.DOWNSTREAM) is client_erred
    assert (Fault(kind).side is Side.UPSTREAM) is (not client_erred and not _is_ours(kind))


def _is_ours(kind: FaultKind) -> bool:
    return kind in (FaultKind.OVER_CAPACITY, FaultKind.INTERNAL)


def test_a_fault_with_everything_said() -> None:
    fault = Fault(
        FaultKind.UNSUPPORTED_VERSION,
        "No such version",
        reason="too_new",
        side=Side.UPSTREAM,
        sent=True,
        data={"supported": ["2026-07-28"], "requested": "1900-01-01"},
    )
    assert (fault.side, fault.sent, str(fault)) == (Side.UPSTREAM, True, "No such version")
    assert fault.error() == {
        "code": -32022,
        "message": "No such version",
        "data": {"reason": "too_new", "supported": ["2026-07-28"], "requested": "1900-01-01"},
    }


def test_data_cannot_hide_the_reason() -> None:
    data = {"reason": "another", "x": 1}
    fault = Fault(FaultKind.INTERNAL, reason="ours", data=data)
    assert fault.error()["data"] == {"reason": "ours", "x": 1}
    assert data["reason"] == "another"


def test_what_is_without_frames_holds_nothing_that_was_worked_on() -> None:
    def work(on: list[object]) -> None:
        try:
            on.index("nothing")
        except ValueError as error:
            raise Fault(FaultKind.INTERNAL) from error

    with pytest.raises(Fault) as caught:
        work([])
    fault = without_frames(caught.value)
    cause = fault.__cause__
    assert isinstance(cause, ValueError)
    assert (
        (fault.__traceback__, fault.__context__) == (cause.__traceback__, cause.__context__) == (None, None)
    )


def test_every_reason_is_in_the_reference() -> None:
    root = Path(__file__).parent.parent
    page = (root / "docs/reference/errors.md").read_text("utf-8")
    # What the demo's server answers, and what the doctor runs into, is not said by the proxy.
    paths = (path for path in root.glob("src/shadowcat/**/*.py") if not {"demo", "doctor"} & _words(path))
    source = "".join(path.read_text("utf-8") for path in paths)
    reasons = set(re.findall(r'reason="([a-z_]+)"', source))
    assert len(reasons) > 30
    assert {reason for reason in reasons if f"`{reason}`" not in page} == set()
    assert {kind.value for kind in FaultKind if f"`{kind.value}`" not in page} == set()


def _words(path: Path) -> set[str]:
    return {path.parent.name, *path.stem.split("_")}

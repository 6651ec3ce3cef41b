"""The answer to a client that asks for something the tape does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shadowcat.replay.recorded import Exchange, RecordedSession, Recording
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message

CODE = -31008
_MAX_COMPARED = 50
_MAX_DIFFERENCES = 5


def not_on_tape(recording: Recording, session: RecordedSession, asked: Message) -> Message:
    """Names what was asked, and the recorded request that comes nearest."""
    same_method = session.of_method(asked.method)
    data: dict[str, Any] = {"reason": "not_on_the_tape", "asked": asked.method}
    if not same_method:
        data["methods"] = session.methods()
        told = f"Not on the tape: {asked.method}. It has {', '.join(session.methods()) or 'no requests'}"
        return jsonrpc.error(asked.id, {"code": CODE, "message": told, "data": data})
    nearest, differences = _nearest(recording, same_method[:_MAX_COMPARED], asked)
    if not differences:
        told = f"Not on the tape: {asked.method} was asked less often there ({len(same_method)} times)"
        return jsonrpc.error(asked.id, {"code": CODE, "message": told, "data": data})
    data["nearest"] = {"seq": nearest.step.seq, "differs": differences[:_MAX_DIFFERENCES]}
    first = differences[0]
    told = (
        f"Not on the tape: {asked.method} with these parameters. The nearest recorded request (message "
        f"{nearest.step.seq}) has {first['expected']} at {first['pointer']}, not {first['got']}"
    )
    return jsonrpc.error(asked.id, {"code": CODE, "message": told, "data": data})


def _nearest(
    recording: Recording, exchanges: Sequence[Exchange], asked: Message
) -> tuple[Exchange, list[dict[str, str]]]:
    best: tuple[Exchange, list[dict[str, str]]] | None = None
    for exchange in exchanges:
        found = [
            difference._asdict()
            for difference in recording.likeness.differences(recording.request(exchange), asked)
        ]
        if best is None or len(found) < len(best[1]):
            best = exchange, found
    assert best is not None
    return best


def no_session(initialize: Message, recorded: int, *, strict: bool) -> Message:
    """Nothing on the tape begins with an `initialize` that would do."""
    told = f"No session of the tape's {recorded} can be played from its beginning"
    if strict and recorded:
        told = f"None of the tape's {recorded} sessions was opened like this and is still unused"
    return jsonrpc.error(
        initialize.id, {"code": CODE, "message": told, "data": {"reason": "not_on_the_tape"}}
    )

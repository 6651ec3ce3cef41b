"""A recording by sessions and exchanges. It holds places only; the messages stay in the files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from shadowcat.core.likeness import Likeness
from shadowcat.core.multiplex import request_named_by
from shadowcat.core.redact import Redactor
from shadowcat.replay.files import Placed, TapeFile, frames_of
from shadowcat.wire import jsonrpc, tape
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import Method
from shadowcat.wire.tape import Frame, TapeError


class Step(msgspec.Struct, gc=False):
    """One frame: where it is, and what has to be known to read on without it."""

    part: int
    offset: int
    seq: int
    ms: float
    is_up: bool
    kind: str
    request: int | None


class Exchange(msgspec.Struct, eq=False):
    """A client's request and what came of it, its client's answers to questions on the way included."""

    step: Step
    method: str
    key: bytes
    steps: list[Step]
    is_answered: bool = False
    is_cancelled: bool = False
    is_refused: bool = False
    """By an interceptor: what it was answered with stands beside the request."""


class Standalone(msgspec.Struct, eq=False):
    step: Step
    after: int
    """The last thing that the client had said before, by its seq."""


class RecordedSession:
    """One session, or all that passed without any."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.steps: list[Step] = []
        self.exchanges: list[Exchange] = []
        self.standalone: list[Standalone] = []
        self.questions: Counter[str] = Counter()
        """How often the server asked what, by method."""
        self.told: dict[str, list[int]] = {}
        """The client's notifications by method: their places on the tape."""
        self._by_key: dict[bytes, list[Exchange]] = {}
        self._open: dict[RequestId, Exchange] = {}
        self._by_seq: dict[int, Exchange] = {}
        self._last_up = 0
        self._questions: dict[int, Exchange | None] = {}

    @property
    def opening(self) -> Exchange | None:
        """The exchange that opened it; not on the tape where the recording began later."""
        first = self.exchanges[0] if self.exchanges else None
        return first if first is not None and first.method == Method.INITIALIZE else None

    @property
    def hears_more_than_answers(self) -> bool:
        """Whether the server says anything beside answers."""
        return any(not step.is_up and step.kind in ("notification", "request") for step in self.steps)

    def same_as(self, key: bytes) -> Sequence[Exchange]:
        """Those with the same request, in order."""
        return self._by_key.get(key, ())

    def of_method(self, method: str) -> Sequence[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.method == method]

    def methods(self) -> Sequence[str]:
        return list(dict.fromkeys(exchange.method for exchange in self.exchanges))

    # Built from one frame after another.

    def add(self, step: Step, frame: Frame, message: Message, likeness: Likeness) -> None:
        self.steps.append(step)
        if not step.is_up:
            self._add_down(step, message)
        elif message.is_request:
            self._ask(step, frame, message, likeness)
            self._last_up = step.seq
        elif message.is_response:
            asker = self._questions.pop(step.request or 0, None)
            if asker is not None:
                asker.steps.append(step)
        else:
            self._last_up = step.seq
            self.told.setdefault(message.method, []).append(step.seq)
            if message.method == Method.CANCELLED:
                cancelled = self._open.get(request_named_by(message) or "")
                if cancelled is not None:
                    cancelled.is_cancelled = True

    def _ask(self, step: Step, frame: Frame, request: Message, likeness: Likeness) -> None:
        assert request.id is not None
        exchange = Exchange(step, request.method, likeness.key(request), [])
        exchange.is_refused = frame.outcome in (tape.REPLIED, tape.REJECTED)
        self.exchanges.append(exchange)
        self._by_key.setdefault(exchange.key, []).append(exchange)
        self._open[request.id] = self._by_seq[step.seq] = exchange

    def _add_down(self, step: Step, message: Message) -> None:
        if message.is_request:
            self.questions[message.method] += 1
        exchange = self._only_running() if step.request is None else self._by_seq.get(step.request)
        if step.request is None and exchange is None:
            if message.is_request:
                self._questions[step.seq] = None
            self.standalone.append(Standalone(step, self._last_up))
            return
        if exchange is None:
            return  # its request is not on the tape: nobody can ask for it
        exchange.steps.append(step)
        if message.is_request:
            self._questions[step.seq] = exchange
        elif message.is_response:
            exchange.is_answered = True
            self._by_seq.pop(exchange.step.seq, None)

    def _only_running(self) -> Exchange | None:
        """Without a session, what comes over stdio while one call runs is that call's: nothing on the line says so.

        What a subscription brings names it, and is not asked about here.
        """
        if self.label:
            return None
        running = [one for one in self._by_seq.values() if one.method != Method.LISTEN]
        return running[0] if len(running) == 1 else None


class Recording:
    """Files of one recording, gone through once. Raises `TapeError`."""

    def __init__(self, files: Sequence[TapeFile], likeness: Likeness, session: str = "") -> None:
        """`session`: the beginning of the name of the only one to look at."""
        self._files = files
        self.likeness = likeness
        self._redactor = Redactor(files[0].head.redacted_keys)
        self.stateless = RecordedSession("")
        self.sessions: list[RecordedSession] = []
        """In the order in which they began."""
        by_label = {"": self.stateless}
        for placed in frames_of(files):
            frame = placed.frame
            if session and not frame.session.startswith(session):
                continue
            found = by_label.get(frame.session)
            if found is None:
                found = by_label[frame.session] = RecordedSession(frame.session)
                self.sessions.append(found)
            frame.check()
            found.add(_step(placed), frame, frame.parsed(), likeness)
        if session and not self.sessions:
            raise TapeError(f"there is no session {session} on the tape")

    def frame(self, step: Step) -> Frame:
        return self._files[step.part].frame_at(step.offset)

    def without_secrets(self, message: Message) -> Message:
        """A message as it would stand on this tape."""
        raw = self._redactor.redact_message(message)
        return message if raw is message.raw else jsonrpc.parse(raw)

    def request(self, exchange: Exchange) -> Message:
        return self.frame(exchange.step).parsed()

    def heard_by_client(self, step: Step) -> Message | None:
        """What the client got of it, whatever interceptors had made of it."""
        frame = self.frame(step)
        if frame.outcome in (tape.PASSED, tape.FAILED):
            return frame.parsed()
        if frame.outcome == tape.REPLACED:
            return frame.delivered()
        return frame.stand_in() if frame.kind in ("result", "error") else None

    def refusal(self, exchange: Exchange) -> Message:
        """What an interceptor answered a request with."""
        answer = self.frame(exchange.step).stand_in()
        assert answer is not None
        return answer


def _step(placed: Placed) -> Step:
    frame = placed.frame
    is_up = frame.direction == tape.TO_SERVER
    return Step(placed.part, placed.offset, frame.seq, frame.ms, is_up, frame.kind, frame.request)

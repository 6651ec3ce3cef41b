"""A tape as a dialogue: each thing said with its replies, one after another, with a bound on what is held."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import msgspec

from shadowcat.core.likeness import Likeness
from shadowcat.wire import tape
from shadowcat.wire.jsonrpc import Message
from shadowcat.wire.mcp import Method
from shadowcat.wire.tape import Frame

_MAX_OPEN = 1_000
_MAX_ANSWERS = 10_000


class Item(msgspec.Struct, eq=False):
    """A request with what came of it, or one message that stands for itself."""

    session: int
    """Sessions are counted in the order in which they begin; 0 is what passed without."""
    message: Message
    frame: Frame
    key: bytes
    answers: list[Frame]
    is_over: bool

    @property
    def response(self) -> Frame | None:
        last = self.answers[-1] if self.answers else None
        return last if last is not None and last.kind in ("result", "error") else None


def items(frames: Iterable[Frame], likeness: Likeness) -> Iterator[Item]:
    """In the order of the requests."""
    waiting: deque[Item] = deque()
    asked: dict[int, Item] = {}
    sessions: dict[str, int] = {"": 0}
    for frame in frames:
        item = asked.get(frame.request or 0) if _belongs_to_request(frame) else None
        if item is not None:
            item.answers.append(frame)
            item.is_over = item.response is not None or len(item.answers) >= _MAX_ANSWERS
        else:
            item = _item(frame, sessions, likeness)
            waiting.append(item)
            if not item.is_over:
                asked[frame.seq] = item
        while waiting and (waiting[0].is_over or len(waiting) > _MAX_OPEN):
            done = waiting.popleft()
            asked.pop(done.frame.seq, None)
            yield done
    yield from waiting


def _item(frame: Frame, sessions: dict[str, int], likeness: Likeness) -> Item:
    message = frame.parsed()
    number = sessions.setdefault(frame.session, len(sessions))
    is_over = not (message.is_request and frame.direction == tape.TO_SERVER)
    key = b"%d %b %b" % (number, frame.direction.encode(), likeness.key(message))
    return Item(number, message, frame, key, [], is_over)


def _belongs_to_request(frame: Frame) -> bool:
    """By its id or token; where a server has one pipe for everything, the rest comes between any two others."""
    return frame.direction == tape.TO_CLIENT and (
        frame.kind in ("result", "error") or frame.method == Method.PROGRESS
    )

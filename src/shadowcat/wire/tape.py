"""Tapes: messages that passed the proxy, as lines of JSON. The first line describes the file.

A message stands on its line as it came, byte for byte, unless something in it was redacted. A tape may be read while
it is written, and after its writer was killed: then its last line may be torn, and all before it are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from shadowcat.errors import Fault
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId

FORMAT = "shadowcat tape"
MAJOR = 1
VERSION = f"{MAJOR}.0"
"""A reader of 1.0 reads every 1.x: members are only added."""

TO_SERVER = "to_server"
TO_CLIENT = "to_client"

PASSED = "passed"
REPLACED = "replaced"
REPLIED = "replied"
REJECTED = "rejected"
FAILED = "failed"
"""The message is the proxy's own: it stands where the server gave no answer."""
_OUTCOMES = frozenset({PASSED, REPLACED, REPLIED, REJECTED, FAILED})

SUFFIX = ".tape"

_IS_ERROR = b'"isError"'

NOTHING = Raw(b"")
"""The one object that is left out of a line: another one without bytes would be written, as no JSON."""


Moment = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]
"""The wall clock, in seconds since the epoch; up to the last year that has four digits."""


Elapsed = Annotated[float, msgspec.Meta(ge=0, le=1e13)]
"""Milliseconds; at most some three hundred years."""


class TapeError(ValueError):
    """What was to be read is no tape, or not one that can be read."""


class Head(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The first line."""

    format: str
    version: str
    started: Moment
    """When the recording began; a later part of it says the same."""
    part: int = 1
    recording: str = ""
    """The name of the recording that this is a part of."""
    program: str = ""
    """What wrote it, with its version."""
    clients: str = ""
    """How the clients spoke: http or stdio."""
    upstreams: dict[str, str] = {}
    """The servers by name, and how each is spoken to: http or stdio."""
    ring_s: float = 0.0
    """If set, only what came this long before something noteworthy is on the tape."""
    redacted_keys: tuple[str, ...] = ()
    """Those that were redacted beside the usual ones."""


class Frame(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message, and what became of it."""

    seq: int
    """Counts the messages of a recording from 1; one that is missing was left out."""
    ms: Elapsed
    """Since the recording began, by a clock that does not jump."""
    at: Moment
    direction: str
    era: str
    session: str = ""
    """Stands for a session and cannot be used as its id; empty in the modern era."""
    upstream: str = ""
    """Its name; empty where none had been chosen yet."""
    request: int | None = None
    """For what comes back: the seq of the client's request that it answers or accompanies; for an answer of the
    client's: that of the server's request.

    0 is a request that is not on the tape; None, on the way to the client, the standalone stream.
    """
    status: int = 200
    """The HTTP status of an answer that came with one of its own, as those of the modern era may."""
    kind: str
    method: str = ""
    message: Raw = NOTHING
    text: str = ""
    """In place of `message`, where that has line breaks in it."""
    outcome: str = PASSED
    became: Raw = NOTHING
    """What it was replaced by, or what was replied or refused with in its place."""
    redacted: bool = False
    """Whether the message is not what it was."""

    @property
    def raw(self) -> bytes:
        return bytes(self.message) if self.message else self.text.encode()

    @property
    def is_tool_error(self) -> bool:
        """Whether it is a result all the same, and says that the tool failed."""
        if self.kind != "result" or _IS_ERROR not in self.raw:
            return False
        try:
            return bytes(jsonrpc.members(self.parsed().raw_result).get("isError", NOTHING)) == b"true"
        except Fault:
            return False

    def parsed(self) -> Message:
        """The message. Raises `TapeError`, also where it is not of the kind and method that the line says it is."""
        message = _parsed(self.raw, self.seq)
        if message.kind.value != self.kind or message.method != self.method:
            told = f"{message.kind.value} {message.method}".strip()
            raise TapeError(
                f"message {self.seq}: its line says {self.kind[:40]!r} {self.method[:40]!r}, and it is {told[:80]!r}"
            )
        return message

    def delivered(self) -> Message | None:
        """The message as it went on; None if it did not. Raises `TapeError`."""
        if self.outcome == PASSED:
            return self.parsed()
        if self.outcome != REPLACED:
            return None
        became = _parsed(bytes(self.became), self.seq)
        if became.kind.value != self.kind:
            raise TapeError(f"message {self.seq}: it became another kind of message")
        return became

    def stand_in(self) -> Message | None:
        """What it was answered with, or became as an answer, by an interceptor; None for others. Raises `TapeError`."""
        if self.outcome == REPLIED:
            answer = _parsed(bytes(self.became), self.seq)
        elif self.outcome == REJECTED:
            answer = _error(self.parsed().id, bytes(self.became), self.seq)
        else:
            return None
        if not answer.is_response:
            raise TapeError(f"message {self.seq}: what was replied is no answer")
        return answer

    def check(self) -> None:
        """Raises `TapeError` for a line that contradicts itself."""
        self.parsed()
        self.delivered()
        self.stand_in()
        if self.outcome not in _OUTCOMES:
            raise TapeError(f"message {self.seq}: the outcome {self.outcome[:40]!r} is not known")


class WrittenPart(msgspec.Struct, kw_only=True):
    """One file of a recording, as far as its sidecar tells."""

    file: str
    opened: float
    bytes: int = 0
    frames: int = 0


class Sidecar(msgspec.Struct, kw_only=True):
    """What stands beside the tapes of a recording: nothing that is needed to read them."""

    recording: str
    program: str
    clients: str
    upstreams: dict[str, str]
    started: float
    ended: float | None = None
    """Unset while it is written, and where its writer was killed."""
    ring_s: float = 0.0
    parts: list[WrittenPart]
    messages: int = 0
    dropped: int = 0
    """Left out because they came faster than they could be written, or because they could not be written."""
    redacted: int = 0


def _parsed(raw: bytes, seq: int) -> Message:
    try:
        return jsonrpc.parse(raw)
    except Fault as fault:
        raise TapeError(f"message {seq}: {fault.message}") from fault


def _error(id: RequestId | None, error: bytes, seq: int) -> Message:
    try:
        return jsonrpc.error(id, msgspec.json.decode(error, type=dict[str, Any]))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise TapeError(f"message {seq}: what it was refused with is no error") from why


# The codes of bytes: their search is a memchr.
_CR, _LF = b"\r\n"

_encode = msgspec.json.encode
_decode_head = msgspec.json.Decoder(Head).decode
_decode_frame = msgspec.json.Decoder(Frame).decode


def encode_head(head: Head) -> bytes:
    return _encode(head) + b"\n"


def encode_frame(frame: Frame) -> bytes:
    return _encode(frame) + b"\n"


def line_form(frame: Frame) -> bytes:
    """The line of a frame like this one, to be filled by `%` with another seq, ms, at, request and message.

    That takes a fraction of making a frame and encoding it, and says the same, as long as the message is one for
    `message`. Times have three digits behind the point: as few as needed, as in other lines, would take three times as
    long to find. Of `request` only whether there is one is the frame's.
    """
    known = replace(frame, seq=0, ms=0.0, at=0.0, message=Raw(b"0"))
    if frame.request is not None:
        known.request = 0
    line = encode_frame(known).replace(b"%", b"%%")
    # In a string these would stand with backslashes; what is before the first comes first in a line, and so on.
    line = line.replace(b'"seq":0,"ms":0.0,"at":0.0,', b'"seq":%d,"ms":%.3f,"at":%.3f,', 1)
    line = line.replace(b',"request":0,', b',"request":%d,', 1)
    return line.replace(b',"message":0', b',"message":%b', 1)


def has_line_breaks(raw: bytes) -> bool:
    return _LF in raw or _CR in raw


class Tape:
    """A tape as it is read: its head at once, then its frames, from lines that keep their ends.

    Raises `TapeError` for what is not a tape, or is one of a version that is not known here.
    """

    def __init__(self, lines: Iterable[bytes]) -> None:
        self._lines = iter(lines)
        self.head = _read_head(next(self._lines, b""))
        self.is_torn = False
        """Whether the last line was not whole; known once all were read."""

    def __iter__(self) -> Iterator[Frame]:
        for number, line in enumerate(self._lines, 2):
            try:
                yield _decode_frame(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                if not line.endswith(b"\n"):
                    self.is_torn = True
                    return
                raise TapeError(f"line {number}: {error}") from error

    @staticmethod
    def read(line: bytes) -> Frame:
        """One line that was gone through before. Raises `TapeError`."""
        try:
            return _decode_frame(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise TapeError(str(error)) from error


def _read_head(line: bytes) -> Head:
    try:
        head = _decode_head(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TapeError("this is no tape: its first line does not say so") from error
    if head.format != FORMAT:
        raise TapeError(f"this is no tape but {head.format[:40]!r}")
    major, _, _ = head.version.partition(".")
    if not (major.isascii() and major.isdigit() and len(major) < 10) or int(major) < 1:
        raise TapeError(f"the tape's version is {head.version[:20]!r}, which is none")
    if int(major) > MAJOR:
        raise TapeError(f"the tape is of version {head.version[:20]}; this program reads {MAJOR}.x")
    return head

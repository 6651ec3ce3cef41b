"""A tape as an upstream: the proxy serves it like the server that was recorded."""

from __future__ import annotations

from collections import Counter

from shadowcat.core.exchange import Answer, Forwarded, MessageStream
from shadowcat.errors import Fault, FaultKind
from shadowcat.replay.conversation import Conversation, PlayedStream
from shadowcat.replay.options import ReplayOptions
from shadowcat.replay.recorded import RecordedSession, Recording
from shadowcat.replay.unknown import no_session
from shadowcat.wire.jsonrpc import Kind, Message

NAME = "tape"


class TapeServer:
    """Gives each client that opens a session one of the tape's, and keeps one conversation for all without any."""

    def __init__(self, recording: Recording, options: ReplayOptions) -> None:
        self._recording = recording
        self._options = options
        self._used: Counter[str] = Counter()
        self.stateless = Conversation(recording, recording.stateless, options)

    async def open(self, initialize: Message) -> tuple[Conversation | None, Message]:
        """The conversation, and the answer to `initialize`; without one, that is an error."""
        asked = self._recording.without_secrets(initialize)
        session = self._pick(self._recording.likeness.key(asked))
        if session is None or session.opening is None:
            return None, no_session(initialize, len(self._recording.sessions), strict=self._options.strict)
        self._used[session.label] += 1
        conversation = Conversation(self._recording, session, self._options)
        # Whoever the client is, it is answered as the one on the tape was.
        answer = await conversation.answer(self._recording.request(session.opening).with_id(initialize.id))
        if answer.whole is None:
            answer.whole = await _last_of(answer.stream)
        opened = conversation if answer.whole.kind is Kind.RESULT else None
        return opened, answer.whole

    def _pick(self, key: bytes) -> RecordedSession | None:
        """The first unused one that was opened alike, or else the first unused, or else one once more."""
        openable = [session for session in self._recording.sessions if session.opening is not None]
        alike = [
            session for session in openable if session.opening is not None and session.opening.key == key
        ]
        unused = [session for session in alike if not self._used[session.label]]
        if not self._options.strict:
            unused += [session for session in openable if not self._used[session.label]]
            unused += sorted(alike or openable, key=lambda session: self._used[session.label])
        return unused[0] if unused else None


async def _last_of(stream: MessageStream | None) -> Message:
    assert stream is not None
    try:
        async for batch in stream:
            for message in batch:
                if message.is_response:
                    return message
    finally:
        await stream.aclose()
    raise AssertionError("a played stream ends with an answer")


class TapeUpstream:
    """Implements `core.ports.Upstream`."""

    def __init__(self, server: TapeServer) -> None:
        self._server = server

    @property
    def name(self) -> str:
        return NAME

    async def open(self, initialize: Message) -> tuple[TapeLink, Message]:
        conversation, answer = await self._server.open(initialize)
        return TapeLink(conversation), answer

    def attach(self, upstream_id: str | None, version: str) -> TapeLink:
        return TapeLink(None)

    async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
        return await self._server.stateless.answer(request)

    async def aclose(self) -> None: ...


class TapeLink:
    """Implements `core.ports.Link`; without a conversation it is dead."""

    upstream_id = None

    def __init__(self, conversation: Conversation | None) -> None:
        self._conversation = conversation

    def _require(self) -> Conversation:
        if self._conversation is None:
            raise Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="upstream_session_lost")
        return self._conversation

    async def exchange(self, request: Message) -> Answer:
        return await self._require().answer(request)

    async def send(self, message: Message) -> None:
        self._require().heard(message)

    async def listen(self) -> MessageStream | None:
        conversation = self._require()
        return PlayedStream(conversation.standalone()) if conversation.has_standalone else None

    def resume(self, cursor: bytes, *, standalone: bool) -> MessageStream:
        raise Fault(FaultKind.UPSTREAM_SESSION_LOST, reason="upstream_session_lost")

    async def detach(self) -> None: ...

    async def end(self) -> None:
        self._conversation = None

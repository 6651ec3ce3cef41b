"""A session left by an earlier process: the rest of its streams is asked for, or explicitly given up."""

from __future__ import annotations

import msgspec

from shadowcat.core.kept import KeptSession
from shadowcat.core.ledger import StoredSession
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.proxy.book import STANDALONE
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.inbound import follow
from shadowcat.proxy.listening import Listening
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc


def go_on(core: SessionCore, listening: Listening, held: KeptSession, stored: StoredSession) -> None:
    """Takes it up. Raises `Unreadable`."""
    unfinished = core.book.restore(stored.last_stream, stored.streams)
    core.book.make_room()
    # The client has seen the ids of the questions of the session's earlier life.
    core.correlator.skip_questions_to(held.last_question)
    now = core.shared.clock.monotonic()
    for asked in held.questions:
        stream = core.book.find(asked.stream)
        core.correlator.restore_question(asked.client_id, asked.upstream_id, asked.method, stream, now)
    standalone = core.book.find(STANDALONE)
    if standalone is not None:
        listening.go_on_from(standalone.resume())
    for stream in unfinished:
        # Before a client can ask for what is to come again.
        cursor = stream.resume()
        core.shared.tasks.spawn(_go_on_with(core, stream, cursor), "go on")
    if held.record.has_listened:
        # Its client may call first. If it stays away, the stream lingers for as long as it does otherwise.
        listening.start()


async def _go_on_with(core: SessionCore, stream: Stream, cursor: bytes | None) -> None:
    try:
        for client_id, known in list(stream.unanswered.items()):
            if known is None or cursor is None:
                told = "The proxy was restarted while the call ran; the outcome is unknown"
                lost = Fault(
                    FaultKind.OUTCOME_UNKNOWN, told, reason="proxy_restarted", side=Side.OURS, sent=True
                )
                stream.append(jsonrpc.error(client_id, lost.error()), own=True)
                continue
            request = jsonrpc.request(client_id, known.method)
            if known.params:
                request = request.with_params(msgspec.Raw(known.params))
            entry = core.correlator.restore(client_id, known.upstream_id, known.method, known.token)
            await follow(core, request, entry, core.link.resume(cursor, standalone=False), stream)
    finally:
        core.book.finish(stream)

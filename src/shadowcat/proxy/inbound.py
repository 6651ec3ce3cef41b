"""What an upstream says in a session: read to its end, and put on the stream it belongs to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from shadowcat.core.correlate import InFlight, ServerRequest
from shadowcat.core.exchange import TO_CLIENT, MessageStream, PromptStream, Reply
from shadowcat.core.kept import KeptRequest
from shadowcat.core.pointer import look
from shadowcat.errors import Fault, FaultKind, Side
from shadowcat.proxy.core import SessionCore
from shadowcat.proxy.passing import Passing, passes_as_it_is
from shadowcat.proxy.streams import Stream
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import RESULT, Message
from shadowcat.wire.mcp import Method

log = logging.getLogger("shadowcat.session")

T = TypeVar("T")


class Stoppable:
    """A block that ends where the request is cancelled or fails, whatever is waited for in it."""

    __slots__ = ("_entry", "_interrupted", "_task")

    def __init__(self, entry: InFlight[Stream]) -> None:
        self._entry = entry
        self._interrupted = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._entry.interrupt = self

    def __call__(self) -> None:
        """Ends it."""
        self._interrupted = True
        self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._entry.interrupt = None
        # What it fails with holds the frame that holds this.
        task = self._task
        del self._task
        # What somebody else cancels besides is not ours to stop.
        return (
            kind is asyncio.CancelledError
            and self._interrupted
            and self._entry.is_stopped
            and task.uncancel() <= 0
        )


async def until_stopped(entry: InFlight[Stream], work: Coroutine[Any, Any, T]) -> T | None:
    """The outcome of `work`; None when the request was cancelled or failed first."""
    with Stoppable(entry):
        return await work
    return None


async def follow(
    core: SessionCore,
    request: Message,
    entry: InFlight[Stream],
    source: MessageStream,
    stream: Stream,
    *,
    ends_stream: bool = False,
) -> None:
    """Reads the answer to a request to its end, also when nobody listens: a lost client cancels nothing.

    `ends_stream`: nothing else is said on it.
    """
    response: Message | None = None
    is_own = True
    entry.stream = stream
    if stream.is_kept:
        stream.answers(entry.client_id, _kept(entry, request))
    try:
        # It may have been stopped while this was yet to begin.
        if not entry.is_stopped:
            with Stoppable(entry):
                response = await _up_to_response(core, request, entry, source, stream)
        if response is None and entry.fault is not None:
            raise entry.fault.anew()
        is_own = False
    except Fault as fault:
        give_up(core, request, entry, fault)
        response = jsonrpc.error(entry.client_id, fault.error())
    except Exception:
        log.exception("session %s: %r cannot be followed", core.record.id[:8], request)
        response = jsonrpc.error(entry.client_id, Fault(FaultKind.INTERNAL).error())
    finally:
        core.correlator.finish(entry)
        if response is not None and not entry.cancelled:
            stream.append(response, own=is_own)
        elif entry.cancelled:
            stream.is_answered(entry.client_id)
        if ends_stream:
            core.book.finish(stream)
        await source.aclose()


def _kept(entry: InFlight[Stream], request: Message) -> KeptRequest:
    params = request.raw_params if request.method in REMEMBERED else _name_of_tool(request)
    return KeptRequest(entry.upstream_id, entry.method, entry.token, params)


def _name_of_tool(request: Message) -> bytes:
    """As parameters that hold nothing else."""
    if request.method != Method.TOOLS_CALL:
        return b""
    try:
        name = look(request, ("params", "name"))
    except Fault:
        return b""
    return b"" if name is None else b'{"name":%b}' % name


async def _up_to_response(
    core: SessionCore, request: Message, entry: InFlight[Stream], source: MessageStream, stream: Stream
) -> Message:
    try:
        response = await _heard(core, request, entry, source, stream)
    except Fault as fault:
        if fault.kind is FaultKind.UPSTREAM_SESSION_LOST:
            # Asked for the rest the server knows nothing of it, which says nothing about what it had done.
            raise lost_with_session() from fault
        core.shared.upstreams.failed(core.record.upstream, fault)
        raise
    return await _decided(stream, finished(core, request, entry, response))


def lost_with_session() -> Fault:
    """For a call that the server had begun to answer in a session that is gone."""
    told = "The upstream lost the session; the outcome is unknown"
    return Fault(FaultKind.OUTCOME_UNKNOWN, told, reason="upstream_session_lost", sent=True)


async def _heard(
    core: SessionCore, request: Message, entry: InFlight[Stream], source: MessageStream, stream: Stream
) -> Message:
    """The response as the upstream said it."""
    passing = Passing(core, stream, request, entry)
    if isinstance(source, PromptStream):
        source.take_with(passing)
    async for batch in source:
        rest = passing.take(batch, source.cursor)
        # What they hold is in the log by now; whoever waits for room here may do so for long.
        del batch
        if rest:
            response = await _deliver_each(core, request, entry, rest, stream)
            if response is not None:
                return response
            stream.heard()
            stream.mark(source.cursor)
        del rest
        await core.book.wait_for_room(stream)
    raise Fault(FaultKind.OUTCOME_UNKNOWN, reason="upstream_connection_lost", sent=True)


async def _deliver_each(
    core: SessionCore, request: Message, entry: InFlight[Stream], batch: list[Message], stream: Stream
) -> Message | None:
    """Puts them on the stream up to the response to the request, which is returned."""
    passing: list[Message] = []
    for message in batch:
        if passes_as_it_is(core, message, request):
            passing.append(message)
            continue
        stream.extend(passing)
        passing = []
        if not message.is_response:
            await _decided(stream, deliver(core, message, stream, request))
        elif (answer := jsonrpc.answer_to(entry.upstream_id, message)) is not None:
            return answer
        else:
            _drop(core, "an answer to something else", message)
    stream.extend(passing)
    return None


async def _decided(stream: Stream, deciding: Coroutine[Any, Any, T]) -> T:
    stream.undecided += 1
    try:
        return await deciding
    finally:
        stream.undecided -= 1
        # The time that this took was not the upstream's.
        stream.heard()


async def finished(
    core: SessionCore, request: Message, entry: InFlight[Stream], response: Message
) -> Message:
    """The response as the client gets it, with what it means for the session noted."""
    core.note_answer(entry, response)
    response = response.with_id(entry.client_id)
    if request.method in REMEMBERED and response.kind is RESULT:
        _remember(core, request)
    return await judged_response(core, request, response)


async def thought_about(
    core: SessionCore, request: Message, entry: InFlight[Stream], judging: Coroutine[Any, Any, T]
) -> T | None:
    """What interceptors make of the whole answer to a request, which is in flight until they are done.

    So whoever ends it has its client told. None when the client has cancelled it.
    """
    try:
        # It may have been stopped while this was yet to begin.
        outcome = None if entry.is_stopped else await until_stopped(entry, judging)
    finally:
        judging.close()
        core.correlator.finish(entry)
    if outcome is None and entry.fault is not None:
        core.failed(request, entry.fault)
        raise entry.fault.anew()
    return outcome


async def judged_response(core: SessionCore, request: Message, response: Message) -> Message:
    judged = await core.judged(response, TO_CLIENT, request)
    return judged.message if isinstance(judged, Reply) else judged


REMEMBERED = frozenset({Method.SET_LEVEL, Method.SUBSCRIBE, Method.UNSUBSCRIBE})


def _remember(core: SessionCore, request: Message) -> None:
    """What an upstream that forgot the session has to be told again."""
    record = core.record
    params = request.params()
    if request.method == Method.SET_LEVEL:
        record.log_level = str(params.get("level"))
    elif request.method == Method.SUBSCRIBE:
        record.subscriptions |= {str(params.get("uri"))}
    else:
        record.subscriptions -= {str(params.get("uri"))}
    core.ledger.record_changed()


async def deliver(core: SessionCore, message: Message, stream: Stream, request: Message | None) -> None:
    """Puts a request or notification of the upstream's on a stream, ids translated."""
    if message.method == Method.PING and message.is_request:
        await answer_upstream(core, jsonrpc.result(_id(message), {}))
        return
    try:
        judged = await core.judged(message, TO_CLIENT, request)
    except Fault as fault:
        # The request on whose stream it came goes on without it.
        _drop(core, "what an interceptor refused", message)
        if message.is_request:
            await answer_upstream(core, jsonrpc.error(_id(message), fault.error()))
        return
    if isinstance(judged, Reply):
        if message.is_request:
            await answer_upstream(core, judged.message.with_id(message.id))
    elif judged.is_request:
        await _ask_client(core, judged, stream)
    elif judged.method == Method.CANCELLED:
        withdrawn = core.correlator.cancelled_by_upstream(judged)
        if withdrawn is None:
            _drop(core, "a cancellation of nothing", judged)
        else:
            asked, notification = withdrawn
            where = asked.stream
            if where is None or where.log.closed:
                # The call it was asked on has ended; the client may still show the question.
                where = stream
            core.ledger.record_changed()
            where.append(notification, own=where is not stream)
    elif judged.method == Method.PROGRESS and core.correlator.knows_token(judged) is None:
        _drop(core, "progress of a request that is not running", judged)
    else:
        stream.append(judged)


async def _ask_client(core: SessionCore, request: Message, stream: Stream) -> None:
    try:
        _, renamed = core.correlator.asked_by_upstream(request, stream, core.shared.clock.monotonic())
    except Fault as fault:
        await answer_upstream(core, jsonrpc.error(_id(request), fault.error()))
        return
    core.ledger.record_changed()
    stream.append(renamed)


async def answer_upstream(core: SessionCore, response: Message) -> None:
    try:
        await core.link.send(response)
    except Fault as fault:
        session_id = core.record.id[:8]
        log.warning("session %s: %r did not reach the upstream: %s", session_id, response, fault.reason)


def give_up(core: SessionCore, request: Message, entry: InFlight[Stream], fault: Fault) -> None:
    """A request that ran out of time, or that we do not stay for, is cancelled at the server."""
    core.failed(request, fault)
    if fault.sent and (fault.kind is FaultKind.DEADLINE or fault.side is Side.OURS):
        params = {"requestId": entry.upstream_id, "reason": "nobody waits for the answer"}
        cancellation = jsonrpc.notification(Method.CANCELLED, params)
        core.shared.tasks.spawn(answer_upstream(core, cancellation), "cancel what nobody waits for")


def withdraw(core: SessionCore, asked: ServerRequest[Stream], reason: str) -> None:
    """Tells the client that a request of the server's needs no answer any more."""
    if asked.stream is not None and not asked.stream.log.closed:
        params = {"requestId": asked.client_id, "reason": reason}
        asked.stream.append(jsonrpc.notification(Method.CANCELLED, params), own=True)


def tell_of_changes(core: SessionCore) -> None:
    """Events may have been missed: says on the standalone stream that all that can change may have changed.

    What waits there already is not said twice: a client that never listens would have it pile up.
    """
    standalone = core.book.standalone
    waiting = {*standalone.log.unread()}
    changes = [jsonrpc.notification(method) for method in core.record.list_changed_methods()]
    changes += [
        jsonrpc.notification(Method.RESOURCE_UPDATED, {"uri": uri})
        for uri in sorted(core.record.subscriptions)
    ]
    for change in changes:
        if change.raw not in waiting:
            standalone.append(change, own=True)


def _drop(core: SessionCore, what: str, message: Message) -> None:
    core.shared.counters.dropped_messages += 1
    log.debug("session %s: dropped %s: %r", core.record.id[:8], what, message)


def _id(request: Message) -> jsonrpc.RequestId:
    assert request.id is not None
    return request.id

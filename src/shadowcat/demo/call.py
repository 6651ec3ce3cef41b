"""A tool call as the tool sees it: the same in both eras, although they ask the client in different ways."""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakValueDictionary

from shadowcat.demo.asked import Object
from shadowcat.demo.note import Note
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire import jsonrpc
from shadowcat.wire.jsonrpc import Message, RequestId
from shadowcat.wire.mcp import Method

MAX_QUESTIONS = 100
"""Open ones, of one session."""


Questions = WeakValueDictionary[RequestId, asyncio.Future[Object]]
"""Each lives as long as the call that asks it: one that is ended may never come to wait for its answer."""


class Call(Protocol):
    said: int
    """How many messages of its stream the client has had already."""

    @property
    def note(self) -> Note: ...

    def result(self, text: str, *, is_error: bool = False) -> Message: ...

    def progress(self, done: int, total: int, text: str) -> Message | None:
        """None where the client did not ask for it."""
        ...

    def question(self, method: str, params: Object) -> Message | None:
        """Sent to the client, it asks; None where the client has answered already."""
        ...

    async def answer(self) -> Object:
        """To the question."""
        ...


class _Answering:
    """What both eras do alike."""

    def __init__(
        self, id: RequestId, token: RequestId | None, note: Note, capabilities: Object, said: int
    ) -> None:
        self.note = note
        self.said = said
        self._id = id
        self._token = token
        self._capabilities = capabilities

    def progress(self, done: int, total: int, text: str) -> Message | None:
        if self._token is None:
            return None
        told = {"progressToken": self._token, "progress": done, "total": total, "message": text}
        return jsonrpc.notification(Method.PROGRESS, told)

    def _may_ask(self, method: str) -> bool:
        return CAPABILITY[method] in self._capabilities


CAPABILITY = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling"}
"""Of the client, for each method that asks it something."""


class LegacyCall(_Answering):
    """The client is asked by a request on the call's stream, and answers with a message of its own."""

    def __init__(
        self,
        id: RequestId,
        token: RequestId | None,
        note: Note,
        capabilities: Object,
        questions: Questions,
        said: int = 0,
    ) -> None:
        super().__init__(id, token, note, capabilities, said)
        self._questions = questions
        self._question_id = f"ask-{id}"
        self._answered: asyncio.Future[Object] | None = None

    def result(self, text: str, *, is_error: bool = False) -> Message:
        return jsonrpc.result(self._id, _content(text, is_error))

    def question(self, method: str, params: Object) -> Message | None:
        if not self._may_ask(method):
            return self.result(f"This client cannot be asked: it has no {CAPABILITY[method]}.", is_error=True)
        if len(self._questions) >= MAX_QUESTIONS:
            raise Fault(FaultKind.OVER_CAPACITY, reason="too_many_questions")
        self._answered = self._questions[self._question_id] = asyncio.get_running_loop().create_future()
        return jsonrpc.request(self._question_id, method, params)

    async def answer(self) -> Object:
        assert self._answered is not None, "nothing was asked"
        return await self._answered


class ModernCall(_Answering):
    """The client is asked by the result, and makes the call again with its answer."""

    _KEY = "question"

    def __init__(
        self,
        id: RequestId,
        token: RequestId | None,
        note: Note,
        capabilities: Object,
        answers: dict[str, Object],
    ) -> None:
        super().__init__(id, token, note, capabilities, 0)
        self._answers = answers

    def result(self, text: str, *, is_error: bool = False) -> Message:
        return jsonrpc.result(self._id, {"resultType": "complete", **_content(text, is_error)})

    def question(self, method: str, params: Object) -> Message | None:
        if self._KEY in self._answers:
            return None
        if not self._may_ask(method):
            needed: Object = {"requiredCapabilities": {CAPABILITY[method]: {}}}
            raise Fault(FaultKind.MISSING_CAPABILITY, data=needed)
        asked = {self._KEY: {"method": method, "params": params}}
        return jsonrpc.result(self._id, {"resultType": "input_required", "inputRequests": asked})

    async def answer(self) -> Object:
        return self._answers[self._KEY]


def _content(text: str, is_error: bool) -> Object:
    content: Object = {"content": [{"type": "text", "text": text}]}
    return {**content, "isError": True} if is_error else content

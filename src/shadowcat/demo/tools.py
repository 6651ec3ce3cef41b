"""The tools: each a struct of its arguments, and the messages a call gives, the last of which is the result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from shadowcat.demo.asked import Elicited, Object, Sampled, read_as
from shadowcat.demo.call import Call
from shadowcat.errors import Fault, FaultKind
from shadowcat.wire.jsonrpc import Message

Steps = AsyncGenerator[Message | None]
"""What a call says; a step of nothing is left out."""


class Tool(msgspec.Struct):
    """The arguments of a tool. Its docstring is what clients are told of it."""

    changes_something: ClassVar[bool] = False
    can_go_on: ClassVar[bool] = False
    """The rest of its messages follows from its arguments and how many were said: any process can say them."""

    def run(self, call: Call) -> Steps:
        raise NotImplementedError


class Greet(Tool):
    """Answers at once."""

    name: Annotated[str, Meta(description="Whom to greet.", max_length=100)] = "world"

    async def run(self, call: Call) -> Steps:
        yield call.result(f"Hello, {self.name}!")


class Count(Tool):
    """Counts, and reports progress for each number. The stream can be resumed anywhere, also after a restart."""

    can_go_on = True

    to: Annotated[int, Meta(description="The last number.", ge=1, le=10_000)] = 10
    pause_ms: Annotated[int, Meta(description="Between two numbers.", ge=0, le=10_000)] = 500

    async def run(self, call: Call) -> Steps:
        for number in range(call.said + 1, self.to + 1):
            if number > 1:
                await asyncio.sleep(self.pause_ms / 1000)
            yield call.progress(number, self.to, f"{number} of {self.to}")
        yield call.result(f"Counted to {self.to}.")


class Ask(Tool):
    """Asks the user for a name (elicitation), and answers with it."""

    async def run(self, call: Call) -> Steps:
        name = {"type": "string", "title": "Your name", "maxLength": 100}
        schema = {"type": "object", "properties": {"name": name}, "required": ["name"]}
        yield call.question("elicitation/create", {"message": "Who are you?", "requestedSchema": schema})
        given = read_as(Elicited, await call.answer())
        if given.action == "accept" and given.content is not None:
            yield call.result(f"You are {given.content.get('name')}.")
        else:
            yield call.result("You would rather not say.")


class Think(Tool):
    """Has the client's model answer a question (sampling), and repeats what it said."""

    question: Annotated[str, Meta(max_length=1000)] = "What is a proxy good for?"

    async def run(self, call: Call) -> Steps:
        said = {"role": "user", "content": {"type": "text", "text": self.question}}
        yield call.question("sampling/createMessage", {"messages": [said], "maxTokens": 200})
        content = read_as(Sampled, await call.answer()).content
        blocks = content if isinstance(content, list) else [content]
        yield call.result(f"Your model says: {' '.join(block.text for block in blocks)}")


class Fail(Tool):
    """Fails, as a tool fails or as a protocol does."""

    how: Annotated[
        Literal["result", "error"], Meta(description="An answer that is an error, or no answer at all.")
    ] = "result"

    async def run(self, call: Call) -> Steps:
        if self.how == "error":
            raise Fault(FaultKind.INTERNAL, "This was asked for")
        yield call.result("This was asked for.", is_error=True)


class Sleep(Tool):
    """Says nothing for a while, then answers."""

    seconds: Annotated[float, Meta(ge=0, le=600)] = 5.0

    async def run(self, call: Call) -> Steps:
        await asyncio.sleep(self.seconds)
        yield call.result(f"Slept for {self.seconds:g} s.")


class Write(Tool):
    """Writes the resource demo://note; who subscribed to it is told."""

    changes_something = True

    text: Annotated[str, Meta(max_length=10_000)]

    async def run(self, call: Call) -> Steps:
        call.note.write(self.text)
        yield call.result("Noted.")


TOOLS: dict[str, type[Tool]] = {
    "greet": Greet,
    "count": Count,
    "ask": Ask,
    "think": Think,
    "fail": Fail,
    "sleep": Sleep,
    "note": Write,
}


def listed() -> list[Object]:
    return [
        {
            "name": name,
            "description": tool.__doc__,
            "inputSchema": _schema(tool),
            "annotations": {"readOnlyHint": not tool.changes_something},
        }
        for name, tool in TOOLS.items()
    ]


def _schema(tool: type[Tool]) -> Object:
    _, components = msgspec.json.schema_components([tool])
    schema = components[tool.__name__]
    return {"type": "object", "properties": schema["properties"], "required": schema["required"]}


def tool_of(name: str, arguments: Object | None) -> Tool:
    """Raises `Fault` for a tool that there is not, or arguments that it does not take."""
    kind = TOOLS.get(name)
    if kind is None:
        raise Fault(FaultKind.INVALID_PARAMS, "There is no such tool")
    return read_as(kind, arguments or {})

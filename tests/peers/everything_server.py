"""A server that offers every tool, prompt and resource that the official conformance suite asks for.

It speaks both eras: sessions with initialize, GET stream and resumption, and the requests that stand alone; with
them the extension for tasks. `python -m tests.peers.everything_server` prints where it serves. Flags make the
servers that a proxy meets:

  --json        JSON answers instead of SSE where both are allowed
  --stateless   no sessions
  --no-resume   no event ids, no retry field, no replay
  --via-get     server to client traffic on the GET stream
  --sse         HTTP+SSE, the transport of 2024-11-05
  --stdio       a line per message on stdin and stdout, and no HTTP at all
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import secrets
import socket
import sys
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

# The SDK warns that sampling, roots and logging are deprecated.
warnings.filterwarnings("ignore")

NAME = "conformance-everything"
TASKS = "io.modelcontextprotocol/tasks"
META_CAPS = "io.modelcontextprotocol/clientCapabilities"
HEADER_MISMATCH, MISSING_CAPABILITY, INVALID_PARAMS = -32020, -32021, -32602

# One red pixel; four samples of 8-bit mono.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
WAV = "UklGRigAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQQAAACAgICA"

OPTS = argparse.Namespace(via_get=False)

# Helpers.


def text(value: str) -> types.TextContent:
    return types.TextContent(type="text", text=value)


def ok(*content: Any) -> types.CallToolResult:
    return types.CallToolResult(content=[text(c) if isinstance(c, str) else c for c in content])


def modern(ctx: Any) -> bool:
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def related(ctx: Any) -> Any:
    """Stream that server->client traffic rides on: the POST stream, or the GET stream with --via-get."""
    return None if OPTS.via_get and not modern(ctx) else ctx.request_id


def elicit(message: str, schema: dict[str, Any]) -> types.ElicitRequest:
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str, max_tokens: int) -> types.CreateMessageRequest:
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(
            messages=[types.SamplingMessage(role="user", content=text(prompt))], max_tokens=max_tokens
        )
    )


def roots() -> types.ListRootsRequest:
    return types.ListRootsRequest()


def need(requests: dict[str, Any], state: str | None = None) -> types.InputRequiredResult:
    return types.InputRequiredResult(input_requests=requests, request_state=state)


def obj(**props: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {k: {"type": v} for k, v in props.items()},
        "required": list(props),
    }


def answer(params: Any, key: str, kind: type) -> Any:
    """The client's response under `key`, when it is of the asked-for kind (else None: ask again)."""
    value = (params.input_responses or {}).get(key)
    if isinstance(value, kind):
        return value
    if isinstance(value, dict):
        with contextlib.suppress(Exception):
            return kind.model_validate(value)
    return None


def declared(ctx: Any) -> dict[str, Any]:
    """Client capabilities as a plain dict: envelope of this request, or those of the handshake."""
    if modern(ctx):
        meta = (ctx.params or {}).get("_meta") or {}
        return meta.get(META_CAPS) or {}
    caps = ctx.session.client_capabilities
    return caps.model_dump(by_alias=True, exclude_none=True) if caps else {}


# Registry.

EMPTY = {"type": "object", "properties": {}}
Handler = Callable[[Any, Any], Awaitable[Any]]
TOOLS: dict[str, tuple[types.Tool, Handler]] = {}
DYNAMIC = {"tool": False, "prompt": False}
LOG_LEVELS: dict[str, str] = {}
SUBSCRIBED: set[str] = set()
BUS = InMemorySubscriptionBus()


def tool(name: str, description: str, schema: dict[str, Any] | None = None) -> Callable[[Handler], Handler]:
    def register(fn: Handler) -> Handler:
        TOOLS[name] = (types.Tool(name=name, description=description, input_schema=schema or EMPTY), fn)
        return fn

    return register


# Plain tools.


@tool("test_simple_text", "Returns one text block")
async def _(ctx: Any, p: Any) -> Any:
    return ok("This is a simple text response for testing.")


@tool("test_image_content", "Returns one PNG image block")
async def _(ctx: Any, p: Any) -> Any:
    return ok(types.ImageContent(type="image", data=PNG, mime_type="image/png"))


@tool("test_audio_content", "Returns one WAV audio block")
async def _(ctx: Any, p: Any) -> Any:
    return ok(types.AudioContent(type="audio", data=WAV, mime_type="audio/wav"))


def embedded(uri: str, mime: str, body: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=mime, text=body)
    )


@tool("test_embedded_resource", "Returns one embedded resource block")
async def _(ctx: Any, p: Any) -> Any:
    return ok(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."))


@tool("test_multiple_content_types", "Returns text, image and resource blocks")
async def _(ctx: Any, p: Any) -> Any:
    return ok(
        "Multiple content types test:",
        types.ImageContent(type="image", data=PNG, mime_type="image/png"),
        embedded(
            "test://mixed-content-resource", "application/json", json.dumps({"test": "data", "value": 123})
        ),
    )


@tool("test_error_handling", "Always reports a tool execution error")
async def _(ctx: Any, p: Any) -> Any:
    return types.CallToolResult(
        is_error=True, content=[text("This tool intentionally returns an error for testing")]
    )


async def log_at(ctx: Any, level: str, data: str) -> None:
    order = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
    floor = "debug" if modern(ctx) else LOG_LEVELS.get(session_key(ctx), "debug")
    if order.index(level) >= order.index(floor):
        await ctx.session.send_log_message(level, data, NAME, related_request_id=related(ctx))


@tool("test_tool_with_logging", "Sends three info log messages, 50 ms apart")
async def _(ctx: Any, p: Any) -> Any:
    for i, line in enumerate(("Tool execution started", "Tool processing data", "Tool execution completed")):
        if i:
            await asyncio.sleep(0.05)
        await log_at(ctx, "info", line)
    return ok("Logged three messages.")


@tool("test_logging_tool", "Logs once; per-request era: only if the request asked for a log level")
async def _(ctx: Any, p: Any) -> Any:
    await log_at(ctx, "info", "test_logging_tool ran")
    return ok("Logged.")


@tool("test_tool_with_progress", "Reports progress 0, 50 and 100 of 100")
async def _(ctx: Any, p: Any) -> Any:
    token = (ctx.meta or {}).get("progress_token", (ctx.meta or {}).get("progressToken"))
    for i, step in enumerate((0, 50, 100)):
        if i:
            await asyncio.sleep(0.05)
        if token is not None:
            await ctx.session.send_progress_notification(
                token, step, 100, f"Completed step {step} of 100", related_request_id=related(ctx)
            )
    return ok("Progress reported." if token is not None else "No progress token given.")


# Server->client requests (handshake era).


def refuse_modern(ctx: Any) -> types.CallToolResult | None:
    if modern(ctx):
        return types.CallToolResult(
            is_error=True, content=[text("Handshake-era fixture; use the MRTR tools.")]
        )
    return None


@tool("test_sampling", "Asks the client for an LLM completion", obj(prompt="string"))
async def _(ctx: Any, p: Any) -> Any:
    if bad := refuse_modern(ctx):
        return bad
    prompt = (p.arguments or {}).get("prompt", "")
    got = await ctx.session.create_message(
        [types.SamplingMessage(role="user", content=text(prompt))],
        max_tokens=100,
        related_request_id=related(ctx),
    )
    return ok(f"LLM response: {getattr(got.content, 'text', got.content)}")


async def run_elicit(ctx: Any, message: str, schema: dict[str, Any], prefix: str) -> Any:
    if bad := refuse_modern(ctx):
        return bad
    got = await ctx.session.elicit_form(message, schema, related_request_id=related(ctx))
    return ok(f"{prefix}action={got.action}, content={json.dumps(got.content)}")


@tool("test_elicitation", "Asks the user for name and e-mail", obj(message="string"))
async def _(ctx: Any, p: Any) -> Any:
    schema = {
        "type": "object",
        "properties": {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        },
        "required": ["username", "email"],
    }
    return await run_elicit(ctx, (p.arguments or {}).get("message", ""), schema, "User response: ")


@tool("test_elicitation_sep1034_defaults", "Elicitation schema with a default for each primitive type")
async def _(ctx: Any, p: Any) -> Any:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        },
        "required": [],
    }
    return await run_elicit(ctx, "Please review the defaults", schema, "Elicitation completed: ")


@tool("test_elicitation_sep1330_enums", "Elicitation schema with the five enum variants")
async def _(ctx: Any, p: Any) -> Any:
    plain = ["option1", "option2", "option3"]
    schema = {
        "type": "object",
        "properties": {
            "untitledSingle": {"type": "string", "enum": plain},
            "titledSingle": {
                "type": "string",
                "oneOf": [
                    {"const": "value1", "title": "First Option"},
                    {"const": "value2", "title": "Second Option"},
                    {"const": "value3", "title": "Third Option"},
                ],
            },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {"type": "array", "items": {"type": "string", "enum": plain}},
            "titledMulti": {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"const": "value1", "title": "First Choice"},
                        {"const": "value2", "title": "Second Choice"},
                        {"const": "value3", "title": "Third Choice"},
                    ]
                },
            },
        },
        "required": [],
    }
    return await run_elicit(ctx, "Please choose", schema, "Elicitation completed: ")


@tool("test_reconnection", "Closes its response stream mid-call; the result follows on resumption")
async def _(ctx: Any, p: Any) -> Any:
    if ctx.close_sse_stream is not None:
        await asyncio.sleep(0.05)
        await ctx.close_sse_stream()
        await asyncio.sleep(0.1)
    return ok("Reconnection test completed.")


# Schema fixtures.

TOOLS["json_schema_2020_12_tool"] = (
    types.Tool(
        name="json_schema_2020_12_tool",
        description="Tool with JSON Schema 2020-12 features",
        input_schema={
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "$defs": {
                "address": {
                    "$anchor": "addressDef",
                    "type": "object",
                    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
                }
            },
            "properties": {
                "name": {"type": "string"},
                "address": {"$ref": "#/$defs/address"},
                "contactMethod": {"type": "string", "enum": ["phone", "email"]},
                "phone": {"type": "string"},
                "email": {"type": "string"},
            },
            "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
            "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
            "then": {"required": ["phone"]},
            "else": {"required": ["email"]},
            "additionalProperties": False,
        },
    ),
    lambda ctx, p: asyncio.sleep(0, ok(json.dumps(p.arguments or {}))),
)

TOOLS["test_custom_header"] = (
    types.Tool(
        name="test_custom_header",
        description="One argument mirrored in the Mcp-Param-Region header (SEP-2243)",
        input_schema={
            "type": "object",
            "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
            "required": ["region"],
        },
    ),
    lambda ctx, p: asyncio.sleep(0, ok(f"region={(p.arguments or {}).get('region')}")),
)

# Per-request era (2026-07-28).


@tool("test_missing_capability", "Needs the client's sampling capability")
async def _(ctx: Any, p: Any) -> Any:
    if "sampling" not in declared(ctx):
        raise MCPError(
            MISSING_CAPABILITY,
            "Client capability 'sampling' is required",
            {"requiredCapabilities": {"sampling": {}}},
        )
    return ok("Sampling is declared.")


@tool("test_streaming_elicitation", "Asks for input through the result, never with a request on the stream")
async def _(ctx: Any, p: Any) -> Any:
    if not modern(ctx):
        return ok("Per-request-era fixture.")
    if answer(p, "user_name", types.ElicitResult):
        return ok("Thank you.")
    return need({"user_name": elicit("What is your name?", obj(name="string"))})


async def blink(ctx: Any, kind: str, event: Any, tell_session: Callable[[], Awaitable[None]]) -> None:
    """The list changes, subscribers are told, and it is as before: runs stay comparable to each other."""
    DYNAMIC[kind] = True
    await BUS.publish(event)
    if not modern(ctx):
        await tell_session()
    DYNAMIC[kind] = False


@tool("test_trigger_tool_change", "Changes the tool list and tells subscribers")
async def _(ctx: Any, p: Any) -> Any:
    await blink(ctx, "tool", ToolsListChanged(), ctx.session.send_tool_list_changed)
    return ok("Tool list changed.")


@tool("test_trigger_prompt_change", "Changes the prompt list and tells subscribers")
async def _(ctx: Any, p: Any) -> Any:
    await blink(ctx, "prompt", PromptsListChanged(), ctx.session.send_prompt_list_changed)
    return ok("Prompt list changed.")


@tool("test_input_required_result_elicitation", "MRTR: one elicitation")
async def _(ctx: Any, p: Any) -> Any:
    got = answer(p, "user_name", types.ElicitResult)
    if got is None or got.action != "accept":
        return need({"user_name": elicit("What is your name?", obj(name="string"))})
    return ok(f"Hello, {(got.content or {}).get('name')}!")


@tool("test_input_required_result_sampling", "MRTR: one sampling request")
async def _(ctx: Any, p: Any) -> Any:
    got = answer(p, "capital_question", types.CreateMessageResult)
    if got is None:
        return need({"capital_question": sampling("What is the capital of France?", 100)})
    return ok(f"The model said: {getattr(got.content, 'text', '')}")


@tool("test_input_required_result_list_roots", "MRTR: one roots/list request")
async def _(ctx: Any, p: Any) -> Any:
    got = answer(p, "client_roots", types.ListRootsResult)
    if got is None:
        return need({"client_roots": roots()})
    return ok("Roots: " + ", ".join(str(r.uri) for r in got.roots))


@tool("test_input_required_result_request_state", "MRTR: requestState round trip")
async def _(ctx: Any, p: Any) -> Any:
    if p.request_state == "waiting-for-confirm" and answer(p, "confirm", types.ElicitResult):
        return ok("state-ok")
    return need({"confirm": elicit("Please confirm", obj(ok="boolean"))}, "waiting-for-confirm")


@tool("test_input_required_result_multiple_inputs", "MRTR: elicitation, sampling and roots at once")
async def _(ctx: Any, p: Any) -> Any:
    kinds = {
        "user_name": types.ElicitResult,
        "greeting": types.CreateMessageResult,
        "client_roots": types.ListRootsResult,
    }
    if p.request_state == "three" and all(answer(p, k, t) for k, t in kinds.items()):
        return ok("All inputs received.")
    return need(
        {
            "user_name": elicit("What is your name?", obj(name="string")),
            "greeting": sampling("Generate a greeting", 50),
            "client_roots": roots(),
        },
        "three",
    )


@tool("test_input_required_result_multi_round", "MRTR: two rounds of elicitation")
async def _(ctx: Any, p: Any) -> Any:
    state = json.loads(p.request_state) if p.request_state else {}
    if state.get("round") == 1 and (got := answer(p, "step1", types.ElicitResult)):
        return need(
            {"step2": elicit("Step 2: What is your favorite color?", obj(color="string"))},
            json.dumps({"round": 2, "name": (got.content or {}).get("name")}),
        )
    if state.get("round") == 2 and (got := answer(p, "step2", types.ElicitResult)):
        return ok(f"{state.get('name')} likes {(got.content or {}).get('color')}.")
    return need({"step1": elicit("Step 1: What is your name?", obj(name="string"))}, json.dumps({"round": 1}))


@tool("test_input_required_result_tampered_state", "MRTR: sealed requestState, altered state is an error")
async def _(ctx: Any, p: Any) -> Any:
    # RequestStateBoundary (middleware) seals the state and rejects an altered echo before we are called
    if p.request_state == "sealed" and answer(p, "confirm", types.ElicitResult):
        return ok("State verified.")
    return need({"confirm": elicit("Please confirm", obj(ok="boolean"))}, "sealed")


@tool("test_input_required_result_capabilities", "MRTR: asks only for what the client declared")
async def _(ctx: Any, p: Any) -> Any:
    caps, ask = declared(ctx), {}
    if "elicitation" in caps:
        ask["user_name"] = elicit("What is your name?", obj(name="string"))
    if "sampling" in caps:
        ask["greeting"] = sampling("Generate a greeting", 50)
    if not ask or all(k in (p.input_responses or {}) for k in ask):
        return ok("Done.")
    return need(ask)


# Tasks extension (SEP-2663).


class Task:
    def __init__(self, work: Callable[[Task], Awaitable[Any]]) -> None:
        self.id = secrets.token_urlsafe(16)
        self.status = "working"
        self.created = self.updated = datetime.now(UTC).isoformat()
        self.result: Any = None
        self.error: Any = None
        self.pending: dict[str, Any] = {}
        self.waiters: dict[str, asyncio.Future[Any]] = {}
        self.job = asyncio.create_task(self._run(work))

    def move(self, status: str) -> None:
        self.status, self.updated = status, datetime.now(UTC).isoformat()

    async def _run(self, work: Callable[[Task], Awaitable[Any]]) -> None:
        try:
            result = await work(self)
            self.result = result.model_dump(by_alias=True, exclude_none=True, mode="json")
            self.result.setdefault("resultType", "complete")
            self.move("completed")
        except asyncio.CancelledError:
            self.move("cancelled")
        except MCPError as exc:
            self.error = {"code": exc.code, "message": exc.message}
            self.move("failed")

    async def ask(self, key: str, request: Any) -> dict[str, Any]:
        self.pending[key] = request.model_dump(by_alias=True, exclude_none=True, mode="json")
        self.waiters[key] = asyncio.get_running_loop().create_future()
        self.move("input_required")
        return await self.waiters[key]

    def base(self) -> dict[str, Any]:
        return {
            "taskId": self.id,
            "status": self.status,
            "createdAt": self.created,
            "lastUpdatedAt": self.updated,
            "ttlMs": 600_000,
            "pollIntervalMs": 200,
        }

    def detailed(self) -> dict[str, Any]:
        out: dict[str, Any] = {"resultType": "complete", **self.base()}
        if self.status == "completed":
            out["result"] = self.result
        elif self.status == "failed":
            out["error"] = self.error
        elif self.status == "input_required":
            out["inputRequests"] = dict(self.pending)
        return out


TASK_STORE: dict[str, Task] = {}


def wants_tasks(ctx: Any) -> bool:
    return modern(ctx) and TASKS in (declared(ctx).get("extensions") or {})


def missing_tasks() -> MCPError:
    return MCPError(
        MISSING_CAPABILITY,
        f"Client extension {TASKS} is required",
        {"requiredCapabilities": {"extensions": {TASKS: {}}}},
    )


async def as_task(ctx: Any, work: Callable[[Task], Awaitable[Any]], *, required: bool = False) -> Any:
    if not wants_tasks(ctx):
        if required:
            raise missing_tasks()
        return await work(None)  # type: ignore[arg-type]
    task = Task(work)
    TASK_STORE[task.id] = task
    return {"resultType": "task", **task.base()}


@tool("greet", "Greets; always synchronous", obj(name="string"))
async def _(ctx: Any, p: Any) -> Any:
    return ok(f"Hello, {(p.arguments or {}).get('name')}!")


@tool(
    "slow_compute",
    "Sleeps, then returns; may run as a task",
    {"type": "object", "properties": {"seconds": {"type": "number"}, "label": {"type": "string"}}},
)
async def _(ctx: Any, p: Any) -> Any:
    seconds = float((p.arguments or {}).get("seconds", 0))

    async def work(_: Task | None) -> Any:
        await asyncio.sleep(seconds)
        return ok(f"Computed for {seconds} s.")

    return await work(None) if seconds == 0 else await as_task(ctx, work)


@tool("failing_job", "Task only; ends with a tool execution error")
async def _(ctx: Any, p: Any) -> Any:
    async def work(_: Task | None) -> Any:
        await asyncio.sleep(0.5)
        return types.CallToolResult(is_error=True, content=[text("The job failed.")])

    return await as_task(ctx, work, required=True)


@tool("protocol_error_job", "May run as a task; ends with a protocol error")
async def _(ctx: Any, p: Any) -> Any:
    async def work(_: Task | None) -> Any:
        await asyncio.sleep(0.2)
        raise MCPError(-32603, "Internal failure in the job")

    return await as_task(ctx, work)


@tool(
    "confirm_delete",
    "May run as a task; waits for one confirmation",
    {"type": "object", "properties": {"filename": {"type": "string"}}},
)
async def _(ctx: Any, p: Any) -> Any:
    async def work(task: Task | None) -> Any:
        if task is None:
            return ok("Not confirmed.")
        got = await task.ask("confirm-" + task.id[:6], elicit("Really delete?", obj(confirm="boolean")))
        return ok(f"Answer: {json.dumps(got)}")

    return await as_task(ctx, work)


@tool("multi_input", "May run as a task; waits for two inputs at once")
async def _(ctx: Any, p: Any) -> Any:
    async def work(task: Task | None) -> Any:
        if task is None:
            return ok("No input asked.")
        got = await asyncio.gather(
            task.ask("first-" + task.id[:6], elicit("First?", obj(name="string"))),
            task.ask("second-" + task.id[:6], elicit("Second?", obj(name="string"))),
        )
        return ok(f"Answers: {json.dumps(got)}")

    return await as_task(ctx, work)


@tool("test_tool_with_task", "MRTR first, then a task")
async def _(ctx: Any, p: Any) -> Any:
    got = answer(p, "user_name", types.ElicitResult)
    if got is None:
        return need({"user_name": elicit("What is your name?", obj(name="string"))})

    async def work(_: Task | None) -> Any:
        await asyncio.sleep(0.2)
        return ok(f"Hello, {(got.content or {}).get('name')}!")

    return await as_task(ctx, work, required=True)


class TaskParams(types.RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


def task_of(ctx: Any, params: TaskParams) -> Task:
    headers = getattr(ctx.request, "headers", None)
    if headers is not None and modern(ctx) and headers.get("mcp-name") != params.task_id:
        raise MCPError(HEADER_MISMATCH, "Mcp-Name header does not match params.taskId")
    if not wants_tasks(ctx):
        raise missing_tasks()
    if (task := TASK_STORE.get(params.task_id)) is None:
        raise MCPError(INVALID_PARAMS, f"Unknown task {params.task_id}")
    return task


async def tasks_get(ctx: Any, params: TaskParams) -> Any:
    return task_of(ctx, params).detailed()


async def tasks_update(ctx: Any, params: TaskParams) -> Any:
    task = task_of(ctx, params)
    for key, value in (params.input_responses or {}).items():
        if task.pending.pop(key, None) is not None:
            task.waiters.pop(key).set_result(value)
    if task.status == "input_required" and not task.pending:
        task.move("working")
    return {"resultType": "complete"}


async def tasks_cancel(ctx: Any, params: TaskParams) -> Any:
    task = task_of(ctx, params)
    if not task.job.done():
        task.job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task.job], timeout=1)
    return {"resultType": "complete"}


# Request handlers.


def session_key(ctx: Any) -> str:
    headers = getattr(ctx.request, "headers", None)
    return (headers.get("mcp-session-id") if headers else None) or "-"


async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
    listed = [t for t, _ in TOOLS.values()]
    if DYNAMIC["tool"]:
        listed.append(types.Tool(name="test_dynamic_tool", description="Comes and goes", input_schema=EMPTY))
    return types.ListToolsResult(tools=listed)


OPEN_GETS: dict[str, asyncio.Event] = {}


class WatchGets:
    """ASGI wrapper: which sessions have their GET stream open (its response has started)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        key = dict(scope.get("headers") or []).get(b"mcp-session-id", b"").decode()

        async def watched(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.start" and message["status"] == 200:
                OPEN_GETS.setdefault(key, asyncio.Event()).set()

        await self.app(scope, receive, watched if scope.get("method") == "GET" and key else send)


async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> Any:
    if OPTS.via_get and not modern(ctx):  # what is sent before the client's GET stream is there would be lost
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(OPEN_GETS.setdefault(session_key(ctx), asyncio.Event()).wait(), 10)
        await asyncio.sleep(0.02)
    if (entry := TOOLS.get(params.name)) is None:
        raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
    return await entry[1](ctx, params)


RESOURCES = [
    types.Resource(
        uri="test://static-text",
        name="static-text",
        description="A static text resource",
        mime_type="text/plain",
    ),
    types.Resource(
        uri="test://static-binary", name="static-binary", description="A static image", mime_type="image/png"
    ),
    types.Resource(
        uri="test://watched-resource", name="watched", description="For subscriptions", mime_type="text/plain"
    ),
]


async def list_resources(ctx: Any, params: Any) -> types.ListResourcesResult:
    return types.ListResourcesResult(resources=RESOURCES)


async def list_templates(ctx: Any, params: Any) -> types.ListResourceTemplatesResult:
    return types.ListResourceTemplatesResult(
        resource_templates=[
            types.ResourceTemplate(
                uri_template="test://template/{id}/data",
                name="template",
                description="Data by id",
                mime_type="application/json",
            )
        ]
    )


async def read_resource(ctx: Any, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(params.uri)

    def body(mime: str, value: str) -> types.ReadResourceResult:
        return types.ReadResourceResult(
            contents=[types.TextResourceContents(uri=uri, mime_type=mime, text=value)]
        )

    if uri == "test://static-text":
        return body("text/plain", "This is the content of the static text resource.")
    if uri == "test://watched-resource":
        return body("text/plain", "Watched resource content.")
    if uri == "test://static-binary":
        return types.ReadResourceResult(
            contents=[types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)]
        )
    if uri.startswith("test://template/") and uri.endswith("/data"):
        ident = uri.removeprefix("test://template/").removesuffix("/data")
        return body(
            "application/json",
            json.dumps({"id": ident, "templateTest": True, "data": f"Data for ID: {ident}"}),
        )
    raise MCPError(INVALID_PARAMS if modern(ctx) else -32002, "Resource not found", {"uri": uri})


async def subscribe(ctx: Any, params: Any) -> types.EmptyResult:
    SUBSCRIBED.add(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(ctx: Any, params: Any) -> types.EmptyResult:
    SUBSCRIBED.discard(str(params.uri))
    return types.EmptyResult()


def argument(name: str, description: str) -> types.PromptArgument:
    return types.PromptArgument(name=name, description=description, required=True)


PROMPTS = [
    types.Prompt(name="test_simple_prompt", description="A prompt without arguments"),
    types.Prompt(
        name="test_prompt_with_arguments",
        description="A prompt with two arguments",
        arguments=[argument("arg1", "First test argument"), argument("arg2", "Second test argument")],
    ),
    types.Prompt(
        name="test_prompt_with_embedded_resource",
        description="A prompt with an embedded resource",
        arguments=[argument("resourceUri", "URI of the resource to embed")],
    ),
    types.Prompt(name="test_prompt_with_image", description="A prompt with an image"),
    types.Prompt(name="test_input_required_result_prompt", description="A prompt that asks for input (MRTR)"),
]


async def list_prompts(ctx: Any, params: Any) -> types.ListPromptsResult:
    listed = list(PROMPTS)
    if DYNAMIC["prompt"]:
        listed.append(types.Prompt(name="test_dynamic_prompt", description="Comes and goes"))
    return types.ListPromptsResult(prompts=listed)


async def get_prompt(ctx: Any, params: types.GetPromptRequestParams) -> Any:
    args = params.arguments or {}

    def prompt(*blocks: Any) -> types.GetPromptResult:
        return types.GetPromptResult(
            messages=[
                types.PromptMessage(role="user", content=text(b) if isinstance(b, str) else b) for b in blocks
            ]
        )

    match params.name:
        case "test_simple_prompt":
            return prompt("This is a simple prompt for testing.")
        case "test_prompt_with_arguments":
            return prompt(f"Prompt with arguments: arg1='{args.get('arg1')}', arg2='{args.get('arg2')}'")
        case "test_prompt_with_embedded_resource":
            return prompt(
                embedded(
                    args.get("resourceUri", "test://example-resource"),
                    "text/plain",
                    "Embedded resource content for testing.",
                ),
                "Please process the embedded resource above.",
            )
        case "test_prompt_with_image":
            return prompt(
                types.ImageContent(type="image", data=PNG, mime_type="image/png"),
                "Please analyze the image above.",
            )
        case "test_input_required_result_prompt":
            got = answer(params, "user_context", types.ElicitResult)
            if got is None and modern(ctx):
                return need(
                    {"user_context": elicit("What context should the prompt use?", obj(context="string"))}
                )
            return prompt(f"Use this context: {(got.content or {}).get('context') if got else 'none'}")
    raise MCPError(INVALID_PARAMS, f"Unknown prompt: {params.name}")


async def complete(ctx: Any, params: Any) -> types.CompleteResult:
    words = [
        w for w in ("paris", "park", "party", "test-one", "test-two") if w.startswith(params.argument.value)
    ]
    return types.CompleteResult(completion=types.Completion(values=words, total=len(words), has_more=False))


async def set_level(ctx: Any, params: Any) -> types.EmptyResult:
    LOG_LEVELS[session_key(ctx)] = params.level
    return types.EmptyResult()


class MemoryEventStore(EventStore):
    """Per-process resumability store: one global order, replay within the stream of the given id."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Any]] = []
        self.run = secrets.token_hex(4)

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.rows.append((stream_id, message))
        return f"{self.run}-{len(self.rows)}"

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        run, _, n = last_event_id.rpartition("-")
        if run != self.run or not n.isdigit() or not 1 <= int(n) <= len(self.rows):
            return None
        stream = self.rows[int(n) - 1][0]
        i = int(n)
        # Looked at anew each time: what is stored while one is sent has nobody else to send it.
        while i < len(self.rows):
            sid, message = self.rows[i]
            i += 1
            if sid == stream and message is not None:
                await send_callback(EventMessage(message, f"{self.run}-{i}"))
        return stream


CACHEABLE = ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read")


def build() -> Server[Any]:
    hint = CacheHint(ttl_ms=1000, scope="private")
    server: Server[Any] = Server(
        NAME,
        version="1.0.0",
        instructions="Conformance fixture.",
        cache_hints=dict.fromkeys(CACHEABLE, hint),
        get_tool_input_schema=lambda name: TOOLS[name][0].input_schema if name in TOOLS else None,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(BUS),
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
        on_set_logging_level=set_level,
    )
    # A fixed key: several instances behind one proxy accept each other's state.
    server.middleware.append(
        RequestStateBoundary(
            RequestStateSecurity(keys=["conformance-fixture-key-0123456789abcdef"], audience=NAME),
            default_audience=NAME,
        )
    )
    for method, handler in (
        ("tasks/get", tasks_get),
        ("tasks/update", tasks_update),
        ("tasks/cancel", tasks_cancel),
    ):
        server.add_request_handler(method, TaskParams, handler)
    server.extensions[TASKS] = {}
    return server


def announce_changes(server: Server[Any]) -> None:
    """The capabilities of the era with sessions come from a call without arguments."""
    defaults = server.create_initialization_options
    server.create_initialization_options = lambda notification_options=None, *args, **kwargs: defaults(
        notification_options or NotificationOptions(True, True, True), *args, **kwargs
    )


async def serve_stdio(server: Server[Any]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def app(server: Server[Any], flags: argparse.Namespace) -> Any:
    resumable = not (flags.stateless or flags.no_resume)
    http = server.streamable_http_app(
        json_response=flags.json,
        stateless_http=flags.stateless,
        event_store=MemoryEventStore() if resumable else None,
        retry_interval=500 if resumable else None,
        host="127.0.0.1",
    )
    return WatchGets(http) if flags.via_get else http


def old_app(server: Server[Any]) -> Any:
    transport = SseServerTransport("/messages/")

    async def connect(request: Request) -> Response:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return Response()

    return Starlette(
        routes=[
            Route("/sse", connect, methods=["GET"]),
            Mount("/messages/", app=transport.handle_post_message),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--port", type=int, default=0)
    for flag in ("--json", "--stateless", "--no-resume", "--via-get", "--sse", "--stdio"):
        parser.add_argument(flag, action="store_true")
    flags = parser.parse_args(namespace=OPTS)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    server = build()
    announce_changes(server)
    if flags.stdio:
        asyncio.run(serve_stdio(server))
        return
    # With httptools uvicorn keeps the spaces after a header's value, and the suite sends some.
    served, path = (old_app(server), "/sse") if flags.sse else (app(server, flags), "/mcp")
    config = uvicorn.Config(served, http="h11", log_level="warning", timeout_graceful_shutdown=1)
    with socket.create_server(("127.0.0.1", flags.port)) as listener:
        print(f"serving http://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()

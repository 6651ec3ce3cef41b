"""A server that speaks stdio and does what its tools say, also what no decent server would: a script of its own.

It runs without the project, so that what a child gets is what it was given. Flags say how it behaves from the start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

SUB = "io.modelcontextprotocol/subscriptionId"
FLAGS = set(sys.argv[1:])

heard: list[Any] = []
held: dict[str, dict[str, Any]] = {}
defiant: set[Any] = set()
asked: dict[Any, dict[str, Any]] = {}
listens: dict[Any, dict[str, Any]] = {}


def raw(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def say(message: dict[str, Any]) -> None:
    raw(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def answer(request: dict[str, Any], text: Any) -> None:
    content = [{"type": "text", "text": text if isinstance(text, str) else json.dumps(text)}]
    say({"id": request["id"], "result": {"content": content, "resultType": "complete"}})


def progress(request: dict[str, Any], step: int) -> None:
    token = request["params"].get("_meta", {}).get("progressToken")
    if token is not None:
        say({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})


Tool = Callable[[dict[str, Any], dict[str, Any]], None]
TOOLS: dict[str, Tool] = {}


def tool(function: Tool) -> Tool:
    TOOLS[function.__name__] = function
    return function


@tool
def echo(request: dict[str, Any], given: dict[str, Any]) -> None:
    answer(request, given)


@tool
def pid(request: dict[str, Any], given: dict[str, Any]) -> None:
    answer(request, str(os.getpid()))


@tool
def env(request: dict[str, Any], given: dict[str, Any]) -> None:
    answer(request, {"env": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv[1:]})


@tool
def heard_so_far(request: dict[str, Any], given: dict[str, Any]) -> None:
    answer(request, heard)


@tool
def say_raw(request: dict[str, Any], given: dict[str, Any]) -> None:
    # What is said before the answer, as it stands.
    raw(given["raw"].encode() * given.get("times", 1) + given.get("end", "").encode())
    answer(request, "said")


@tool
def garble(request: dict[str, Any], given: dict[str, Any]) -> None:
    raw(given["raw"].replace("ID", str(request["id"])).encode() + b"\n")


@tool
def count(request: dict[str, Any], given: dict[str, Any]) -> None:
    for step in range(1, given["to"] + 1):
        progress(request, step)
    answer(request, "counted")


@tool
def hold(request: dict[str, Any], given: dict[str, Any]) -> None:
    progress(request, 1)
    held[given["key"]] = request
    if given.get("is_defiant"):
        defiant.add(request["id"])


@tool
def release(request: dict[str, Any], given: dict[str, Any]) -> None:
    before = held.pop(given["key"])
    progress(before, 2)
    answer(before, given["key"])
    answer(request, "released")


@tool
def ask(request: dict[str, Any], given: dict[str, Any]) -> None:
    asked[given.get("id", 1)] = request
    with_params = {"params": given["params"]} if "params" in given else {}
    say({"id": given.get("id", 1), "method": given.get("method", "roots/list"), **with_params})


@tool
def withdraw(request: dict[str, Any], given: dict[str, Any]) -> None:
    params = {"requestId": given["id"], "reason": "never mind"}
    say({"method": "notifications/cancelled", "params": params})
    answer(request, "withdrawn")


@tool
def flood(request: dict[str, Any], given: dict[str, Any]) -> None:
    for number in range(given["count"]):
        data = {"level": "info", "data": f"{number} " + "x" * given["size"]}
        say({"method": "notifications/message", "params": data})
    answer(request, "flooded")


@tool
def stderr(request: dict[str, Any], given: dict[str, Any]) -> None:
    sys.stderr.write(given["text"] * given.get("times", 1))
    sys.stderr.flush()
    answer(request, "written")


@tool
def tell(request: dict[str, Any], given: dict[str, Any]) -> None:
    say({"method": given["method"], "params": given.get("params", {})})
    answer(request, "told")


@tool
def change(request: dict[str, Any], given: dict[str, Any]) -> None:
    for id, wanted in listens.items():
        if wanted.get("toolsListChanged"):
            say({"method": "notifications/tools/list_changed", "params": {"_meta": {SUB: id}}})
        if wanted.get("promptsListChanged"):
            say({"method": "notifications/prompts/list_changed", "params": {"_meta": {SUB: id}}})
    answer(request, "changed")


@tool
def finish(request: dict[str, Any], given: dict[str, Any]) -> None:
    for id in list(listens):
        del listens[id]
        say({"id": id, "result": {"resultType": "complete", "_meta": {SUB: id}}})
    answer(request, "finished")


@tool
def die(request: dict[str, Any], given: dict[str, Any]) -> None:
    sys.stderr.write(given.get("text", ""))
    sys.stderr.flush()
    os._exit(given.get("code", 3))


@tool
def deaf(request: dict[str, Any], given: dict[str, Any]) -> None:
    answer(request, "deaf")
    time.sleep(3600)


@tool
def fail(request: dict[str, Any], given: dict[str, Any]) -> None:
    say({"id": request["id"], "error": {"code": given["code"], "message": "as you wish"}})


def call(request: dict[str, Any]) -> None:
    TOOLS[request["params"]["name"]](request, request["params"].get("arguments", {}))


def initialize(request: dict[str, Any]) -> None:
    if "--mute" in FLAGS:
        return
    if "--refuses" in FLAGS:
        say({"id": request["id"], "error": {"code": -32602, "message": "not you"}})
        return
    result = {
        "protocolVersion": request["params"]["protocolVersion"],
        "capabilities": {"tools": {"listChanged": True}, "logging": {}},
        "serverInfo": {"name": "speaker", "version": "1"},
    }
    if "--nonsense" in FLAGS:
        result = {"protocolVersion": "1999-01-01"}
    say({"id": request["id"], "result": result})


def hear(message: dict[str, Any]) -> None:
    match message.get("method"):
        case "initialize":
            initialize(message)
        case "tools/call":
            call(message)
        case "tools/list":
            if "--lists-late" in FLAGS:
                # The first time not at all.
                FLAGS.remove("--lists-late")
                return
            # Two pages.
            last = "cursor" in message["params"]
            schema = {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
            page = (
                {"tools": [{"name": "echo", "inputSchema": schema}]}
                if last
                else {"tools": [], "nextCursor": "2"}
            )
            say({"id": message["id"], "result": {**page, "resultType": "complete"}})
        case "server/discover":
            if "--dies-of-discover" in FLAGS:
                os._exit(1)
            say(
                {
                    "id": message["id"],
                    "result": {"resultType": "complete", "supportedVersions": ["2026-07-28"]},
                }
            )
        case "subscriptions/listen":
            id, wanted = message["id"], message["params"]["notifications"]
            listens[id] = wanted
            params = {"_meta": {SUB: id}, "notifications": wanted}
            say({"method": "notifications/subscriptions/acknowledged", "params": params})
        case None:
            request = asked.pop(message["id"], None)
            if request is not None:
                answer(request, {key: message[key] for key in ("result", "error") if key in message})
        case "notifications/cancelled":
            listens.pop(message["params"]["requestId"], None)
            if message["params"]["requestId"] in defiant:
                say({"id": "defiant", "method": "roots/list"})
                say({"method": "notifications/message", "params": {"level": "info", "data": "defiant"}})
        case method if "id" in message:
            say({"id": message["id"], "error": {"code": -32601, "message": f"no {method}"}})
        case _:
            pass


def main() -> None:
    if "--exits" in FLAGS:
        sys.stderr.write("cannot read \x1b[31mmy\r settings\nwith a second line\n")
        raise SystemExit(7)
    if "--ignores-term" in FLAGS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--grandchild" in FLAGS:
        # Holds the pipes too, and does not care for signals that can be ignored.
        code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
        child = subprocess.Popen([sys.executable, "-c", code])
        sys.stderr.write(f"grandchild {child.pid}\n")
        sys.stderr.flush()
    if "--banner" in FLAGS:
        raw(b"Welcome to my server!\n")
    for line in sys.stdin.buffer:
        message = json.loads(line)
        heard.append(message)
        hear(message)
    if "--stays" in FLAGS:
        threading.Event().wait()


if __name__ == "__main__":
    main()

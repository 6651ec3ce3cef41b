"""What it costs to know what a message is: our envelope against decoding it all."""

from __future__ import annotations

import json

import orjson

from bench.rounds import Spread, cpu_seconds, in_turn, print_table, ratio
from shadowcat.wire import json_strict, jsonrpc

_ROUNDS = 9


def run() -> None:
    rows: list[list[str]] = []
    ratios: list[list[str]] = []
    for raw in (_call(241), _answer(1_300), _tools(12_000)):
        spent = in_turn(
            {
                "jsonrpc.parse": lambda raw=raw: cpu_seconds(lambda: jsonrpc.parse(raw)),
                "json.loads": lambda raw=raw: cpu_seconds(lambda: json.loads(raw)),
                "orjson.loads": lambda raw=raw: cpu_seconds(lambda: orjson.loads(raw)),
                "check": lambda raw=raw: cpu_seconds(lambda: json_strict.check(raw)),
            },
            _ROUNDS,
        )
        parse = spent["jsonrpc.parse"]
        names = ("jsonrpc.parse", "json.loads", "orjson.loads")
        size = f"{len(raw):,} bytes"
        rows.append([size, *(Spread.of([1e6 * s for s in spent[name]]).text() for name in names)])
        ratios.append(
            [
                size,
                ratio(parse, spent["json.loads"]).text(),
                ratio(parse, spent["orjson.loads"]).text(),
                ratio(spent["check"], parse).text(),
            ]
        )
    print_table(["µs a message", "jsonrpc.parse", "json.loads", "orjson.loads"], rows)
    print_table(["RATIO", "parse : json", "parse : orjson", "strict check : parse"], ratios)


def _call(size: int) -> bytes:
    """A request, its length made up by an argument."""
    message = {
        "jsonrpc": "2.0",
        "id": 1834,
        "method": "tools/call",
        "params": {
            "name": "search_documents",
            "arguments": {"limit": 10, "language": "en", "query": ""},
            "_meta": {"progressToken": "b7d3f0a2-55c1"},
        },
    }
    message["params"]["arguments"]["query"] = "q" * (size - len(orjson.dumps(message)))
    return orjson.dumps(message)


def _answer(size: int) -> bytes:
    message = {
        "jsonrpc": "2.0",
        "id": 1834,
        "result": {"content": [{"type": "text", "text": ""}], "isError": False},
    }
    line = "Revenue in the north grew by 4.2 % to 1,204 thousand. "
    room = size - len(orjson.dumps(message))
    message["result"]["content"][0]["text"] = (line * (room // len(line) + 1))[:room]
    return orjson.dumps(message)


def _tools(size: int) -> bytes:
    """A list of tools with their schemas, until it is about as long as asked."""
    tools: list[dict[str, object]] = []
    message = {"jsonrpc": "2.0", "id": 2, "result": {"tools": tools}}
    while len(orjson.dumps(message)) < size:
        tools.append(
            {
                "name": f"tool_{len(tools)}",
                "description": "Searches the documents of a workspace and returns those that match best.",
                "inputSchema": {
                    "type": "object",
                    "properties": {
                        "query": {"type": "string", "description": "What to look for"},
                        "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
                        "tags": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["query"],
                    "additionalProperties": False,
                },
            }
        )
    return orjson.dumps(message)

"""What the demo server offers besides tools: who it is, its resources and its prompts."""

from __future__ import annotations

from shadowcat.demo.asked import Object
from shadowcat.errors import Fault, FaultKind

NOTE = "demo://note"
ABOUT = "demo://about"

SERVER_INFO = {"name": "shadowcat-demo", "title": "Shadowcat's demo server", "version": "1"}
CAPABILITIES: Object = {"tools": {}, "prompts": {}, "resources": {"subscribe": True}}
INSTRUCTIONS = (
    "A server to try a proxy with. Call count with a progress token and take something away in the middle."
)

RESOURCES = [
    {"uri": NOTE, "name": "note", "mimeType": "text/plain", "description": "What the tool note wrote last."},
    {"uri": ABOUT, "name": "about", "mimeType": "text/plain", "description": "What this server is for."},
]
PROMPTS = [
    {
        "name": "explain",
        "description": "Ask for an explanation that fits in a sentence.",
        "arguments": [{"name": "topic", "description": "What to explain.", "required": True}],
    }
]
MAX_TOPIC_CHARS = 200


def read(uri: str, note: str) -> Object:
    """The result of `resources/read`. Raises `Fault`."""
    texts = {NOTE: note, ABOUT: INSTRUCTIONS}
    if uri not in texts:
        raise Fault(FaultKind.INVALID_PARAMS, "Resource not found", data={"uri": uri})
    return {"contents": [{"uri": uri, "mimeType": "text/plain", "text": texts[uri]}]}


def prompt(name: str, arguments: Object) -> Object:
    """The result of `prompts/get`. Raises `Fault`."""
    if name != "explain":
        raise Fault(FaultKind.INVALID_PARAMS, "There is no such prompt")
    topic = arguments.get("topic")
    if not isinstance(topic, str) or len(topic) > MAX_TOPIC_CHARS:
        raise Fault(FaultKind.INVALID_PARAMS, f"topic is a text of at most {MAX_TOPIC_CHARS} characters")
    text = f"Explain {topic} in one sentence."
    return {"messages": [{"role": "user", "content": {"type": "text", "text": text}}]}

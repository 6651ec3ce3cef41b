"""The admin listener's OpenAPI document, generated from its operations."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from shadowcat.admin.answers import Problem
from shadowcat.admin.operations import Operation, Parameter, Reply

_JSON = "application/json"
_REFUSED = {
    401: Reply("The token is missing or wrong.", Problem),
    403: Reply("Host, Origin or Sec-Fetch-Site are somebody else's.", Problem),
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    schemas = _Schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shadowcat: the admin listener",
            "version": version("shadowcat"),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # Without one only where the listener was given none.
        "security": [{"token": []}, {}],
    }


class _Schemas:
    def __init__(self, operations: Sequence[Operation]) -> None:
        types = [Problem]
        for operation in operations:
            types += [reply.json for reply in operation.replies.values() if reply.json is not None]
            types += [] if operation.body is None else [operation.body]
        # Unique, in order.
        self._types = list(dict.fromkeys(types))
        found, self.components = msgspec.json.schema_components(
            self._types, ref_template="#/components/schemas/{name}"
        )
        self._found = dict(zip(self._types, found, strict=True))

    def of(self, type: Any) -> dict[str, Any]:
        return self._found[type]


def _described(operation: Operation, schemas: _Schemas) -> dict[str, Any]:
    replies = dict(operation.replies)
    for status, reply in _REFUSED.items():
        if status != 401 or not operation.is_open:
            replies[status] = reply
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.told,
        "responses": {str(status): _reply(reply, schemas) for status, reply in sorted(replies.items())},
    }
    if operation.parameters:
        described["parameters"] = [_parameter(parameter) for parameter in operation.parameters]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": schemas.of(operation.body)}},
        }
    if operation.is_open:
        described["security"] = []
    return described


def _reply(reply: Reply, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": reply.told}
    if reply.json is not None:
        described["content"] = {_JSON: {"schema": schemas.of(reply.json)}}
    elif reply.kind is not None:
        described["content"] = {reply.kind: {"schema": {"type": "string"}}}
    return described


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required or parameter.where == "path",
        "description": parameter.told,
        "schema": parameter.schema,
    }

"""Every feature with the official Python SDK's client: through the proxy exactly as without it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
import pytest
from mcp.client.subscriptions import PromptsListChanged, ResourceUpdated, ToolsListChanged

from tests.e2e.python_client import LEGACY, MODERN, VERSIONS, App, application, error_of, plain, text_of
from tests.e2e.stage import Stage
from tests.rig.wait import happens, soon

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

every_version = pytest.mark.parametrize("version", VERSIONS)
legacy = pytest.mark.parametrize("version", LEGACY)
with_elicitation = pytest.mark.parametrize("version", VERSIONS[1:])
with_legacy_elicitation = pytest.mark.parametrize("version", LEGACY[1:])
modern = pytest.mark.parametrize("version", [MODERN])

Feature = Callable[[App], Awaitable[Any]]
WATCHED = "test://watched-resource"


async def both(stage: Stage, version: str, feature: Feature, **options: Any) -> Any:
    outcomes: list[Any] = []
    for url in (stage.direct, stage.proxied):
        async with application(url, version, **options) as app, soon():
            outcomes.append(await feature(app))
            assert not app.faults
    direct, proxied = outcomes
    assert proxied == direct
    return proxied


@every_version
async def test_handshake(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        client = app.client
        return [
            client.protocol_version,
            plain(client.server_info),
            plain(client.server_capabilities),
            client.instructions,
        ]

    agreed, info, capabilities, instructions = await both(stage, version, feature)
    assert agreed == version
    assert info["name"] == "conformance-everything"
    assert capabilities["tools"] == {"listChanged": True}
    assert instructions == "Conformance fixture."


@every_version
async def test_tools_list(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return plain(await app.client.list_tools())

    tools = (await both(stage, version, feature))["tools"]
    assert {"test_simple_text", "count", "json_schema_2020_12_tool"} <= {tool["name"] for tool in tools}


@every_version
async def test_tools_call(stage: Stage, version: str) -> None:
    kinds = {
        "test_simple_text": ["text"],
        "test_image_content": ["image"],
        "test_audio_content": ["audio"],
        "test_embedded_resource": ["resource"],
        "test_multiple_content_types": ["text", "image", "resource"],
    }

    async def feature(app: App) -> Any:
        return {name: plain(await app.call(name)) for name in kinds}

    results = await both(stage, version, feature)
    assert {name: [block["type"] for block in got["content"]] for name, got in results.items()} == kinds


@every_version
async def test_tools_arguments(stage: Stage, version: str) -> None:
    name = "Ørjan “quoted” 猫 " + "x" * 50_000

    async def feature(app: App) -> Any:
        return await app.says("greet", name=name)

    assert await both(stage, version, feature) == f"Hello, {name}!"


@modern
async def test_tools_argument_in_a_header(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await app.client.list_tools()
        return await app.says("test_custom_header", region="Tromsø")

    assert await both(stage, version, feature) == "region=Tromsø"


@every_version
async def test_tools_that_fail(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return [
            plain(await app.call("test_error_handling")),
            await error_of(app.call("no_such_tool")),
            await error_of(app.call("protocol_error_job")),
        ]

    failed, unknown, internal = await both(stage, version, feature)
    assert failed["isError"]
    assert unknown["code"] == types.INVALID_PARAMS
    assert internal["message"] == "Internal failure in the job"


@every_version
async def test_tools_at_once(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return await asyncio.gather(*(app.says("greet", name=str(number)) for number in range(20)))

    assert await both(stage, version, feature) == [f"Hello, {number}!" for number in range(20)]


@every_version
async def test_resources_list(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return plain(await app.client.list_resources())

    uris = [resource["uri"] for resource in (await both(stage, version, feature))["resources"]]
    assert uris == ["test://static-text", "test://static-binary", WATCHED]


@every_version
async def test_resources_read(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        read = app.client.read_resource
        return [
            plain(await read("test://static-text")),
            plain(await read("test://static-binary")),
            await error_of(read("test://nowhere")),
        ]

    text, binary, missing = await both(stage, version, feature)
    assert text["contents"][0]["text"].startswith("This is the content")
    assert binary["contents"][0]["mimeType"] == "image/png"
    assert missing["data"] == {"uri": "test://nowhere"}


@every_version
async def test_resources_templates(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return [
            plain(await app.client.list_resource_templates()),
            plain(await app.client.read_resource("test://template/a%20b/data")),
        ]

    templates, read = await both(stage, version, feature)
    assert templates["resourceTemplates"][0]["uriTemplate"] == "test://template/{id}/data"
    assert "a%20b" in read["contents"][0]["text"]


@every_version
async def test_prompts_list(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return plain(await app.client.list_prompts())

    assert len((await both(stage, version, feature))["prompts"]) == 5


@every_version
async def test_prompts_get(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        get = app.client.get_prompt
        return [
            plain(await get("test_simple_prompt")),
            plain(await get("test_prompt_with_arguments", {"arg1": "one", "arg2": "zwei ü"})),
            plain(await get("test_prompt_with_embedded_resource", {"resourceUri": WATCHED})),
            plain(await get("test_prompt_with_image")),
            await error_of(get("no_such_prompt")),
        ]

    *given, unknown = await both(stage, version, feature)
    assert given[1]["messages"][0]["content"]["text"] == "Prompt with arguments: arg1='one', arg2='zwei ü'"
    assert [len(prompt["messages"]) for prompt in given] == [1, 1, 2, 2]
    assert unknown["code"] == types.INVALID_PARAMS


@every_version
async def test_completion(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        prompt = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        template = types.ResourceTemplateReference(type="ref/resource", uri="test://template/{id}/data")
        return [
            plain(await app.client.complete(prompt, {"name": "arg1", "value": "par"})),
            plain(await app.client.complete(template, {"name": "id", "value": "test"}, {"other": "x"})),
        ]

    of_prompt, of_template = await both(stage, version, feature)
    assert of_prompt["completion"]["values"] == ["paris", "park", "party"]
    assert of_template["completion"]["values"] == ["test-one", "test-two"]


# What the server asks the client.


@every_version
async def test_sampling(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        if app.is_modern:
            return [await app.says("test_input_required_result_sampling"), app.asked]
        return [await app.says("test_sampling", prompt="The capital of France?"), app.asked]

    said, asked = await both(stage, version, feature)
    assert said.endswith(": Paris")
    assert asked[0]["maxTokens"] == 100


@with_elicitation
async def test_elicitation(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        if app.is_modern:
            return [await app.says("test_input_required_result_elicitation"), app.asked]
        return [await app.says("test_elicitation", message="Who are you?"), app.asked]

    said, asked = await both(stage, version, feature)
    assert said == "Hello, Ada!" if version == MODERN else "action=accept" in said
    assert asked[0]["requestedSchema"]["type"] == "object"


@with_legacy_elicitation
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_elicitation_refused(stage: Stage, version: str, action: Any) -> None:
    async def feature(app: App) -> Any:
        app.elicited = types.ElicitResult(action=action)
        return await app.says("test_elicitation", message="Who are you?")

    assert await both(stage, version, feature) == f"User response: action={action}, content=null"


@with_legacy_elicitation
@pytest.mark.parametrize("name", ["test_elicitation_sep1034_defaults", "test_elicitation_sep1330_enums"])
async def test_elicitation_schemas(stage: Stage, version: str, name: str) -> None:
    async def feature(app: App) -> Any:
        return [await app.says(name), app.asked]

    said, asked = await both(stage, version, feature)
    assert "action=accept" in said
    assert len(asked[0]["requestedSchema"]["properties"]) == 5


@with_legacy_elicitation
async def test_questions_at_once(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return await asyncio.gather(
            app.says("test_elicitation", message="Who?"),
            app.says("test_sampling", prompt="What?"),
            app.says("ask_roots", standalone=False),
            app.says("ask_ping", standalone=False),
        )

    elicited, sampled, roots, pinged = await both(stage, version, feature)
    assert ("action=accept" in elicited, sampled, roots, pinged) == (
        True,
        "LLM response: Paris",
        "work=file:///work",
        "answered",
    )


@modern
async def test_input_rounds(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return [
            await app.says("test_input_required_result_multiple_inputs"),
            await app.says("test_input_required_result_request_state"),
            await app.says("test_input_required_result_tampered_state"),
            plain(await app.client.get_prompt("test_input_required_result_prompt")),
            app.asked,
        ]

    several, state, sealed, _, asked = await both(stage, version, feature)
    assert (several, state, sealed) == ("All inputs received.", "state-ok", "State verified.")
    assert len(asked) == 6


@every_version
async def test_roots(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        if app.is_modern:
            return await app.says("test_input_required_result_list_roots")
        return await app.says("ask_roots", standalone=False)

    assert (await both(stage, version, feature)).endswith("file:///work")


@legacy
async def test_roots_list_changed(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await app.client.send_roots_list_changed()
        return await app.says("roots_changed")

    assert await both(stage, version, feature) == "changed"


@legacy
async def test_questions_on_the_standalone_stream(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await happens(app.listens)
        return [await app.says("ask_roots", standalone=True), await app.says("ask_ping", standalone=True)]

    assert await both(stage, version, feature) == ["work=file:///work", "answered"]


@legacy
async def test_ping(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        return plain(await app.client.send_ping())

    assert await both(stage, version, feature) == {}


# What the server tells the client.


@every_version
async def test_progress(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        said = await app.says("test_tool_with_progress")
        await app.changed.until(lambda: len(app.progress) >= 3)
        return [said, app.progress]

    said, progress = await both(stage, version, feature)
    assert said == "Progress reported."
    assert progress == [(step, 100, f"Completed step {step} of 100") for step in (0, 50, 100)]


@every_version
async def test_progress_of_many(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        said = await app.says("count", key=uuid.uuid4().hex, first=500, total=500)
        await app.changed.until(lambda: len(app.progress) >= 500)
        return [said, app.progress]

    said, progress = await both(stage, version, feature)
    assert said == "counted to 500"
    assert [step for step, _, _ in progress] == list(range(1, 501))


@every_version
async def test_logging(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await app.call("test_tool_with_logging")
        await app.changed.until(lambda: len(app.logs) >= 3)
        return app.logs

    options: dict[str, Any] = {"log_level": "debug"} if version == MODERN else {}
    logs = await both(stage, version, feature, **options)
    assert [log["data"] for log in logs] == [
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ]


@legacy
async def test_logging_level(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await app.client.set_logging_level("error")
        await app.call("test_logging_tool")
        await app.client.set_logging_level("info")
        await app.call("test_tool_with_logging")
        await app.changed.until(lambda: len(app.logs) >= 3)
        return [app.logs, await app.says("settings")]

    logs, settings = await both(stage, version, feature)
    assert len(logs) == 3
    assert settings.startswith("level info")


@modern
async def test_logging_unasked(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await app.call("test_tool_with_logging")
        await app.call("test_simple_text")
        return app.logs

    assert await both(stage, version, feature) == []


@legacy
async def test_list_changed(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await happens(app.listens)
        await app.call("test_trigger_tool_change")
        await app.call("test_trigger_prompt_change")
        await app.changed.until(lambda: len(app.changes) >= 2)
        return app.changes

    assert await both(stage, version, feature) == [
        {"method": "notifications/tools/list_changed"},
        {"method": "notifications/prompts/list_changed"},
    ]


@modern
async def test_list_changed_by_listening(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        async with app.client.listen(tools_list_changed=True, prompts_list_changed=True) as changes:
            await app.call("test_trigger_tool_change")
            first = await anext(changes)
            await app.call("test_trigger_prompt_change")
            return [plain(changes.honored), first, await anext(changes)]

    honored, first, second = await both(stage, version, feature)
    assert honored == {"toolsListChanged": True, "promptsListChanged": True}
    assert (first, second) == (ToolsListChanged(), PromptsListChanged())


@legacy
async def test_subscriptions(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        await happens(app.listens)
        await app.client.subscribe_resource(WATCHED)
        subscribed = await app.says("touch", uri=WATCHED)
        await app.changed.until(lambda: len(app.changes) >= 1)
        await app.client.unsubscribe_resource(WATCHED)
        return [subscribed, await app.says("touch", uri=WATCHED), app.changes]

    *touched, changes = await both(stage, version, feature)
    assert touched == ["subscribed", "not subscribed"]
    assert changes == [{"method": "notifications/resources/updated", "params": {"uri": WATCHED}}]


@modern
async def test_subscriptions_by_listening(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        async with app.client.listen(resource_subscriptions=[WATCHED]) as changes:
            await app.call("touch", uri="test://other")
            await app.call("touch", uri=WATCHED)
            return await anext(changes)

    assert await both(stage, version, feature) == ResourceUpdated(WATCHED)


@every_version
async def test_cancellation(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        key = uuid.uuid4().hex
        async with application(stage.direct, version) as steering:
            call = asyncio.ensure_future(app.client.call_tool("hold", {"key": key}))
            await steering.says("started", key=key)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            fate = await steering.says("fate", key=key)
        # The connection is as good as before.
        return [fate, await app.says("test_simple_text")]

    fate, _ = await both(stage, version, feature)
    assert fate == "CancelledError"


@every_version
async def test_cancellation_by_timeout(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        key = uuid.uuid4().hex
        error = await error_of(app.client.call_tool("hold", {"key": key}, read_timeout_seconds=0.3))
        async with application(stage.direct, version) as steering:
            return [error, await steering.says("fate", key=key)]

    error, fate = await both(stage, version, feature)
    assert error["code"] == types.REQUEST_TIMEOUT
    assert fate == "CancelledError"


@every_version
async def test_one_client_beside_another(stage: Stage, version: str) -> None:
    async def feature(app: App) -> Any:
        key = uuid.uuid4().hex
        async with application(stage.proxied, version) as other:
            call = asyncio.ensure_future(app.call("count", key=key, first=2, total=4))
            await app.changed.until(lambda: len(app.progress) >= 2)
            assert await other.says("release", key=key) == "released"
            said = text_of(await call)
            await app.changed.until(lambda: len(app.progress) >= 4)
            return [said, app.progress, other.progress]

    said, progress, others = await both(stage, version, feature)
    assert said == "counted to 4"
    assert [step for step, _, _ in progress] == [1, 2, 3, 4]
    assert others == []

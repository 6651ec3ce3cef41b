"""The numbers: that they are counted, what they are called, and that the page about them says the same."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shadowcat import Admin, Context, ForwardProxy, Interceptor, ReverseProxy, Verdict
from shadowcat.admin.numbers import HISTOGRAMS, NUMBERS
from shadowcat.clock import ManualClock
from shadowcat.core.breaker import RestartPolicy
from shadowcat.core.exchange import Answer, Forwarded
from shadowcat.core.ports import Link
from shadowcat.core.stream import LogLimits
from shadowcat.core.targets import TargetRules
from shadowcat.errors import Fault, FaultKind
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder
from shadowcat.proxy.shared import SessionLimits
from shadowcat.upstream.command import Command
from shadowcat.upstream.events import ReconnectPolicy
from shadowcat.upstream.starter import StartLimits
from shadowcat.upstream.stdio import StdioLimits, StdioUpstream
from shadowcat.wire.jsonrpc import Message
from tests.admin.kit import Operator, watched_stand
from tests.admin.stores import ASYNC, FailingStore
from tests.rig.children import speaker, text, tool
from tests.rig.client import client_of, rpc
from tests.rig.server import Call, Stream, mcp_server
from tests.rig.stand import stand
from tests.rig.wait import until

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|")
INITIALIZE = rpc("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}}, 7)

Row = tuple[str, str, tuple[str, ...], str]


def documented() -> list[Row]:
    rows = (ROW.fullmatch(line.replace("| |", "|  |")) for line in PAGE.read_text("utf-8").splitlines())
    return [
        (found[1], found[2], tuple(re.findall(r"`(\w+)`", found[3])), found[4].strip())
        for found in rows
        if found
    ]


def test_the_page_has_the_numbers_and_no_others() -> None:
    ours = [
        *((number.name, number.type.value, number.labels, number.told) for number in NUMBERS),
        *((each.name, "histogram", each.labels, each.told) for each in HISTOGRAMS),
    ]
    assert [row for row in documented() if row[0].startswith("shadowcat_")] == ours
    assert len({row[0] for row in ours}) == len(ours)


async def test_what_is_told_is_on_the_page() -> None:
    async with watched_stand() as (rig, operator):
        await rig.client.initialize()
        text = (await (await operator.ask("/metrics")).body()).decode()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        # The parser strips what counters end in.
        page = {row[0].removesuffix("_total"): row for row in documented()}
        assert set(families) == set(page)
        for name, family in families.items():
            _, kind, labels, told = page[name]
            assert (family.type, family.documentation) == (kind, told)
            for sample in family.samples:
                assert {*sample.labels} - {"le"} == {*labels}


async def test_the_form_that_is_asked_for() -> None:
    async with watched_stand() as (_, operator):
        plain = await operator.ask("/metrics")
        assert plain.headers["content-type"].startswith("text/plain; version=")
        await plain.body()
        other = await operator.ask("/metrics", ("Accept", "application/openmetrics-text; version=1.0.0"))
        assert other.headers["content-type"].startswith("application/openmetrics-text")
        assert (await other.body()).endswith(b"# EOF\n")


async def test_no_label_is_what_a_peer_chose() -> None:
    async with watched_stand() as (rig, operator):
        await rig.client.initialize()
        id = rig.client.session_id or ""

        @rig.server.on("tools/call")
        async def call(call: Call) -> None:
            await call.seen.respond(599, b"made up", "text/plain")

        for number in range(20):
            await rig.client.call("tools/call", {"name": f"chosen-{number}"}, id=f"chosen-{number}")
            await (await rig.client.request("GET", path=f"/chosen-{number}")).body()
            await (await rig.client.ask("tools/call", {"name": f"chosen-{number}"})).body()
        text = (await (await operator.ask("/metrics")).body()).decode()
        assert "chosen" not in text
        assert id[:8] not in text
        values = {
            label
            for number in NUMBERS
            for label in re.findall(rf"^{number.name}{{(.*)}}", text, re.MULTILINE)
        }
        assert len(values) < 30, values


# What is counted. Each of these is a thing that happens, seen in the numbers afterwards.


async def test_sessions_and_calls() -> None:
    async with watched_stand() as (rig, operator):
        await rig.client.initialize()
        await rig.client.call()
        rig.server.restart()
        await rig.client.call()
        found = await operator.metrics()
        assert found['shadowcat_sessions{state="open"}'] == 1.0
        assert found["shadowcat_exchanges_total"] == 2.0
        assert found["shadowcat_session_recoveries_total"] == 1.0
        assert found["shadowcat_http_requests_total"] == 4.0
        assert found['shadowcat_upstream_connections{state="idle",upstream="a"}'] >= 1.0
        await rig.client.delete()
        found = await operator.metrics()
        assert (found['shadowcat_sessions{state="open"}'], found["shadowcat_sessions_ended_total"]) == (
            0.0,
            1.0,
        )


SECONDS = "shadowcat_upstream_answer_seconds"


async def test_how_long_answers_take_and_how_many_are_errors() -> None:
    """Whichever way they come, in both eras."""
    async with watched_stand() as (rig, operator):
        clock = ManualClock()
        rig.proxy.shared.clock = clock

        @rig.server.on("tools/call")
        async def call(call: Call) -> None:
            clock.advance(call.params["arguments"]["seconds"])
            match call.params["name"]:
                case "json":
                    await call.json(call.response({"content": [], "resultType": "complete"}))
                case "error":
                    await call.error(-32602, "no")
                case _:
                    stream = await call.stream()
                    await stream.notify("notifications/message", {"level": "info", "data": 1})
                    await stream.send(call.response({"content": [], "resultType": "complete"}))
                    await stream.end()

        def asked(name: str, seconds: float) -> dict[str, Any]:
            return {"name": name, "arguments": {"seconds": seconds}}

        await rig.client.initialize()
        for name, seconds in (
            ("json", 0.004),
            ("json", 0.025),
            ("stream", 0.2),
            ("error", 2.0),
            ("json", 1_000.0),
        ):
            await rig.client.call("tools/call", asked(name, seconds))
        for name, seconds in (("json", 0.03), ("stream", 0.04), ("error", 0.05)):
            await (await rig.client.ask("tools/call", asked(name, seconds))).body()
        found = await operator.metrics()
        by_step = {
            re.findall('le="([^"]*)"', name)[0]: value
            for name, value in found.items()
            if name.startswith(f"{SECONDS}_bucket")
        }
        assert (by_step["0.005"], by_step["0.01"], by_step["0.025"], by_step["0.05"]) == (1.0, 1.0, 2.0, 5.0)
        assert (by_step["0.25"], by_step["2.5"], by_step["300.0"], by_step["+Inf"]) == (6.0, 7.0, 7.0, 8.0)
        assert found[f'{SECONDS}_count{{upstream="a"}}'] == 8.0
        assert found[f'{SECONDS}_sum{{upstream="a"}}'] == pytest.approx(1_002.349)
        assert found['shadowcat_upstream_error_answers_total{upstream="a"}'] == 2.0


class Failing(Interceptor):
    methods = ("tools/call",)

    def on_request(self, message: Message, context: Context) -> Verdict:
        raise LookupError("there is none")


async def test_failures_of_interceptors() -> None:
    async with watched_stand(interceptors=[Failing()]) as (rig, operator):
        await rig.client.initialize()
        assert "shadowcat_interceptor_failures_total{" not in str(await operator.metrics())
        assert "error" in await rig.client.call()
        assert "error" in await rig.client.call()
        found = await operator.metrics()
        label = 'how="LookupError",interceptor="Failing"'
        assert found[f"shadowcat_interceptor_failures_total{{{label}}}"] == 2.0


async def test_refusals_by_status() -> None:
    async with watched_stand() as (rig, operator):
        await (await rig.client.request("GET", path="/elsewhere")).body()
        await (await rig.client.post(b"{")).body()
        await (await rig.client.request("POST", [("Content-Length", "+5")])).body()
        found = await operator.metrics()
        assert found['shadowcat_http_error_responses_total{status="404"}'] == 1.0
        assert found['shadowcat_http_error_responses_total{status="400"}'] == 2.0


async def test_streams_that_are_resumed_on_both_sides() -> None:
    async with watched_stand() as (rig, operator):
        upstream: Any = rig.proxy.shared.upstreams.named("a")
        upstream.streamable.reconnect = ReconnectPolicy(first_s=0.01)

        @rig.server.on("tools/call")
        async def call(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/message", {"level": "info", "data": 1}, id="e1")
            stream.cut()

            async def rest(seen: Any) -> None:
                # The standalone stream that follows is one that stays open.
                rig.server.on_get = None
                await seen.begin("text/event-stream")
                again = Stream(seen)
                await again.notify("notifications/message", {"level": "info", "data": 1}, id="e1")
                await again.send(call.response({"content": []}), id="e2")
                await again.end()

            rig.server.on_get = rest

        await rig.client.initialize()
        reply = await rig.client.begin("tools/call", {"name": "t"})
        assert len(await reply.messages()) == 2
        await (await rig.client.listen(reply.seen[0].id)).rest()
        await until(lambda: upstream.streamable.streams.ended and upstream.streamable.streams.opened == 2)
        found = await operator.metrics()
        counted = {
            name.removeprefix("shadowcat_upstream_").removesuffix('{upstream="a"}'): value
            for name, value in found.items()
            if name.startswith("shadowcat_upstream_") and value
        }
        assert counted.pop("stream_seconds_total") > 0
        # That of the call, and the standalone one that comes with a client's GET.
        assert (counted["streams_opened_total"], counted["streams"]) == (2.0, 1.0)
        for expected in (
            "reconnect_attempts_total",
            "reconnects_total",
            "repeated_events_total",
        ):
            assert counted.get(expected) == 1.0, counted
        assert found["shadowcat_client_resumes_total"] == 1.0
        assert found["shadowcat_stream_log_events"] == 2.0
        assert found["shadowcat_stream_log_bytes"] > 0
        await rig.client.delete()
        found = await operator.metrics()
        assert (found["shadowcat_stream_log_events"], found["shadowcat_stream_log_bytes"]) == (0.0, 0.0)


async def test_events_that_had_to_go() -> None:
    limits = SessionLimits(log=LogLimits(bytes=8_000))
    async with watched_stand(session_limits=limits, script={"answers_json": False}) as (rig, operator):
        await rig.client.initialize()
        for number in range(1, 10):
            await rig.client.call(id=number)
        found = await operator.metrics()
        assert found["shadowcat_stream_log_evicted_events_total"] >= 1.0
        assert (
            found["shadowcat_stream_log_evicted_events_total"] + found["shadowcat_stream_log_events"] == 9.0
        )
        old = await rig.client.listen(f"{rig.session().core.record.epoch}.1.0")
        assert (await old.message())["error"]["code"] == -31001
        assert (await operator.metrics())["shadowcat_client_resume_gaps_total"] == 1.0
        old.close()


async def test_a_server_in_trouble() -> None:
    async with watched_stand() as (rig, operator):
        await rig.server.listener.close()
        await (await rig.client.post(INITIALIZE)).body()
        found = await operator.metrics()
        assert found['shadowcat_upstream_in_trouble{upstream="a"}'] == 1.0
        kind = FaultKind.UPSTREAM_UNAVAILABLE.value
        assert found[f'shadowcat_upstream_faults_total{{kind="{kind}",upstream="a"}}'] == 1.0
        assert found["shadowcat_ready"] == 0.0


async def test_a_store() -> None:
    store = FailingStore()
    async with watched_stand(store=store, durability=ASYNC) as (rig, operator):
        await rig.client.initialize()
        before = await operator.metrics()
        assert before["shadowcat_store_changes_written_total"] >= 1.0
        store.is_failing = True
        rig.session().core.ledger.record_changed()
        await until(lambda: rig.writer.is_failing)
        found = await operator.metrics()
        assert found["shadowcat_store_failing"] == 1.0
        assert found["shadowcat_store_write_failures_total"] >= 1.0
        store.is_failing = False
        await until(lambda: not rig.writer.is_failing)
        assert (await operator.metrics())["shadowcat_store_waiting_sessions"] == 0.0


async def test_a_recording(tmp_path: Path) -> None:
    recorder = Recorder(RecordOptions(directory=str(tmp_path)))
    recorder.start()
    try:
        async with (
            stand(taps=[recorder]) as rig,
            Admin(rig.proxy, recording=recorder) as admin,
            client_of(admin.port) as asker,
        ):
            await rig.client.initialize()
            await rig.client.call(params={"name": "t", "arguments": {"password": "hush"}})
            await until(lambda: recorder.statistics().recorded == 5)
            found = await Operator(admin, asker).metrics()
            assert found["shadowcat_recorded_messages_total"] == 5.0
            assert found["shadowcat_recorded_messages_redacted_total"] == 1.0
            assert found["shadowcat_record_dropped_messages_total"] == 0.0
            assert found["shadowcat_recording_failing"] == 0.0
    finally:
        recorder.close()


async def test_processes_of_a_command() -> None:
    broken = Command((sys.executable, "-c", "raise SystemExit(3)"))
    async with (
        ReverseProxy({"works": speaker(), "broken": broken}, port=0) as proxy,
        Admin(proxy) as admin,
        client_of(proxy.port) as client,
        client_of(admin.port) as asker,
    ):
        operator = Operator(admin, asker)
        await client.initialize()
        await client.initialize()
        os.kill(int(text(await client.call(params=tool("pid")))), signal.SIGKILL)
        works = stdio(proxy, "works")
        await until(lambda: works.statistics().processes_crashed and works.statistics().processes == 1)
        found = await operator.metrics()
        assert found['shadowcat_upstream_processes{upstream="works"}'] == 1.0
        assert found['shadowcat_upstream_processes_started_total{upstream="works"}'] == 2.0
        assert found['shadowcat_upstream_processes_crashed_total{upstream="works"}'] == 1.0
        assert found['shadowcat_upstream_circuit_open{upstream="works"}'] == 0.0
        assert found['shadowcat_upstream_in_trouble{upstream="broken"}'] == 1.0
        assert found['shadowcat_upstream_processes_started_total{upstream="broken"}'] >= 1.0


async def test_a_command_that_is_left_alone() -> None:
    upstream = StdioUpstream(
        "broken",
        Command((sys.executable, "-c", "raise SystemExit(3)")),
        limits=StdioLimits(start=StartLimits(restart=RestartPolicy(failures=1))),
    )
    async with (
        ReverseProxy({"broken": upstream}, port=0) as proxy,
        Admin(proxy) as admin,
        client_of(proxy.port) as client,
        client_of(admin.port) as asker,
    ):
        await (await client.post(INITIALIZE)).body()
        found = await Operator(admin, asker).metrics()
        assert found['shadowcat_upstream_circuit_open{upstream="broken"}'] == 1.0


def stdio(proxy: ReverseProxy, name: str) -> StdioUpstream:
    upstream = proxy.shared.upstreams.named(name)
    assert isinstance(upstream, StdioUpstream)
    return upstream


async def test_the_lag_of_the_event_loop() -> None:
    async with watched_stand() as (_, operator):
        await until(lambda: operator.admin._lag._lags)
        time.sleep(0.7)  # noqa: ASYNC251 - that is what is measured
        await until(lambda: operator.admin._lag.worst_s > 0.1)
        assert (await operator.metrics())["shadowcat_event_loop_lag_seconds"] > 0.1


async def test_an_upstream_that_does_not_count_is_left_out() -> None:
    """The port asks four methods of an upstream, and statistics is none of them."""

    class Silent:
        name = "silent"

        async def open(self, initialize: Message) -> tuple[Link, Message]:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE)

        def attach(self, upstream_id: str | None, version: str) -> Link:
            raise AssertionError

        async def exchange(self, request: Message, forwarded: Forwarded) -> Answer:
            raise Fault(FaultKind.UPSTREAM_UNAVAILABLE)

        async def aclose(self) -> None: ...

    async with (
        ReverseProxy({"silent": Silent()}, port=0) as proxy,
        Admin(proxy) as admin,
        client_of(admin.port) as asker,
    ):
        operator = Operator(admin, asker)
        found = await operator.metrics()
        assert found['shadowcat_upstream_in_trouble{upstream="silent"}'] == 0.0
        assert 'shadowcat_upstream_streams{upstream="silent"}' not in found
        assert (await operator.get("/api/upstreams"))["upstreams"][0]["statistics"] is None


async def test_servers_that_clients_name_are_told_together() -> None:
    async with (
        mcp_server() as server,
        ForwardProxy(TargetRules(loopback=True), port=0) as proxy,
        Admin(proxy) as admin,
        client_of(proxy.port) as client,
        client_of(admin.port) as asker,
    ):
        operator = Operator(admin, asker)
        # Nobody has named one yet.
        reply = await operator.ask("/ready")
        assert reply.status == 200, await reply.body()
        host = ("Host", server.url.split("/")[2])
        reply = await client.post(INITIALIZE, host, path=server.url)
        assert reply.status == 200, await reply.body()
        found = await operator.metrics()
        assert found['shadowcat_upstream_in_trouble{upstream="(any)"}'] == 0.0
        assert found['shadowcat_upstream_connections{state="idle",upstream="(any)"}'] >= 0.0
        assert {name for name in found if "upstream=" in name and "(any)" not in name} == set()

"""What settings cannot know of each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowcat.app.loading import load_settings
from shadowcat.config.problem import ConfigError

KEY = {"SHADOWCAT_CLUSTER_KEY": "of more than sixteen"}
CLUSTER = "cluster.advertise = 'http://10.0.0.5:8080'"
SERVER = "upstreams.a.url = 'http://127.0.0.1:3000/mcp'"


def load(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    file = tmp_path / "shadowcat.toml"
    file.write_text(text)
    loaded = load_settings("reverse", file=file, environment=environment or {})
    return loaded.warnings


@pytest.mark.parametrize(
    ("text", "environment", "told"),
    [
        (CLUSTER, KEY, "cluster: it is for nodes that share a Redis: give --store redis://HOST too"),
        (
            CLUSTER,
            {"SHADOWCAT_CLUSTER_KEY": "short"},
            "{file}: cluster: key needs 16 characters or more, the same on each node",
        ),
        ("store = 'elsewhere:x'", {}, "store: no store has such a URL; there are "),
        ("upstream_tls.ca_file = '/no/such'", {}, "upstream_tls: /no/such cannot be read: No such file"),
        (
            "tls = { cert_file = '/no/such', key_file = '/no/such' }",
            {},
            "tls: /no/such cannot be read: No such file",
        ),
        (
            "listen = ':8000'\nupstreams.a.url = 'http://localhost:8000/mcp?key=secret'",
            {},
            "upstreams.a: http://localhost:8000/mcp is this proxy itself, which listens on 127.0.0.1:8000: ",
        ),
        (
            "listen = '0.0.0.0:443'\nupstreams.a.url = 'https://127.0.0.1/mcp'",
            {},
            "upstreams.a: https://127.0.0.1/mcp is this proxy itself",
        ),
        ("upstreams.a = {}", {}, "{file}: upstreams.a: it has either a url, for example "),
        (
            "upstreams.a = { url = 'http://a/mcp', shared = true }",
            {},
            "{file}: upstreams.a: shared, spares, env and cwd are for a command",
        ),
        (
            "upstreams.a = { command = ['cat'], shared = true, spares = 1 }",
            {},
            "{file}: upstreams.a: spares are for sessions with a process each",
        ),
        (
            "upstreams.a.command = ['no-such-program']",
            {},
            "{file}: upstreams.a: there is no program 'no-such-program'",
        ),
        (
            "upstreams.a = { command = ['cat'], cwd = '/no/such' }",
            {},
            "{file}: upstreams.a: there is no directory '/no/such'",
        ),
        (
            "endpoint.path = '/sse'",
            {},
            "{file}: endpoint: path /sse and sse_path /sse get in each other's way",
        ),
    ],
)
def test_what_cannot_work(tmp_path: Path, text: str, environment: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text, environment)
    (only,) = error.value.problems
    assert only.startswith(told.replace("{file}", str(tmp_path / "shadowcat.toml")))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "store = 'memory:'\ndurability.strict = true",
            "durability.strict has no effect: with store memory: nothing is written",
        ),
        (
            "sessions = { upgrade_after_s = 300 }",
            "sessions.upgrade_after_s has no effect: a call is over after sessions.call_s, 300 s",
        ),
        (
            "sessions.all_log_bytes = 1000",
            "sessions.log.bytes has no effect: sessions.all_log_bytes is less, and bounds all logs together",
        ),
        (
            "durability.retry_first_s = 5",
            "durability.retry_first_s has no effect: durability.retry_cap_s is less",
        ),
        (
            f"{SERVER}\nupstream_tls.key_file = '/no/such'",
            "upstream_tls.key_file has no effect: no server has an https URL",
        ),
        (
            "upstream_tls.key_file = '/no/such'",
            "upstream_tls.key_file has no effect without upstream_tls.cert_file",
        ),
        (
            f"{CLUSTER}\nstore = 'redis://127.0.0.1'\nendpoint.keepalive_s = 40",
            "endpoint.keepalive_s: nodes take a stream that is silent for 40 s for broken; give it less",
        ),
    ],
)
def test_what_has_no_effect(tmp_path: Path, text: str, told: str) -> None:
    assert told in load(tmp_path, text, KEY if "cluster" in text else {})


def test_what_is_not_given_is_nobodys_mistake(tmp_path: Path) -> None:
    assert load(tmp_path, f"store = 'memory:'\n{SERVER}") == ()

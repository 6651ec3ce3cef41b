"""Who may ask: every way a page somewhere else could reach the listener through somebody's browser is closed."""

from __future__ import annotations

import pytest

from shadowcat.admin.gate import Asked, Gate
from shadowcat.admin.options import AdminAddress, AdminOptions
from shadowcat.secret import Secret
from tests.admin.kit import TOKEN, watched_stand

HOST = ("Host", "127.0.0.1:9901")
JSON = ("Content-Type", "application/json")


async def nobody(*_: object) -> None:
    raise AssertionError("not asked here")


def judged(method: str, path: str, *fields: tuple[str, str], **options: object) -> str | None:
    gate = Gate(nobody, AdminOptions(**options))  # type: ignore[arg-type]
    sent = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    refusal = gate.refusal(Asked.of(method, path, sent))
    return None if refusal is None else f"{refusal.status} {refusal.reason}"


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("127.0.0.1:9901", None),
        ("localhost", None),
        ("[::1]:9901", None),
        ("127.0.0.1.evil.com:9901", "403 foreign_host"),
        ("evil.com", "403 foreign_host"),
        ("user@localhost", "403 foreign_host"),
        ("localhost:port", "403 foreign_host"),
        ("", "403 foreign_host"),
    ],
)
def test_the_host_on_a_loopback_address(host: str, refused: str | None) -> None:
    assert judged("GET", "/api/sessions", ("Host", host)) == refused


def test_the_host_is_asked_for_once() -> None:
    assert judged("GET", "/api/sessions") == "403 foreign_host"
    assert judged("GET", "/api/sessions", HOST, HOST) == "403 foreign_host"


def test_the_host_where_others_reach_it() -> None:
    open_to_all = {"listen": AdminAddress("0.0.0.0:0"), "token": Secret(TOKEN)}
    bearer = ("Authorization", f"Bearer {TOKEN}")
    assert judged("GET", "/metrics", ("Host", "any.example"), bearer, **open_to_all) is None
    named = open_to_all | {"allow_hosts": frozenset({"a.example"})}
    assert judged("GET", "/metrics", ("Host", "a.example:9901"), bearer, **named) is None
    assert judged("GET", "/metrics", ("Host", "b.example:9901"), bearer, **named) == "403 foreign_host"
    written = open_to_all | {"allow_hosts": frozenset({"A.Example", "[::5]"})}
    for host in ("a.example", "A.EXAMPLE:9901", "[::5]:9901"):
        assert judged("GET", "/metrics", ("Host", host), bearer, **written) is None


@pytest.mark.parametrize(
    ("origin", "refused"),
    [
        ("http://127.0.0.1:9901", None),
        ("http://127.0.0.1:9902", "403 foreign_origin"),
        ("http://localhost:9901", "403 foreign_origin"),
        ("http://localhost.evil.com", "403 foreign_origin"),
        ("https://evil.com", "403 foreign_origin"),
        ("null", "403 foreign_origin"),
        ("", "403 foreign_origin"),
    ],
)
def test_the_origin(origin: str, refused: str | None) -> None:
    assert judged("GET", "/api/sessions", HOST, ("Origin", origin)) == refused


@pytest.mark.parametrize(
    ("site", "refused"),
    [
        ("same-origin", None),
        ("none", None),
        ("same-site", "403 foreign_origin"),
        ("cross-site", "403 foreign_origin"),
    ],
)
def test_what_a_browser_says_of_where_it_comes_from(site: str, refused: str | None) -> None:
    for method, path in (("GET", "/api/sessions"), ("GET", "/metrics"), ("DELETE", "/api/sessions/12345678")):
        assert judged(method, path, HOST, ("Sec-Fetch-Site", site)) == refused


def test_a_link_leads_to_the_page_and_to_nothing_else() -> None:
    visit = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]
    assert judged("GET", "/", HOST, *visit) is None
    assert judged("GET", "/api/sessions", HOST, *visit) == "403 foreign_origin"
    assert judged("POST", "/", HOST, JSON, *visit) == "403 foreign_origin"
    frame = [*visit[:2], ("Sec-Fetch-Dest", "iframe")]
    assert judged("GET", "/", HOST, *frame) == "403 foreign_origin"


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (f"Bearer {TOKEN}", None),
        (f"bearer  {TOKEN}", None),
        (f"Bearer {TOKEN}x", "401 no_token"),
        (f"Bearer {TOKEN[:-1]}", "401 no_token"),
        (f"Basic {TOKEN}", "401 no_token"),
        (TOKEN, "401 no_token"),
        ("Bearer ", "401 no_token"),
        ("Bearer \xe4\xff", "401 no_token"),
    ],
)
def test_the_token(given: str, refused: str | None) -> None:
    assert judged("GET", "/api/sessions", HOST, ("Authorization", given), token=Secret(TOKEN)) == refused


def test_a_token_that_was_read_with_the_end_of_its_line() -> None:
    bearer = ("Authorization", f"Bearer {TOKEN}")
    assert judged("GET", "/metrics", HOST, bearer, token=Secret(f"{TOKEN}\n")) is None


def test_what_is_asked_without_a_token() -> None:
    for path in ("/", "/health", "/ready"):
        assert judged("GET", path, HOST, token=Secret(TOKEN)) is None
        assert judged("DELETE", path, HOST, token=Secret(TOKEN)) == "401 no_token"
    for path in ("/metrics", "/api/openapi.json", "/api/events", "//", "/ready/"):
        assert judged("GET", path, HOST, token=Secret(TOKEN)) == "401 no_token"


def test_an_address_that_others_reach_needs_a_token() -> None:
    with pytest.raises(ValueError, match="needs a token"):
        AdminOptions(listen=AdminAddress("0.0.0.0:0"))
    with pytest.raises(ValueError, match="needs 16"):
        AdminOptions(token=Secret("short"))
    assert TOKEN not in repr(AdminOptions(token=Secret(TOKEN)))


async def test_refusals_as_they_are_told() -> None:
    async with watched_stand(admin={"token": TOKEN}) as (_, operator):
        operator.token = None
        reply = await operator.ask("/api/sessions")
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert (await reply.json())["reason"] == "no_token"
        reply = await operator.ask("/api/sessions", ("Host", "evil.com"))
        assert (reply.status, (await reply.json())["reason"]) == (403, "foreign_host")
        operator.token = TOKEN
        assert (await operator.get("/api/sessions"))["total"] == 0


async def test_nothing_happens_by_looking() -> None:
    """No path does anything on GET, whatever a page might put into an image's address."""
    async with watched_stand() as (rig, operator):
        await rig.client.initialize()
        handle = (rig.client.session_id or "")[:12]
        for path in (
            f"/api/sessions/{handle}?_method=DELETE",
            f"/api/sessions/{handle}/end",
            f"/api/sessions/{handle}",
        ):
            reply = await operator.ask(path, ("X-HTTP-Method-Override", "DELETE"))
            await reply.body()
        for method in ("POST", "PUT", "PATCH", "OPTIONS", "TRACE"):
            reply = await operator.ask(
                f"/api/sessions/{handle}", ("Content-Type", "application/json"), method=method
            )
            assert (reply.status, (await reply.json())["reason"]) == (405, "method_not_allowed")
        assert "result" in await rig.client.call()

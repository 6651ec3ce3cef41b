"""The page in a real browser: what it shows, that it runs nothing of what peers wrote, and that no other gets in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shadowcat.proxy.news import What
from tests.admin.kit import TOKEN, watched_stand
from tests.admin.test_held import waiting
from tests.rig.browser import browser
from tests.rig.client import rpc
from tests.rig.server import Call
from tests.rig.wire import Listener, Seen

HOSTILE = '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script>'


async def test_what_is_going_on_at_a_glance(tmp_path: Path) -> None:
    async with watched_stand(servers=2) as (rig, operator), browser(tmp_path / "profile") as chromium:

        @rig.server.on("tools/call")
        async def call(call: Call) -> None:
            stream = await call.stream()
            await stream.notify("notifications/message", {"level": "info", "data": 1}, id="1")
            await asyncio.wait((asyncio.ensure_future(call.seen.dropped.wait()),))

        await rig.client.initialize()
        first = rig.client.session_id or ""
        reply = await rig.client.begin("tools/call", {"name": "t"}, HOSTILE)
        await reply.message()
        info = {"name": HOSTILE, "version": "\u202e1\n2"}
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
        await (await rig.client.post(rpc("initialize", params, 1))).body()
        page = await chromium.page(operator.admin.url + "/")
        for text in (
            "ready",
            first[:12],
            HOSTILE[:60],
            "open, read, resumable",
            "answers, as far as known",
            "live",
        ):
            await page.shows(text)
        # What happens is there without a look.
        rig.proxy.shared.news.tell(What.UPSTREAM_TROUBLE, upstream="a", reason=HOSTILE)
        await page.shows("upstream.trouble")
        assert (await page.screenshot()).startswith(b"\x89PNG")
        assert await page.run("window.pwned") is None
        assert await page.run("document.querySelectorAll('img, iframe, main script, a').length") == 0
        assert page.complaints == []
        # Nothing comes from anywhere else, and what is asked changes nothing.
        assert {url.split("/")[2] for url in page.requested if not url.startswith("data:")} == {
            operator.admin.url.removeprefix("http://")
        }
        await rig.server.listener.close()
        await rig.servers[1].listener.close()
        for _ in range(2):
            await (await rig.client.post(rpc("initialize", params, 1))).body()
        await page.shows("not ready: no upstream reachable")
        await page.shows("connection refused for")
        reply.close()


async def test_who_opens_it_late_sees_what_happened_and_what_waits_for_somebody(tmp_path: Path) -> None:
    async with waiting() as held, browser(tmp_path) as chromium:
        page = await chromium.page(held.operator.admin.url + "/")
        await page.shows("session.opened")
        await page.shows("because")
        assert "canary" not in await page.text()
        assert page.complaints == []


async def test_its_policy_lets_nothing_in(tmp_path: Path) -> None:
    async with watched_stand() as (_, operator), browser(tmp_path) as chromium:
        page = await chromium.page(operator.admin.url + "/")
        tried = """
          (async () => {
            const outcomes = {};
            const attempt = async (name, act) => {
              try { await act(); outcomes[name] = "done"; } catch (error) { outcomes[name] = error.name; }
            };
            await attempt("markup", () => { document.body.innerHTML = "<img src=x onerror='window.pwned=1'>"; });
            await attempt("elsewhere", () => fetch("http://localhost:9/"));
            await attempt("script", () => new Promise((done, fail) => {
              const script = document.createElement("script");
              script.onload = done; script.onerror = () => fail(new TypeError());
              script.src = "data:text/javascript,window.pwned=2";
              document.head.append(script);
            }));
            return outcomes;
          })()
        """
        assert await page.run(tried) == {
            "markup": "TypeError",
            "elsewhere": "TypeError",
            "script": "TypeError",
        }
        assert await page.run("window.pwned") is None
        assert page.complaints


async def test_the_token_is_asked_for(tmp_path: Path) -> None:
    async with watched_stand(admin={"token": TOKEN}) as (rig, operator), browser(tmp_path) as chromium:
        await rig.client.initialize()
        page = await chromium.page(operator.admin.url + "/")
        await page.shows("The admin token:")
        handle = (rig.client.session_id or "")[:12]
        assert handle not in await page.text()
        fill = "document.getElementById('token').value = {!r}; document.querySelector('#ask button').click();"
        await page.run(fill.format("not the token at all"))
        await page.shows("that is not the token")
        await page.run(fill.format(TOKEN))
        await page.shows(handle)
        await page.shows("live")
        assert "The admin token:" not in await page.text()
        # It is kept nowhere.
        kept = "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, location.href])"
        assert TOKEN not in await page.run(kept)
        assert TOKEN not in await page.run("document.documentElement.outerHTML")


TRIED = """
(async () => {
  const there = THERE, session = there + "/api/sessions/" + HANDLE;
  const outcomes = {};
  const attempt = async (name, act) => {
    try { outcomes[name] = await act(); } catch (error) { outcomes[name] = error.name; }
  };
  await attempt("read", async () => (await fetch(there + "/api/sessions")).status);
  await attempt("end", async () => (await fetch(session, { method: "DELETE" })).status);
  await attempt("blind", async () => (await fetch(session, { method: "POST", mode: "no-cors",
    headers: { "Content-Type": "text/plain" }, body: "{}" })).type);
  await attempt("image", () => new Promise((done) => {
    const image = new Image();
    image.onload = () => done("loaded"); image.onerror = () => done("not loaded");
    image.src = session + "?_method=DELETE";
  }));
  await attempt("feed", () => new Promise((done) => {
    const feed = new EventSource(there + "/api/events");
    feed.onopen = () => done("open"); feed.onerror = () => { feed.close(); done("not open"); };
  }));
  await attempt("form", () => new Promise((done) => {
    const form = document.createElement("form");
    form.action = session; form.method = "POST"; form.target = "there";
    document.body.append(form);
    document.querySelector("iframe").onload = () => done("answered");
    form.submit();
  }));
  return outcomes;
})()
"""
"""What a page can do to another without its consent."""


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_a_page_of_somebody_elses(tmp_path: Path, name: str) -> None:
    """On another port of the same machine it is even the same site, and still not let in."""

    async def serve(seen: Seen) -> None:
        await seen.respond(200, b"<!doctype html><iframe name=there></iframe>", "text/html")

    async with watched_stand() as (rig, operator), browser(tmp_path) as chromium:
        await rig.client.initialize()
        handle = (rig.client.session_id or "")[:12]
        elsewhere = Listener(serve)
        await elsewhere.open()
        try:
            page = await chromium.page(f"http://{name}:{elsewhere.port}/")
            names = f"const THERE = {operator.admin.url!r}, HANDLE = {handle!r};"
            assert await page.run(names + TRIED) == {
                "read": "TypeError",
                "end": "TypeError",
                "blind": "TypeError",
                "image": "not loaded",
                "feed": "not open",
                "form": "answered",
            }
        finally:
            await elsewhere.close()
        # It was answered, with a refusal: nobody was let in, and nothing was done.
        assert (await operator.metrics())["shadowcat_sessions_ended_total"] == 0.0
        assert len(operator.admin._feed) == 0
        assert "result" in await rig.client.call()

"""The web page: one file, which asks the API for what it shows."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from shadowcat.admin.answers import SECURE


async def show_page(request: Request) -> Response:
    page, policy = _page()
    return Response(page, headers={**SECURE, "Content-Security-Policy": policy}, media_type="text/html")


@cache
def _page() -> tuple[str, str]:
    """The page, and the policy that lets it run its own script and nothing else.

    Trusted types make it an error to take a text for markup, wherever in the script somebody tries.
    """
    text = files("shadowcat.admin").joinpath("page.html").read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash_of('script', text)}; style-src {_hash_of('style', text)}; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return text, policy


def _hash_of(element: str, text: str) -> str:
    (content,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"

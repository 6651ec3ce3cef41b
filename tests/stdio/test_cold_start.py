"""What is loaded before the first message passes: it is paid for with every window of an editor."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.rig.children import SPEAKER
from tests.stdio.editor import call

HEAVY = {
    "click", "httptools", "starlette", "pathlib", "uvicorn", "redis", "sqlite3", "prometheus_client", "anyio",
    "email", "http", "urllib.request", "typing_extensions", "importlib.metadata", "opentelemetry",
}  # fmt: skip
OURS = {
    "shadowcat.http",
    "shadowcat.stores",
    "shadowcat.admin",
    "shadowcat.proxy.pipeline",
    "shadowcat.cli.group",
}
PROGRAM = """
import sys, atexit
sys.argv = ["shadowcat", *sys.argv[1:]]
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
from shadowcat.cli import run
run()
"""


def test_what_is_loaded() -> None:
    arguments = ("forward", "stdio", "--", sys.executable, SPEAKER)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        input=call(1, "pid"),
        capture_output=True,
        timeout=30,
        env={name: value for name, value in os.environ.items() if not name.startswith("SHADOWCAT_")},
    )
    assert (run.returncode, run.stdout.count(b"\n")) == (0, 1), run.stderr
    loaded = run.stderr.decode().split()
    assert [name for name in loaded if name in HEAVY | OURS] == []
    assert len([name for name in loaded if name.startswith("shadowcat.")]) < 35

"""The peers from npm: SDK clients, the Inspector, the conformance suite.

`python -m tests.provision npm` installs what tests/peers/package-lock.json names; `python -m tests.npm` makes that
lock from package.json anew.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests import needs

SECONDS = 600
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
# Without a network npm waits minutes for it by default.
BRISK = ("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")


def install() -> str | None:
    """Makes .venv/peers what the lock says; why it could not, or None."""
    needs.PEERS.mkdir(parents=True, exist_ok=True)
    needs.PEERS_STAMP.unlink(missing_ok=True)
    digest = needs.peers_digest()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(needs.PEERS_LOCK.with_name(name), needs.PEERS / name)
    failure = _npm(needs.PEERS, "ci")
    if failure is None:
        needs.PEERS_STAMP.write_text(digest)
    return failure


def lock() -> str | None:
    """Resolves the newest releases that package.json allows; why it could not, or None."""
    needs.PEERS_LOCK.unlink(missing_ok=True)
    failure = _npm(
        needs.PEERS_LOCK.parent, "install", "--package-lock-only", "--omit-lockfile-registry-resolved"
    )
    if failure is None:
        tree = json.loads(needs.PEERS_LOCK.read_text("utf-8"))
        for package in tree["packages"].values():
            _only_what_installs(package)
        needs.PEERS_LOCK.write_text(json.dumps(tree, indent=2) + "\n", "utf-8")
    return failure


def _only_what_installs(package: dict[str, Any]) -> None:
    """Addresses of sponsors and words on licences are no part of what is installed."""
    for key in ("funding", "license", "deprecated"):
        package.pop(key, None)


def _npm(directory: Path, *arguments: str) -> str | None:
    node = needs.find_node()
    if node is None:
        return "there is no Node.js in the environment"
    # The npm that comes with this Node.js, and this Node.js for what npm itself starts.
    cli = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    path = os.pathsep.join([str(node.parent), os.environ.get("PATH", os.defpath)])
    try:
        done = subprocess.run(
            [node, cli, *arguments, *QUIET, *BRISK],
            cwd=directory,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"npm did not end within {SECONDS} s"
    if done.returncode == 0:
        return None
    return f"npm failed: {_reason(done.stderr)}"


def _reason(stderr: str) -> str:
    """npm's last lines tell where its log is, the first ones what went wrong."""
    errors = [
        line.removeprefix("npm error ") for line in stderr.splitlines() if line.startswith("npm error ")
    ]
    if not errors or "Exit handler never called" in errors[0]:
        # npm 10 falls over its own feet when several downloads fail at once.
        return "it gave no reason, as when it cannot reach its registry"
    return ", ".join(errors[:2])


if __name__ == "__main__":
    raise SystemExit(lock())

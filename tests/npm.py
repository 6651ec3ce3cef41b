"""Packages from npm: SDK clients, the Inspector and the conformance suite for tests; other bridges for benchmarks.

`python -m tests.provision npm` installs what tests/peers/package-lock.json names, `python -m bench.provision` what
bench/bridges/package-lock.json does; `python -m tests.npm` makes both locks from their package.json anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests import needs

SECONDS = 600
QUIET = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
# Without a network npm waits minutes for it by default.
BRISK = ("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")


class Packages(NamedTuple):
    """What a package-lock.json names, and where it is installed."""

    lock: Path
    home: Path

    @property
    def _stamp(self) -> Path:
        return self.home / "installed"

    def _digest(self) -> str:
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()

    def are_there(self) -> bool:
        return self._stamp.exists() and self._stamp.read_text() == self._digest()

    def install(self) -> str | None:
        """Makes them what the lock says; why it could not, or None."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._stamp.unlink(missing_ok=True)
        digest = self._digest()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(self.lock.with_name(name), self.home / name)
        failure = _npm(self.home, "ci")
        if failure is None:
            self._stamp.write_text(digest)
        return failure

    def resolve(self) -> str | None:
        """The newest releases that package.json allows into the lock; why it could not, or None."""
        self.lock.unlink(missing_ok=True)
        failure = _npm(
            self.lock.parent, "install", "--package-lock-only", "--omit-lockfile-registry-resolved"
        )
        if failure is None:
            tree = json.loads(self.lock.read_text("utf-8"))
            for package in tree["packages"].values():
                _only_what_installs(package)
            self.lock.write_text(json.dumps(tree, indent=2) + "\n", "utf-8")
        return failure


def peers() -> Packages:
    return Packages(needs.PEERS_LOCK, needs.PEERS)


BRIDGES = Packages(needs.ROOT / "bench" / "bridges" / "package-lock.json", needs.ROOT / ".venv" / "bridges")


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
    raise SystemExit(peers().resolve() or BRIDGES.resolve())

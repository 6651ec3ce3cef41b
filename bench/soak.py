"""`python -m bench.soak`: the tests that have a long form, with the whole counts; arguments go to pytest."""

from __future__ import annotations

import os
import subprocess
import sys

from bench.machine import ROOT


def main(arguments: list[str]) -> int:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--durations=0",
        "--durations-min=1",
        "-m",
        "soak",
        *arguments,
    ]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "SHADOWCAT_SOAK": "1"}, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

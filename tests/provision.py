"""Installs the named programs where it can: `python -m tests.provision redis-server nginx faketime npm`.

`npm` stands for the packages that tests/peers names.

It ends well even when something is missing: the tests that need it say so themselves, by skip or by failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests import needs, npm

APT_SECONDS = 600


def main(names: list[str]) -> None:
    _programs([name for name in names if name != "npm"])
    if "npm" in names:
        _npm_packages()


def _npm_packages() -> None:
    if needs.have_peers():
        return
    failure = npm.peers().install()
    if failure is None:
        print("provision: installed the npm packages of tests/peers")
    else:
        print(f"provision: no npm packages: {failure}; what needs them will {_consequence()}")


def _programs(names: list[str]) -> None:
    absent = [name for name in names if needs.find(name) is None]
    if not absent:
        return
    why_not = _why_no_apt()
    if why_not is None:
        # A failed update is no reason to stop: the package lists that are there may do.
        _apt_get("update")
    for name in absent:
        # One at a time, so that a package that cannot be had does not keep the others away.
        failure = why_not or _apt_get("install", "--yes", "--no-install-recommends", name)
        if needs.find(name):
            print(f"provision: installed {name}")
        else:
            print(f"provision: no {name}: {failure}; what needs it will {_consequence()}")


def _why_no_apt() -> str | None:
    if shutil.which("apt-get") is None:
        return "there is no apt-get here"
    if os.geteuid() != 0:
        return "only root can install it with apt-get"
    return None


def _apt_get(*arguments: str) -> str:
    """Runs apt-get and says in a few words how it ended; Debian's packages have the names of their programs."""
    try:
        done = subprocess.run(
            ["apt-get", "-qq", *arguments],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=APT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"apt-get {arguments[0]} did not end within {APT_SECONDS} s"
    if done.returncode == 0:
        return "apt-get installed its package, but the program is not found"
    return f"apt-get failed: {(done.stderr.strip().splitlines() or ['it gave no reason'])[-1]}"


def _consequence() -> str:
    return "fail" if needs.all_required() else "be skipped"


if __name__ == "__main__":
    main(sys.argv[1:])

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import needs, provision


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any program; returns the one directory that is searched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(needs, "SBIN", ())
    monkeypatch.delenv("SHADOWCAT_TEST_ALL", raising=False)
    return tmp_path


def put(directory: Path, name: str) -> Path:
    program = directory / name
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_a_program_on_the_path_is_found(bare_machine: Path) -> None:
    program = put(bare_machine, "nginx")
    assert needs.nginx() == program


def test_a_program_outside_the_path_is_found_in_sbin(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sbin = bare_machine / "sbin"
    sbin.mkdir()
    program = put(sbin, "redis-server")
    monkeypatch.setattr(needs, "SBIN", (str(sbin),))
    assert needs.redis_server() == program


@pytest.mark.usefixtures("bare_machine")
def test_a_missing_program_skips() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"^redis-server is not installed$"):
        needs.redis_server()


@pytest.mark.usefixtures("bare_machine")
def test_a_missing_program_fails_when_everything_must_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWCAT_TEST_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match=r"^redis-server is not installed \(SHADOWCAT"):
        needs.redis_server()


def test_node_is_the_one_of_the_lock() -> None:
    version = subprocess.run([needs.node(), "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("v22.")


@pytest.mark.usefixtures("bare_machine")
@pytest.mark.parametrize(("every", "consequence"), [("", "be skipped"), ("1", "fail")])
def test_provision_says_what_it_could_not_provide(
    every: str,
    consequence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SHADOWCAT_TEST_ALL", every)
    provision.main(["nginx"])
    assert capsys.readouterr().out == (
        f"provision: no nginx: there is no apt-get here; what needs it will {consequence}\n"
    )


def test_provision_tells_why_apt_get_failed(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bare_machine, "apt-get").write_text("#!/bin/sh\necho 'E: no such package' >&2\nexit 100\n")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    provision.main(["wrk"])
    assert "no wrk: apt-get failed: E: no such package;" in capsys.readouterr().out


def test_provision_installs_what_it_can(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nginx = bare_machine / "nginx"
    put(bare_machine, "apt-get").write_text(
        f"#!/bin/sh\nfor last; do :; done\n[ $last = nginx ] || exit 1\n: > {nginx}\n/bin/chmod +x {nginx}\n"
    )
    monkeypatch.setattr("os.geteuid", lambda: 0)
    provision.main(["wrk", "nginx"])
    assert capsys.readouterr().out == (
        "provision: no wrk: apt-get failed: it gave no reason; what needs it will be skipped\n"
        "provision: installed nginx\n"
    )


def test_provision_leaves_apt_get_to_root(
    bare_machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bare_machine, "apt-get")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    provision.main(["wrk"])
    assert "only root can install it" in capsys.readouterr().out


def test_provision_is_silent_when_nothing_is_missing(
    bare_machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bare_machine, "nginx")
    provision.main(["nginx"])
    assert capsys.readouterr().out == ""


@pytest.fixture
def other_peers(bare_machine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the npm packages; returns where they go."""
    lock = bare_machine / "source" / "package-lock.json"
    lock.parent.mkdir()
    lock.write_text('{"lockfileVersion": 3, "packages": {"": {}}}')
    lock.with_name("package.json").write_text("{}")
    monkeypatch.setattr(needs, "PEERS_LOCK", lock)
    monkeypatch.setattr(needs, "PEERS", bare_machine / "peers")
    monkeypatch.setattr(needs, "PEERS_STAMP", bare_machine / "peers" / "installed")
    return bare_machine / "peers"


@pytest.mark.usefixtures("other_peers")
def test_missing_npm_packages_skip() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"^the npm packages of tests/peers are not installed$"):
        needs.peers()


def test_npm_packages_are_installed_once_for_each_lock(
    other_peers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    provision.main(["npm"])
    provision.main(["npm"])
    assert capsys.readouterr().out == "provision: installed the npm packages of tests/peers\n"
    assert needs.peers() == other_peers / "node_modules"
    needs.PEERS_LOCK.write_text("{}")
    assert not needs.have_peers()


@pytest.mark.usefixtures("other_peers")
def test_provision_says_what_npm_could_not_provide(capsys: pytest.CaptureFixture[str]) -> None:
    needs.PEERS_LOCK.with_name("package.json").write_text("no JSON")
    provision.main(["npm"])
    out = capsys.readouterr().out
    assert out.startswith("provision: no npm packages: npm failed: code EJSONPARSE, ")
    assert out.endswith("; what needs them will be skipped\n")
    assert not needs.have_peers()

"""What a child's environment is made of."""

from __future__ import annotations

from shadowcat.upstream.command import Command

OURS = {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "LCX": "no", "AWS_SECRET": "no", "PYTHONPATH": "no"}


def test_only_what_is_harmless_is_passed_on() -> None:
    assert Command(("c",)).environment(OURS) == {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C"}


def test_what_is_given_wins() -> None:
    command = Command(("c",), {"HOME": "/there", "PYTHONPATH": "/lib"})
    assert command.environment(OURS) == {
        "PATH": "/bin",
        "HOME": "/there",
        "LC_ALL": "C",
        "PYTHONPATH": "/lib",
    }

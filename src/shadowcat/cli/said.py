"""Prints for programs that go on when nobody reads any more: the terminal was closed, the pipe has enough."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

import click


def say(line: str) -> None:
    try:
        click.echo(line)
    except OSError:
        nobody_reads()


@contextmanager
def until_enough() -> Generator[None]:
    """For what is of use only to a reader: it ends well when there is none any more."""
    try:
        yield
    except BrokenPipeError:
        nobody_reads()
        sys.exit(0)


def nobody_reads() -> None:
    """Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

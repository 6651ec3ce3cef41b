"""What is printed by a program that goes on when nobody reads it any more: a terminal was closed, a pipe has enough."""

from __future__ import annotations

import os
import sys

import click


def say(line: str) -> None:
    try:
        click.echo(line)
    except OSError:
        nobody_reads()


def nobody_reads() -> None:
    """Python would complain once more when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

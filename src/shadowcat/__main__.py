"""`python -m shadowcat`."""

from shadowcat.cli import run

run()

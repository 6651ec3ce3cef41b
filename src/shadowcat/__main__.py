"""`python -m shadowcat`."""

from shadowcat.cli import main

main()

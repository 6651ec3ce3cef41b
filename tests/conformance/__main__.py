"""Every variant of the fixture server in every revision: `make conformance`."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import click

from shadowcat.app.process import run
from tests import needs
from tests.conformance import verdict
from tests.conformance.suite import REVISIONS, VARIANTS


@click.command()
@click.option("--revision", "revisions", type=click.Choice(list(REVISIONS)), multiple=True)
@click.option("--variant", "variants", type=click.Choice(VARIANTS), multiple=True)
@click.option("--keep", type=click.Path(path_type=Path), help="Directory to keep logs and records in.")
def main(revisions: tuple[str, ...], variants: tuple[str, ...], keep: Path | None) -> None:
    """Compare the official conformance suite direct and through the proxy."""
    if not needs.have_peers():
        raise click.ClickException("the npm packages of tests/peers are not installed")
    pairs = [
        (variant, revision)
        for revision, suite in REVISIONS.items()
        for variant in suite.variants
        if variant in (variants or VARIANTS) and revision in (revisions or REVISIONS)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        passed = run(_compare(pairs, keep or Path(scratch)))
    raise SystemExit(0 if passed else 1)


async def _compare(pairs: list[tuple[str, str]], out: Path) -> bool:
    passed = True
    for variant, revision in pairs:
        found = await verdict.run(variant, revision, out / f"{revision}-{variant}")
        click.echo(f"{revision:<11} {variant:<10} {found.same:>2} of {found.scenarios} scenarios the same")
        for why, count in Counter(entry.why for entry in found.explained).items():
            click.echo(f"    expected, {count} {'check' if count == 1 else 'checks'}: {why}")
        for problem in found.problems:
            click.echo(f"    PROBLEM: {problem}")
        passed = passed and not found.problems
    return passed


if __name__ == "__main__":
    main()

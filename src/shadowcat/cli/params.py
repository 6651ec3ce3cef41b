"""Types of command line values, with errors that a person can act on."""

from __future__ import annotations

import re

import click


class Variable(click.ParamType[tuple[str, str]]):
    """`NAME=VALUE`."""

    name = "variable"

    def convert(
        self, value: str | tuple[str, str], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # Not repeated in full: it may hold a secret.
            self.fail("a variable is written NAME=VALUE", param, ctx)
        return name, text


VARIABLE = Variable()

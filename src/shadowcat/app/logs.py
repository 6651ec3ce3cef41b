"""How the log is written."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

from msgspec import Meta, Struct

log = logging.getLogger("shadowcat")


class LogOptions(Struct, frozen=True):
    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="What is worth a line.")
    ] = "info"


def set_up(options: LogOptions) -> None:
    logging.basicConfig(level=options.level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")

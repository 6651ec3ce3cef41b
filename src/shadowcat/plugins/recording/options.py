"""The options of a recording."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_MIB = 1024 * 1024


class RecordOptions(msgspec.Struct, frozen=True, kw_only=True):
    directory: Annotated[
        str,
        Meta(
            title="the path of a directory",
            min_length=1,
            description="Record messages to tapes in this directory, with secrets cut out. If it does not "
            "exist, it is created for its owner alone.",
        ),
    ]
    redact_keys: Annotated[
        tuple[str, ...], Meta(description="Keys whose values are secrets, in addition to the usual ones.")
    ] = ()
    part_bytes: Annotated[
        int, Meta(ge=1024, description="The size at which a tape is closed and the next one begun.")
    ] = 64 * _MIB
    part_s: Annotated[
        float, Meta(gt=0, description="The age at which a tape is closed and the next one begun.")
    ] = 3_600.0
    total_bytes: Annotated[
        int,
        Meta(
            ge=2048,
            description="The size of all tapes in the directory; the oldest are removed to stay below it.",
        ),
    ] = 1024 * _MIB
    queue_bytes: Annotated[
        int,
        Meta(ge=1024, description="How much may wait to be written; anything more is left out and counted."),
    ] = 64 * _MIB
    ring_s: Annotated[
        float,
        Meta(
            ge=0,
            description="If set, keep this many seconds of messages in memory, and write them only when "
            "something goes wrong.",
        ),
    ] = 0.0
    ring_bytes: Annotated[
        int, Meta(ge=1024, description="How much memory that may take; the oldest messages are dropped.")
    ] = 32 * _MIB
    slow_call_s: Annotated[
        float,
        Meta(
            ge=0,
            description="With a ring: an answer that takes longer counts as something going wrong; 0 for "
            "never.",
        ),
    ] = 0.0

    def __post_init__(self) -> None:
        if self.total_bytes < 2 * self.part_bytes:
            raise ValueError("total_bytes must hold two parts: it is less than twice part_bytes")
        if self.slow_call_s and not self.ring_s:
            raise ValueError("slow_call_s is for a recording with ring_s")

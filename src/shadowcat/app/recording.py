"""Recording, if requested: starts before the traffic and ends after it."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from shadowcat.errors import CannotRecord
from shadowcat.plugins.recording.options import RecordOptions
from shadowcat.plugins.recording.recorder import Recorder


@contextmanager
def recording(
    options: RecordOptions | None, clients: str, upstreams: Mapping[str, str]
) -> Generator[Sequence[Recorder]]:
    """The taps of a proxy. Raises `CannotRecord`."""
    if options is None:
        yield ()
        return
    # Here, because it brings the parsing of e-mails along.
    from importlib.metadata import version

    program = f"shadowcat {version('shadowcat')}"
    recorder = Recorder(options, clients=clients, upstreams=upstreams, program=program)
    try:
        recorder.start()
    except OSError as error:
        raise CannotRecord(f"{error.filename or options.directory}: {error.strerror or error}") from error
    try:
        yield (recorder,)
    finally:
        recorder.close()

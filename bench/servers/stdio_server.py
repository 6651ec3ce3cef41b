"""A server on stdio that does nothing but answer, and starts at once: it is never what is measured.

`stdio_server.py [CORE]…` runs on those cores, whoever started it.
"""

from __future__ import annotations

import os
import re
import sys

_RESULT = b'{"jsonrpc":"2.0","id":%b,"result":{"content":[{"type":"text","text":"hello"}]}}\n'
_INITIALIZED = (
    b'{"jsonrpc":"2.0","id":%b,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},'
    b'"serverInfo":{"name":"bench","version":"1"}}}\n'
)
_ID = re.compile(rb'"id":\s*([0-9]+|"[^"]*")')


def main() -> None:
    if cores := [int(core) for core in sys.argv[1:]]:
        os.sched_setaffinity(0, cores)
    read, write, flush = sys.stdin.buffer.readline, sys.stdout.buffer.write, sys.stdout.buffer.flush
    while line := read():
        found = _ID.search(line)
        if found is None:
            continue
        write((_INITIALIZED if b'"initialize"' in line else _RESULT) % found[1])
        flush()


if __name__ == "__main__":
    main()

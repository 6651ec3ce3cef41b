"""Whether a port speaks TLS or plain HTTP, whatever the URL says: the wrong one seldom gets an answer."""

from __future__ import annotations

import asyncio
import ssl

_ANSWER_S = 3.0


async def speaks_tls(host: str, port: int) -> bool:
    """Whoever it is: no certificate is looked at."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_ANSWER_S):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
            writer.transport.abort()
    except (OSError, TimeoutError):
        return False
    return True


async def speaks_http(host: str, port: int) -> bool:
    """Without TLS."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(
                    b"HEAD / HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % host.encode("idna")
                )
                return (await reader.read(5)).startswith(b"HTTP/")
            finally:
                writer.transport.abort()
    except (OSError, ValueError, TimeoutError):
        return False

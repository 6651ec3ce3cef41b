"""Every request that the engine answers itself: its status, and that nothing of it got through."""

from __future__ import annotations

import random

import pytest

from shadowcat.http.flow import Sweeper
from shadowcat.http.limits import KIB, MIB, ServerLimits
from tests.http.kit import GET, Recorder, serving, wire_to


def with_fields(
    *lines: bytes, method: bytes = b"GET", target: bytes = b"/", version: bytes = b"1.1"
) -> bytes:
    """A head of these lines and nothing else, not even Host."""
    return b"\r\n".join((method + b" " + target + b" HTTP/" + version, *lines)) + b"\r\n\r\n"


def with_length(*lines: bytes) -> bytes:
    return with_fields(b"host: a", *lines, method=b"POST") + b"hello"


def with_coding(*lines: bytes, version: bytes = b"1.1") -> bytes:
    return with_fields(b"host: a", *lines, method=b"POST", version=version) + b"5\r\nhello\r\n0\r\n\r\n"


def with_chunks(chunks: bytes) -> bytes:
    return with_fields(b"host: a", b"transfer-encoding: chunked", method=b"POST") + chunks


LENGTHS = {
    "length and coding": with_coding(b"content-length: 5", b"transfer-encoding: chunked"),
    "coding and length": with_coding(b"transfer-encoding: chunked", b"content-length: 5"),
    "length twice": with_length(b"content-length: 5", b"content-length: 5"),
    "two lengths": with_length(b"content-length: 5", b"content-length: 6"),
    "length as a list": with_length(b"content-length: 5, 5"),
    "length with a plus": with_length(b"content-length: +5"),
    "length with a minus": with_length(b"content-length: -5"),
    "length in hex": with_length(b"content-length: 0x5"),
    "length in two words": with_length(b"content-length: 5 5"),
    "empty length": with_length(b"content-length:"),
    "blank length": with_length(b"content-length: "),
    "length of 2^70": with_length(b"content-length: 1180591620717411303424"),
    "length of 5000 digits": with_length(b"content-length: " + b"9" * 5000),
    "folded length": with_length(b"content-length: 5", b" 5"),
    "length in a trailer": with_chunks(b"5\r\nhello\r\n0\r\ncontent-length: 5\r\n\r\n"),
}
CODINGS = {
    "coding after a comma": with_coding(b"transfer-encoding: ,chunked"),
    "coding before a comma": with_coding(b"transfer-encoding: chunked,"),
    "gzip, chunked": with_coding(b"transfer-encoding: gzip, chunked"),
    "chunked, gzip": with_coding(b"transfer-encoding: chunked, gzip"),
    "chunked, chunked": with_coding(b"transfer-encoding: chunked, chunked"),
    "coding twice": with_coding(b"transfer-encoding: chunked", b"transfer-encoding: chunked"),
    "chunked, then identity": with_coding(b"transfer-encoding: chunked", b"transfer-encoding: identity"),
    "identity, then chunked": with_coding(b"transfer-encoding: identity", b"transfer-encoding: chunked"),
    "identity": with_coding(b"transfer-encoding: identity"),
    "unknown coding": with_coding(b"transfer-encoding: xchunked"),
    "quoted coding": with_coding(b'transfer-encoding: "chunked"'),
    "coding after a tab": with_coding(b"transfer-encoding: \x0bchunked"),
    "empty coding": with_coding(b"transfer-encoding:"),
    "folded coding": with_coding(b"transfer-encoding:", b" chunked"),
    "coding on HTTP/1.0": with_coding(b"transfer-encoding: chunked", version=b"1.0"),
}
CHUNKS = {
    "chunk size in 0x": with_chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a plus": with_chunks(b"+5\r\nhello\r\n0\r\n\r\n"),
    "chunk size with a minus": with_chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
    "chunk size after a space": with_chunks(b" 5\r\nhello\r\n0\r\n\r\n"),
    "chunk size before a space": with_chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk size with an underscore": with_chunks(b"0_5\r\nhello\r\n0\r\n\r\n"),
    "no chunk size": with_chunks(b"\r\nhello\r\n0\r\n\r\n"),
    "chunk size is no number": with_chunks(b"g\r\nhello\r\n0\r\n\r\n"),
    "chunk size of 2^72": with_chunks(b"ffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    "chunk size before LF": with_chunks(b"5\nhello\r\n0\r\n\r\n"),
    "chunk size before CR CR LF": with_chunks(b"5\r\r\nhello\r\n0\r\n\r\n"),
    "CR in a chunk extension": with_chunks(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    "LF in a chunk extension": with_chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "NUL in a chunk extension": with_chunks(b"5;a\0b\r\nhello\r\n0\r\n\r\n"),
    "line end in a quoted chunk extension": with_chunks(b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n'),
    "chunk extension of 64 KiB": with_chunks(b"5;" + b"a" * 64 * KIB + b"\r\nhello\r\n0\r\n\r\n"),
    "chunk longer than its size": with_chunks(b"5\r\nhello, world\r\n0\r\n\r\n"),
    "chunk not ended by CRLF": with_chunks(b"5\r\nhelloXX0\r\n\r\n"),
    "chunk ended by LF": with_chunks(b"5\r\nhello\n0\r\n\r\n"),
    "chunk ended by CR": with_chunks(b"5\r\nhello\r0\r\n\r\n"),
    "last chunk ended by LF": with_chunks(b"5\r\nhello\r\n0\n\r\n"),
    "trailers ended by LF": with_chunks(b"5\r\nhello\r\n0\r\n\n"),
    "space before a trailer's colon": with_chunks(b"5\r\nhello\r\n0\r\nx : y\r\n\r\n"),
    "unended trailer of 64 KiB": with_chunks(b"5\r\nhello\r\n0\r\nx: " + b"y" * 64 * KIB),
}
FIELDS = {
    "lines ended by LF": b"GET / HTTP/1.1\nhost: a\n\n",
    "field ended by LF": with_fields(b"host: a\nx: y"),
    "head ended by LF": b"GET / HTTP/1.1\r\nhost: a\r\n\n",
    "CR in a value": with_fields(b"host: a", b"x: a\rb"),
    "CR at the end of a value": with_fields(b"host: a", b"x: a\r"),
    "NUL in a value": with_fields(b"host: a", b"x: a\0b"),
    "NUL in a name": with_fields(b"host: a", b"x\0: a"),
    "control character in a value": with_fields(b"host: a", b"x: \x01"),
    "DEL in a value": with_fields(b"host: a", b"x: \x7f"),
    "umlaut in a name": with_fields(b"host: a", b"x\xe4: a"),
    "space before the colon": with_fields(b"host: a", b"x : a"),
    "space before Host's colon": with_fields(b"host : a"),
    "tab before the colon": with_fields(b"host: a", b"x\t: a"),
    "no colon": with_fields(b"host: a", b"x"),
    "no name": with_fields(b"host: a", b": x"),
    "folded field": with_fields(b"host: a", b"x: a", b" b"),
    "field folded by a tab": with_fields(b"host: a", b"x: a", b"\tb"),
    "space before the first field": with_fields(b" host: a"),
}
HOSTS = {
    "Host missing": with_fields(b"x: y"),
    "no field at all": with_fields(),
    "Host doubled": with_fields(b"host: a", b"host: a"),
    "two Hosts": with_fields(b"host: a", b"Host: b"),
    "Host as a list": with_fields(b"host: a, b"),
    "Host with a path": with_fields(b"host: a/b"),
    "Host with a user": with_fields(b"host: u@a"),
    "Host with a space": with_fields(b"host: a b"),
    "Host with a query": with_fields(b"host: a?b"),
    "empty Host": with_fields(b"host:"),
    "Host with a long port": with_fields(b"host: a:123456"),
    "Host with half a bracket": with_fields(b"host: [::1"),
    "Host doubled on HTTP/1.0": with_fields(b"host: a", b"host: a", version=b"1.0"),
}
LINES = {
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/0.9 by name": with_fields(b"host: a", version=b"0.9"),
    "HTTP/2.0 as text": with_fields(b"host: a", version=b"2.0"),
    "HTTP/3.0 as text": with_fields(b"host: a", version=b"3.0"),
    "HTTP/1.2": with_fields(b"host: a", version=b"1.2"),
    "HTTP/1.10": with_fields(b"host: a", version=b"1.10"),
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "unknown method": with_fields(b"host: a", method=b"BREW"),
    "method in lower case": with_fields(b"host: a", method=b"get"),
    "space in the target": with_fields(b"host: a", target=b"/a b"),
    "NUL in the target": with_fields(b"host: a", target=b"/a\0b"),
    "byte above ASCII in the target": with_fields(b"host: a", target=b"/\xff"),
    "target without a slash": with_fields(b"host: a", target=b"a"),
    "asterisk for GET": with_fields(b"host: a", target=b"*"),
    "space after the version": b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n",
    "tabs in the first line": b"GET\t/\tHTTP/1.1\r\nhost: a\r\n\r\n",
}
CASES = {name: (400, raw) for name, raw in (LENGTHS | CODINGS | CHUNKS | FIELDS | HOSTS | LINES).items()} | {
    "CONNECT": (405, with_fields(b"host: a:443", method=b"CONNECT", target=b"a:443")),
    "TRACE": (405, with_fields(b"host: a", method=b"TRACE")),
    "PROPFIND": (501, with_fields(b"host: a", method=b"PROPFIND")),
    "URL of another host": (421, with_fields(b"host: a", target=b"http://b/")),
    "URL of another port": (421, with_fields(b"host: a", target=b"http://a:81/")),
    "URL with a user": (421, with_fields(b"host: a", target=b"http://u@a/")),
    "header of 32 KiB": (431, with_fields(b"host: a", b"x: " + b"y" * 32 * KIB)),
    "header of 1 MiB": (431, with_fields(b"host: a", b"x: " + b"y" * MIB)),
    "headers of 33 KiB": (431, with_fields(b"host: a", *[b"x: " + b"y" * 1020] * 33)),
    "name of 32 KiB": (431, with_fields(b"host: a", b"x" * 32 * KIB + b": y")),
    "unended header of 64 KiB": (431, b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 64 * KIB),
    "101 headers": (431, with_fields(b"host: a", *[b"x: y"] * 100)),
    "100,000 headers": (431, with_fields(b"host: a", *[b"x: y"] * 100_000)),
    "101 headers and trailers": (
        431,
        with_chunks(b"0\r\n" + b"x: y\r\n" * 99 + b"\r\n"),
    ),
    "URL of 8 KiB and a byte": (414, with_fields(b"host: a", target=b"/" + b"a" * 8 * KIB)),
    "URL of 1 MiB": (414, with_fields(b"host: a", target=b"/" + b"a" * MIB)),
    "body of 4 MiB and a byte": (413, with_length(b"content-length: %d" % (4 * MIB + 1))),
    "chunk of 4 MiB and a byte": (413, with_chunks(b"400001\r\n" + b"x" * (4 * MIB + 1))),
    "gzip body": (415, with_length(b"content-length: 5", b"content-encoding: gzip")),
    "body encoded twice": (415, with_length(b"content-length: 5", b"content-encoding: identity, gzip")),
    "unknown expectation": (417, with_length(b"content-length: 5", b"expect: 200-ok")),
}
named = pytest.mark.parametrize(("status", "raw"), CASES.values(), ids=CASES)
SMALL = [case for case in CASES.values() if len(case[1]) < KIB]


@named
async def test_alone(status: int, raw: bytes) -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(raw)
        answer = await wire.answer()
        assert answer.status == status
        assert answer.closes
        assert await wire.rest() == b""
        assert handler.requests == []
        assert server.statistics().refused == 1


@named
async def test_behind_a_good_request(status: int, raw: bytes) -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(b"POST /good HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\ngood" + raw)
        good, bad = await wire.answer(), await wire.answer()
        assert (good.status, good.body, good.closes) == (200, b"good", False)
        assert (bad.status, bad.closes) == (status, True)
        assert await wire.rest() == b""
        assert handler.targets == [b"/good"]


@named
async def test_nothing_behind_it_is_served(status: int, raw: bytes) -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(raw + GET)
        assert (await wire.answer()).status == status
        assert await wire.rest() == b""
        assert handler.requests == []


@pytest.mark.parametrize("seed", range(8))
async def test_cut_anywhere(seed: int) -> None:
    """Each case in random pieces, on one server."""
    chance = random.Random(seed)
    handler = Recorder()
    async with serving(handler) as server:
        for status, raw in SMALL:
            cuts = sorted(chance.sample(range(len(raw)), min(len(raw), chance.randint(1, 12))))
            pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
            async with wire_to(server) as wire:
                await wire.send(*pieces)
                assert (await wire.answer()).status == status, raw
                assert await wire.rest() == b""
    assert handler.requests == []


@pytest.mark.parametrize(
    "name", ["length and coding", "chunk not ended by CRLF", "NUL in a value", "Host doubled"]
)
async def test_cut_at_every_byte(name: str) -> None:
    status, raw = CASES[name]
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(*(raw[i : i + 1] for i in range(len(raw))))
        assert (await wire.answer()).status == status
        assert await wire.rest() == b""
    assert handler.requests == []


# Just inside the limits.

ALLOWED = {
    "URL of 8 KiB": with_fields(b"host: a", target=b"/" + b"a" * (8 * KIB - 1)),
    "100 headers": with_fields(b"host: a", *[b"x: y"] * 99),
    "headers of 31 KiB": with_fields(b"host: a", *[b"x: " + b"y" * 1019] * 31),
    "white space around values": with_fields(b"host: \t a \t", b"x:y  "),
    "identity body": with_length(b"content-length: 5", b"content-encoding: identity"),
    "white space after a length": with_length(b"content-length: 5 "),
    "white space after a coding": with_coding(b"transfer-encoding: chunked "),
    "coding in capitals": with_coding(b"Transfer-Encoding: CHUNKED"),
    "own URL": with_fields(b"host: A", target=b"http://a/"),
    "empty lines before": b"\r\n\r\n" + GET,
    "trailers": with_chunks(b"5\r\nhello\r\n0\r\nx: y\r\n\r\n"),
    "chunk extension": with_chunks(b'5;a=b;c="d"\r\nhello\r\n0\r\n\r\n'),
    "IPv6 Host": with_fields(b"host: [::1]:8080"),
    "no Host on HTTP/1.0": with_fields(version=b"1.0"),
    "two-byte chunks": with_chunks(b"2\r\nab\r\n" * 50_000 + b"0\r\n\r\n"),
}


@pytest.mark.parametrize("raw", ALLOWED.values(), ids=ALLOWED)
async def test_allowed(raw: bytes) -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(raw)
        assert (await wire.answer()).status == 200
    assert len(handler.requests) == 1


async def test_a_body_of_exactly_4_mib_is_delivered() -> None:
    body = bytes(range(256)) * (16 * KIB)
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(with_fields(b"host: a", b"content-length: %d" % len(body), method=b"PUT") + body)
        assert (await wire.answer()).body == body


async def test_a_request_behind_a_large_one_is_not_taken_for_part_of_it() -> None:
    """What came in one read is counted for the request it belongs to."""
    handler = Recorder()
    large = with_fields(b"host: a", b"content-length: 200000", method=b"POST") + b"x" * 200_000
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(large + large + GET[:-2], GET[-2:])
        assert [len((await wire.answer()).body) for _ in range(3)] == [200_000, 200_000, 0]


async def test_white_space_around_values_is_not_part_of_them() -> None:
    handler = Recorder()
    async with serving(handler) as server, wire_to(server) as wire:
        await wire.send(with_fields(b"host: a ", b"x: \t y z \t", b"empty:", b"blank:  "))
        await wire.answer()
    assert list(handler.requests[0].headers) == [
        (b"host", b"a"),
        (b"x", b"y z"),
        (b"empty", b""),
        (b"blank", b""),
    ]


# Too slow.

HURRIED = ServerLimits(head_wait_s=0.2, body_wait_s=0.2, idle_s=0.2)


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HT",
        b"GET / HTTP/1.1\r\nhost: a\r\n",
        with_length(b"content-length: 6"),
        with_chunks(b"5\r\nhe"),
    ],
    ids=["first line", "fields", "body", "chunk"],
)
async def test_unfinished_request(raw: bytes) -> None:
    handler = Recorder()
    async with serving(handler, HURRIED) as server, wire_to(server) as wire:
        await wire.send(raw)
        answer = await wire.answer()
        assert (answer.status, answer.closes) == (408, True)
        assert await wire.rest() == b""
    assert handler.requests == []


@pytest.mark.parametrize(
    "raw",
    [b"GET / HTTP/1.1\r\nhost: a\r\nx: ", with_length(b"content-length: 1000000"), with_chunks(b"fffff\r\n")],
    ids=["head", "body", "chunk"],
)
async def test_dripping_request(raw: bytes) -> None:
    """Bytes that keep coming do not buy time."""
    handler = Recorder()
    async with serving(handler, HURRIED) as server, wire_to(server) as wire:
        await wire.send(raw)
        drip = Sweeper(lambda _: wire.writer.write(b"x"), 0.01)
        try:
            assert (await wire.answer()).status == 408
        finally:
            drip.close()
        assert await wire.rest() == b""
    assert handler.requests == []


@pytest.mark.parametrize("raw", [b"", b"\r\n\r\n"], ids=["nothing", "empty lines"])
async def test_silent_connection_is_closed(raw: bytes) -> None:
    async with serving(Recorder(), HURRIED) as server, wire_to(server) as wire:
        await wire.send(raw)
        assert await wire.rest() == b""


async def test_idle_connection_is_closed() -> None:
    async with serving(Recorder(), HURRIED) as server, wire_to(server) as wire:
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        assert await wire.rest() == b""


async def test_unfinished_request_behind_a_good_one() -> None:
    async with serving(Recorder(), HURRIED) as server, wire_to(server) as wire:
        await wire.send(GET + b"GET / HT")
        assert [(await wire.answer()).status, (await wire.answer()).status] == [200, 408]
        assert await wire.rest() == b""


async def test_who_speaks_http_2_is_told_so_in_its_own_words() -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = b"\0\0\0\x04\0\0\0\0\0"
    for cut in range(len(preface)):
        handler = Recorder()
        async with serving(handler) as server, wire_to(server) as wire:
            await wire.send(preface[:cut])
            await wire.send(preface[cut:] + settings)
            told = await wire.rest()
            head, goaway = told[:9], told[9:]
            assert head == settings
            size = len(goaway) - 9
            # On no stream, after none, HTTP_1_1_REQUIRED.
            assert goaway[:17] == bytes([0, 0, size, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13])
            assert goaway[17:] == b"this is HTTP/2, and HTTP/1.1 is spoken here"
            assert handler.requests == []
            assert server.statistics().refused == 1


# Closing.


async def test_a_client_that_goes_on_sending_can_read_why_it_was_refused() -> None:
    """Closing on unread bytes would reset the connection and destroy the answer."""
    async with serving(Recorder()) as server, wire_to(server) as wire:
        await wire.send(with_fields(b"host: a", b"content-length: %d" % (8 * MIB), method=b"POST"))
        await wire.send(*[b"x" * MIB] * 8)
        answer = await wire.answer()
        assert answer.status == 413
        assert answer.body
        assert await wire.rest() == b""


async def test_a_refused_client_that_never_closes_is_cut_off() -> None:
    async with serving(Recorder(), ServerLimits(linger_s=0.1)) as server, wire_to(server) as wire:
        await wire.send(b"garbage\r\n\r\n")
        with pytest.raises(ConnectionError):
            await wire.send_until_cut()

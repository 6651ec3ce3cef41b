"""TLS contexts, verification on."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

_CERTIFICATE, _KEY = b"CERTIFICATE-----", b"PRIVATE KEY-----"
_File = Annotated[str, Meta(title="the path of a file")]


class ServerTls(Struct, frozen=True):
    cert_file: Annotated[_File, Meta(description="The certificate with its chain, in PEM.")]
    key_file: Annotated[_File, Meta(description="The certificate's key, in PEM and without a password.")]
    client_ca_file: Annotated[
        str | None,
        Meta(description="If set, only clients with a certificate from this authority are served (mTLS)."),
    ] = None

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self.load_into(context)
        if self.client_ca_file is not None:
            with _trusting(self.client_ca_file):
                context.load_verify_locations(self.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """The certificate as it is now, for connections to come."""
        _show(context, self.cert_file, self.key_file)


class ClientTls(Struct, frozen=True):
    ca_file: Annotated[
        str | None,
        Meta(description="Authorities to trust for servers, in PEM; by default those of the system."),
    ] = None
    cert_file: Annotated[
        str | None, Meta(description="A certificate to show to servers that ask for one.")
    ] = None
    key_file: Annotated[str | None, Meta(description="Its key, in PEM and without a password.")] = None

    def context(self) -> ssl.SSLContext:
        if self.ca_file is None:
            context = ssl.create_default_context()
        else:
            with _trusting(self.ca_file):
                context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if self.cert_file is not None:
            _show(context, self.cert_file, self.key_file)
        return context


def trouble(tls: ServerTls | ClientTls) -> str | None:
    """What is wrong with its files, in a line."""
    try:
        tls.context()
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
    return None


# ssl names no file in its errors, and asks the terminal for a key's password.


def _show(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    """Raises `OSError` for what cannot be read, `ValueError` for what is not what it should be; both name the file."""
    files = list(dict.fromkeys([cert_file, key_file or cert_file]))
    for file in files:
        _require(file)

    def no_password() -> str:
        raise ValueError(f"{files[-1]}: the key has a password; write it there without one")

    try:
        context.load_cert_chain(cert_file, key_file, password=no_password)
    except ssl.SSLError as error:
        told = "do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "are not in PEM"
        missing = _missing_in(cert_file, files[-1])
        raise ValueError(missing or f"the certificate and the key in {' and '.join(files)} {told}") from error


def _missing_in(cert_file: str, key_file: str) -> str | None:
    """OpenSSL says the same of both files swapped as of what is no PEM at all."""
    cert, key = Path(cert_file).read_bytes(), Path(key_file).read_bytes()
    if _CERTIFICATE not in cert:
        swapped = "; are the two swapped?" if _CERTIFICATE in key and _KEY in cert else ""
        return f"there is no certificate in PEM in {cert_file}{swapped}"
    return None if _KEY in key else f"there is no key in PEM in {key_file}"


@contextmanager
def _trusting(ca_file: str) -> Generator[None]:
    """Raises as `_show` does."""
    _require(ca_file)
    try:
        yield
    except ssl.SSLError as error:
        raise ValueError(f"there is no certificate in PEM in {ca_file}") from error


def _require(file: str) -> None:
    with open(file, "rb"):
        pass

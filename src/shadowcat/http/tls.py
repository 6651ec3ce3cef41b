"""TLS contexts, verification on."""

from __future__ import annotations

import ssl
from typing import Annotated

from msgspec import Meta, Struct

_File = Annotated[str, Meta(title="the path of a file")]


class ServerTls(Struct, frozen=True):
    cert_file: Annotated[_File, Meta(description="The certificate and what leads to its authority, in PEM.")]
    key_file: Annotated[_File, Meta(description="The certificate's key, in PEM and without a password.")]
    client_ca_file: Annotated[
        str | None,
        Meta(
            description="When given, a client without a certificate from this authority is not served (mTLS)."
        ),
    ] = None

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self.load_into(context)
        if self.client_ca_file is not None:
            context.load_verify_locations(self.client_ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """The certificate as it is now, for connections to come."""
        context.load_cert_chain(self.cert_file, self.key_file)


class ClientTls(Struct, frozen=True):
    ca_file: Annotated[
        str | None,
        Meta(
            description="Authorities to trust with servers, in PEM; those of the system where none is given."
        ),
    ] = None
    cert_file: Annotated[
        str | None, Meta(description="A certificate to show to servers that ask for one.")
    ] = None
    key_file: Annotated[str | None, Meta(description="Its key, in PEM and without a password.")] = None

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file)
        return context

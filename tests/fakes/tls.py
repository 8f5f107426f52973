"""Certificates for tests: a private authority, and contexts that do or do not trust it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

import trustme


@dataclass(frozen=True)
class Tls:
    """`server` for the upstream, `client` trusts it, `stranger` does not; `ca_pem` is the CA."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    stranger: ssl.SSLContext
    ca_pem: bytes


def make_tls(*names: str) -> Tls:
    """Contexts for a certificate that holds `names` (127.0.0.1 and localhost by default)."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client, ssl.create_default_context(), authority.cert_pem.bytes())

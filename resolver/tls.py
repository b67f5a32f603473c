"""The certificate of DNS over TLS (RFC 7858).

Rule: a certificate that cannot be used is found when it is loaded, not by the first client. A
renewed one is a new context: connections that exist keep theirs.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

ALPN: Final = "dot"
"""https://www.iana.org/assignments/tls-extensiontype-values; clients that do not say it are served
as well: RFC 7858 is older."""


def tls_context(cert: str | Path, key: str | Path) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or later, no renegotiation, no compression.

    Args:
        cert: PEM file of the certificate and its chain.
        key: PEM file of its key, not encrypted.

    Raises:
        OSError: a file cannot be read.
        ssl.SSLError: it is no certificate or key, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([ALPN])
    context.load_cert_chain(cert, key, password=_refuse)
    return context


def _refuse() -> str:
    # Without this OpenSSL would ask at the terminal. (An empty password is an error of its own.)
    return ""

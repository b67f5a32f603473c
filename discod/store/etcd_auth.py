"""Who we are to etcd: user and password, and TLS files, read from the disk.

Rule: reads files, and says which one it could not read; talks to nobody.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from discod.model.settings import StoreSettings
from discod.store.base import StoreRejected
from discod.store.etcd_errors import RpcFailure
from discod.store.etcd_proto import Proto

DEFAULT_PORT = 2379

Pems = tuple[bytes | None, bytes | None, bytes | None]
"""Content of the CA, certificate and key files."""

_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine
)


class Login:
    """A user, and the file of its password, which is read anew at each login."""

    def __init__(self, username: str, password_file: str, proto: Proto) -> None:
        self._username = username
        self._password_file = trio.Path(password_file)
        self._message = proto.message("AuthenticateRequest")

    async def request(self) -> Any:
        """An ``AuthenticateRequest``.

        Raises:
            RpcFailure: the password file cannot be read.
        """
        try:
            password = (await self._password_file.read_text(encoding="utf-8")).rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise RpcFailure(
                "UNAUTHENTICATED", f"password_file cannot be read: {error}", not_sent=True
            ) from None
        return self._message(name=self._username, password=password)


def target(url: str) -> tuple[str, bool]:
    """The name in gRPC for an endpoint URL, and whether it is https.

    Raises:
        StoreRejected: not a URL of the form ``http[s]://host[:port]``.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise StoreRejected(f"endpoint {url!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise StoreRejected(f"endpoint {url!r}: expected http://host:port or https://host:port")
    name = f"[{host}]" if ":" in host else host
    return f"{name}:{port}", parts.scheme == "https"


def tls_files(settings: StoreSettings) -> Pems:
    """Content of the CA, certificate and key files; the system's roots when no CA is named.

    Raises:
        StoreRejected: a file cannot be read.
    """
    return (
        _pem("ca", settings.ca or _system_roots()),
        _pem("cert", settings.cert),
        _pem("key", settings.key),
    )


class TlsFiles:
    """The TLS files as they were last read.

    Raises:
        StoreRejected: one cannot be read.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings
        self.content = tls_files(settings)

    def changed(self) -> Pems | None:
        """What the files hold now, if that is something else; blocks on the disk.

        A certificate without its key (a rotation that is half done) is left for the next look.

        Raises:
            StoreRejected: one cannot be read; what was read before stays.
        """
        content = tls_files(self._settings)
        if content == self.content:
            return None
        if self._settings.cert:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            try:
                context.load_cert_chain(self._settings.cert, self._settings.key or None)
            except (OSError, ssl.SSLError) as error:
                raise StoreRejected(f"store.cert and store.key: {error}") from None
        self.content = content
        return content


def _pem(name: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise StoreRejected(f"store.{name}: {error}") from None


def _system_roots() -> str:
    """Where the system keeps its roots; gRPC by itself would use a list of its own."""
    named = ssl.get_default_verify_paths().cafile
    candidates = (named, *_SYSTEM_ROOTS) if named else _SYSTEM_ROOTS
    return next((path for path in candidates if Path(path).is_file()), "")

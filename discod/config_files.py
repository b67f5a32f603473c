"""The files that a configuration names, beyond those of the store: certificate and secrets of DNS.

Rule: says what is wrong with a file, its line included, and never what a secret is. What passes
here, the resolver can read: empty lines and what follows ``#`` are comments in both kinds of file.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from discod.model.fields import is_target
from discod.model.settings import Settings

SIZE_MAX = 1 << 20
"""Octets of a file of secrets; a larger one was named by mistake."""

TSIG_ALGORITHMS = ("hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")
"""RFC 8945, section 6, without HMAC-MD5, which must not be used."""

_COOKIE_SECRET = re.compile(r"[0-9A-Fa-f]{32}\Z")
"""16 octets: the key of SipHash-2-4 (RFC 9018, section 4.4)."""

TSIG_SECRET_MIN = 8
"""Octets; less is a typing error."""

Lines = Mapping[int, str]
"""Number from 1 -> what stands in the line."""

Fault = tuple[str, str, str]
"""Key, path of the file, what was expected."""


def unreadable(path: str) -> str:
    """Why the regular file at `path` cannot be read; empty when it can."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return "expected a regular file"
        with Path(path).open("rb"):
            return ""
    except OSError as error:
        return f"expected a readable file: {error.strerror}"


def pair_fault(context: ssl.SSLContext, cert: str, key: str, key_name: str) -> str:
    """What is wrong with a certificate and its key; empty when nothing is."""
    try:
        # The callback keeps OpenSSL from asking for a passphrase on the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or "unreadable"
        return f"expected a PEM certificate and its own, unencrypted {key_name} ({reason})"
    return ""


def mode_fault(path: str) -> str:
    """What is wrong with who may access a file of secrets; empty when nothing is."""
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    if mode & stat.S_IRWXO:
        return f"expected no access for others (mode {mode:04o}; chmod o= it)"
    return ""


def dns_file_faults(settings: Settings) -> Iterator[Fault]:
    """Everything wrong with the files of ``[dns]`` and ``[transfer]``."""
    dns = settings.dns
    bad = {key: unreadable(getattr(dns, key)) for key in ("tls_cert", "tls_key")}
    for key, fault in bad.items():
        if fault and getattr(dns, key):
            yield f"dns.{key}", getattr(dns, key), fault
    if not any(bad.values()):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if fault := pair_fault(context, dns.tls_cert, dns.tls_key, "dns.tls_key"):
            yield "dns.tls_cert", dns.tls_cert, fault
    yield from _secrets("dns.cookie_secret_file", dns.cookie_secret_file, _cookie_faults)
    yield from _secrets("transfer.keys", settings.transfer.keys, _key_faults)


def _secrets(key: str, path: str, judge: Callable[[Lines], Iterator[str]]) -> Iterator[Fault]:
    if not path:
        return
    if fault := unreadable(path):
        yield key, path, fault
        return
    try:
        with Path(path).open("rb") as file:
            data = file.read(SIZE_MAX + 1)
        if len(data) > SIZE_MAX:
            raise ValueError
        text = data.decode("utf-8")
        open_to = mode_fault(path)
    except (OSError, ValueError):
        yield key, path, f"expected UTF-8 text of at most {SIZE_MAX} octets"
        return
    if open_to:
        yield key, path, open_to
    lines = {
        number: line.partition("#")[0].strip() for number, line in enumerate(text.splitlines(), 1)
    }
    for fault in judge({number: line for number, line in lines.items() if line}):
        yield key, path, fault


def _cookie_faults(lines: Lines) -> Iterator[str]:
    if not lines:
        yield "expected at least one line of 32 hexadecimal digits"
    for number, line in lines.items():
        if not _COOKIE_SECRET.match(line):
            yield f"line {number}: expected 32 hexadecimal digits and nothing else"


def _key_faults(lines: Lines) -> Iterator[str]:
    if not lines:
        yield "expected at least one line NAME ALGORITHM BASE64"
    seen: dict[str, int] = {}
    for number, line in lines.items():
        words = line.split()
        if len(words) != 3:
            yield f"line {number}: expected NAME ALGORITHM BASE64"
            continue
        name, algorithm = (word.lower().removesuffix(".") for word in words[:2])
        if not is_target(name):
            yield f"line {number}: expected a domain name as the name of the key"
        elif seen.setdefault(name, number) != number:
            yield f"line {number}: expected another name than line {seen[name]} has"
        if algorithm not in TSIG_ALGORITHMS:
            yield f"line {number}: expected one of {', '.join(TSIG_ALGORITHMS)}"
        try:
            secret = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) < TSIG_SECRET_MIN:
            yield f"line {number}: expected a secret of {TSIG_SECRET_MIN} octets or more in base64"

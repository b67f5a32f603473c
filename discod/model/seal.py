"""Datagrams that only their sender can have made: the frame of hints and of liveness messages.

Rule: knows nothing of what is inside. A datagram is four octets that say what it is, the length of
the sender's name (1 octet), the name, an HMAC-SHA256 over all the rest together with the domain,
and the body. The key is the one that the sender keeps in its own record, new at each of its starts.
Pure.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

SIZE_MAX = 1232
"""Octets of a datagram: fits every IPv6 path without fragments (RFC 8200, section 5)."""
MAC = 32
"""Octets of the HMAC."""


class SealError(ValueError):
    """A datagram that is none of ours; says why."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of datagram."""

    magic: bytes
    """Four octets."""
    label: str
    """Part of what is signed, so that no sort can be passed off as another."""

    def room(self, host: str) -> int:
        """Octets that a body of this host may have."""
        return SIZE_MAX - len(self.magic) - 1 - len(host) - MAC

    def seal(self, host: str, body: bytes, domain: str, key: bytes) -> bytes:
        """The datagram around a body."""
        name = host.encode("ascii")
        frame = self.magic + bytes([len(name)]) + name
        return frame + self._sign(host, body, domain, key) + body

    def open(self, packet: bytes) -> Sealed:
        """Take a datagram apart; whether its sender made it is `verified`'s to say.

        Raises:
            SealError: it is of another sort, or of a wrong length.
        """
        start = len(self.magic) + 1
        if packet[: len(self.magic)] != self.magic or len(packet) < start:
            raise SealError("of another kind")
        end = start + packet[start - 1]
        mac, body = packet[end : end + MAC], packet[end + MAC :]
        if len(mac) < MAC or len(packet) > SIZE_MAX:
            raise SealError("wrong length")
        return Sealed(packet[start:end].decode("ascii", "replace"), mac, body)

    def verified(self, sealed: Sealed, domain: str, key: bytes | None) -> bool:
        """Whether it was made with this key, for this domain."""
        if not key:
            return False
        return hmac.compare_digest(sealed.mac, self._sign(sealed.host, sealed.body, domain, key))

    def _sign(self, host: str, body: bytes, domain: str, key: bytes) -> bytes:
        return hmac.digest(key, f"{self.label} {domain} {host} ".encode() + body, hashlib.sha256)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A datagram taken apart."""

    host: str
    """Who it says has sent it."""
    mac: bytes
    body: bytes

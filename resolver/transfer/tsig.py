"""Transaction signatures (RFC 8945).

Rule: the octets that are signed are put together here only, for requests, responses and the further
messages of a transfer. Names count in canonical form; comparison takes the same time wherever the
difference lies; a shortened MAC is never good enough (section 5.2.2.1 leaves that to the server).
Requests are not checked for repetition within the fudge (section 5.2.3 only recommends it): nothing
that is answered here alters anything. Pure: it is handed the time.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from resolver.record import FORMERR, NAME_OCTETS, NOERROR, TSIG, Name, name_wire
from resolver.transfer.keys import ALGORITHMS, Key
from resolver.wire import FIXED, HEADER, Malformed, read_name, read_records

NOTAUTH: Final = 9
BADSIG: Final = 16
BADKEY: Final = 17
BADTIME: Final = 18
BADTRUNC: Final = 22

FUDGE: Final = 300
"""Seconds that clocks may differ (RFC 8945, section 10)."""
MAC_MIN: Final = 10
"""Octets; a shorter MAC is malformed (section 5.2.2.1)."""

_ANY: Final = 255
_ARCOUNT: Final = 10
_TIMES = struct.Struct(">HIH")  # 48 bits of seconds, 16 of fudge
_TYPE_AT = struct.Struct(">HH")

Keyring = Mapping[Name, Key]


class Tsig(NamedTuple):
    """The TSIG record of a message."""

    start: int
    """Where it begins: the message without it ends there."""
    name: Name
    algorithm: Name
    time: int
    fudge: int
    mac: bytes
    original_id: int
    error: int
    other: bytes


def read(packet: bytes) -> Tsig | None:
    """The TSIG record of a message; None without one.

    Raises:
        Malformed: it is not the last of the additional section, there are two, or it cannot be
            read. A message that cannot be read for other reasons counts as that too.
    """
    if len(packet) < HEADER.size:
        raise Malformed("header")
    _, _, questions, answers, authorities, additionals = HEADER.unpack_from(packet)
    if questions > 1:
        raise Malformed("questions")
    at = HEADER.size
    if questions:
        at = expand(packet, at)[1] + 4
    spans = read_records(packet, at, answers + authorities + additionals)
    signatures = [span for span in spans if span.type == TSIG]
    if not signatures:
        return None
    span = signatures[0]
    if span is not spans[-1] or not additionals or span.cls != _ANY or span.ttl:
        raise Malformed("TSIG")
    name, _ = expand(packet, span.start)
    return _rdata(packet[span.rdata : span.end], span.start, name)


def _rdata(rdata: bytes, start: int, name: Name) -> Tsig:
    algorithm, at = read_name(rdata, 0)  # never compressed (RFC 8945, section 4.2)
    try:
        high, low, fudge = _TIMES.unpack_from(rdata, at)
        mac_end = at + 10 + int.from_bytes(rdata[at + 8 : at + 10], "big")
        original_id, error, other = struct.unpack_from(">HHH", rdata, mac_end)
    except struct.error:
        raise Malformed("TSIG") from None
    if mac_end + 6 + other != len(rdata):
        raise Malformed("TSIG")
    mac = rdata[at + 10 : mac_end]
    tail = rdata[mac_end + 6 :]
    return Tsig(start, name, algorithm, high << 32 | low, fudge, mac, original_id, error, tail)


def expand(packet: bytes, at: int) -> tuple[Name, int]:
    """The name at `at`, compressed or not, lower-cased, and the offset after it.

    Raises:
        Malformed: it does not end, is too long, or points anywhere but backwards, or to a pointer
            (so that a name costs no more than its labels).
    """
    labels: list[bytes] = []
    after = 0
    octets = 1
    floor = at
    while at < len(packet):
        length = packet[at]
        if length == 0:
            return tuple(labels), after or at + 1
        if length >= 0xC0:
            if at + 2 > len(packet):
                break
            after = after or at + 2
            at = (length & 0x3F) << 8 | packet[at + 1]
            if at >= floor or packet[at] >= 0xC0:
                raise Malformed("pointer")
            floor = at
            continue
        octets += length + 1
        if length > 63 or octets > NAME_OCTETS:
            raise Malformed("label type, or name too long")
        labels.append(packet[at + 1 : at + 1 + length].lower())
        at += 1 + length
    raise Malformed("name does not end")


class Signer:
    """Signs what is sent: one request, or all messages of one response, in their order.

    Args:
        prior: MAC of the request that is responded to; empty: this is a request itself.
    """

    def __init__(self, key: Key, prior: bytes = b"", *, error: int = 0, at: int = 0) -> None:
        self.key = key
        self.mac = prior
        """Of the message signed last."""
        self._first = True
        self._error = error
        self._at = at
        self.octets = len(_record(key, bytes(digest_size(key)), 0, 0, 0, bytes(6)))
        """That a signature adds to a message at most."""

    def sign(self, message: bytes, now: float) -> bytes:
        """The message with its signature; `now` in Unix seconds.

        A first message is signed with all variables, a further one with its time only
        (RFC 8945, section 5.3.1). All of a transfer's messages are signed.
        """
        seconds, other = int(now), b""
        if self._error == BADTIME:  # the client's time, and ours beside it (section 5.2.3)
            seconds, other = self._at, int(now).to_bytes(6, "big")
        variables = _variables(self.key, seconds, FUDGE, self._error, other)
        if not self._first:
            variables = _times(seconds, FUDGE)
        prior = len(self.mac).to_bytes(2, "big") + self.mac if self.mac else b""
        self.mac = _mac(self.key, prior + message + variables)
        self._first = False
        id_ = int.from_bytes(message[:2], "big")
        return _append(message, _record(self.key, self.mac, seconds, id_, self._error, other))


class Failure(NamedTuple):
    """A request whose signature is not good."""

    rcode: int
    tsig: Tsig | None = None
    error: int = 0
    signer: Signer | None = None
    """Signs the response where the MAC itself was right (section 5.3.2)."""

    def finish(self, response: bytes, now: float) -> bytes:
        """The response with what it has to say of the signature."""
        if self.signer is not None:
            return self.signer.sign(response, now)
        if self.tsig is None:
            return response
        # The name and algorithm of the request, an empty MAC (section 5.3.2).
        nobody = Key(self.tsig.name, self.tsig.algorithm, b"")
        id_ = int.from_bytes(response[:2], "big")
        return _append(response, _record(nobody, b"", int(now), id_, self.error, b""))


def verify(packet: bytes, keys: Keyring, now: float) -> Signer | Failure | None:
    """Check a request's signature, in the order of RFC 8945, section 5.2.

    Returns: what signs the response; what is wrong; None where there is no signature.
    """
    try:
        tsig = read(packet)
    except Malformed:
        return Failure(FORMERR)
    if tsig is None:
        return None
    key = keys.get(tsig.name)
    if key is None or key.algorithm != tsig.algorithm:
        return Failure(NOTAUTH, tsig, BADKEY)
    size = digest_size(key)
    if not max(MAC_MIN, size // 2) <= len(tsig.mac) <= size:
        return Failure(FORMERR)
    mac = _mac(key, _unsigned(packet, tsig) + _variables_of(key, tsig))
    if not hmac.compare_digest(mac[: len(tsig.mac)], tsig.mac):
        return Failure(NOTAUTH, tsig, BADSIG)
    if abs(now - tsig.time) > tsig.fudge:
        signer = Signer(key, tsig.mac, error=BADTIME, at=tsig.time)
        return Failure(NOTAUTH, tsig, BADTIME, signer)
    if len(tsig.mac) < size:
        return Failure(NOTAUTH, tsig, BADTRUNC, Signer(key, tsig.mac, error=BADTRUNC))
    return Signer(key, tsig.mac)


def verify_response(packet: bytes, key: Key, request_mac: bytes, now: float) -> bool:
    """Whether a response is the answer to the request that had `request_mac`."""
    try:
        tsig = read(packet)
    except Malformed:
        return False
    if tsig is None or (tsig.name, tsig.algorithm) != (key.name, key.algorithm):
        return False
    prior = len(request_mac).to_bytes(2, "big") + request_mac
    mac = _mac(key, prior + _unsigned(packet, tsig) + _variables_of(key, tsig))
    right = hmac.compare_digest(mac, tsig.mac)
    return right and abs(now - tsig.time) <= tsig.fudge and tsig.error == NOERROR


def digest_size(key: Key) -> int:
    """Octets of a whole MAC."""
    return int(ALGORITHMS[key.algorithm]().digest_size)


def _mac(key: Key, octets: bytes) -> bytes:
    return hmac.digest(key.secret, octets, ALGORITHMS[key.algorithm])


def _unsigned(packet: bytes, tsig: Tsig) -> bytes:
    """The message as it was before it was signed."""
    count = int.from_bytes(packet[_ARCOUNT : _ARCOUNT + 2], "big") - 1
    return b"".join(
        (
            tsig.original_id.to_bytes(2, "big"),
            packet[2:_ARCOUNT],
            count.to_bytes(2, "big"),
            packet[_ARCOUNT + 2 : tsig.start],
        )
    )


def _append(message: bytes, record: bytes) -> bytes:
    count = int.from_bytes(message[_ARCOUNT : _ARCOUNT + 2], "big") + 1
    return b"".join((message[:_ARCOUNT], count.to_bytes(2, "big"), message[_ARCOUNT + 2 :], record))


def _times(seconds: int, fudge: int) -> bytes:
    return _TIMES.pack(seconds >> 32 & 0xFFFF, seconds & 0xFFFFFFFF, fudge)


def _variables(key: Key, seconds: int, fudge: int, error: int, other: bytes) -> bytes:
    return b"".join(
        (
            name_wire(key.name),
            _TYPE_AT.pack(_ANY, 0) + b"\0\0",  # class and TTL
            name_wire(key.algorithm),
            _times(seconds, fudge),
            _TYPE_AT.pack(error, len(other)),
            other,
        )
    )


def _variables_of(key: Key, tsig: Tsig) -> bytes:
    return _variables(key, tsig.time, tsig.fudge, tsig.error, tsig.other)


def _record(key: Key, mac: bytes, seconds: int, id_: int, error: int, other: bytes) -> bytes:
    rdata = b"".join(
        (
            name_wire(key.algorithm),
            _times(seconds, FUDGE),
            len(mac).to_bytes(2, "big"),
            mac,
            struct.pack(">HHH", id_, error, len(other)),
            other,
        )
    )
    return name_wire(key.name) + FIXED.pack(TSIG, _ANY, 0, len(rdata)) + rdata

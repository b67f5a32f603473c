"""The questions of `make bench-dns`, as packets.

Rule: what is asked depends on the mix, the number of services and the seed only, so that every
server gets the same questions in the same order. Packets stand in runs of one size, which the
kernel takes with one look (udp(7), UDP_SEGMENT). Pure.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from benchmarks.dns_catalog import DOMAIN, PORT_NAME, service_name

A, AAAA, SRV = 1, 28, 33
NOERROR, NXDOMAIN = 0, 3
UDP_SIZE = 1232
COOKIE = 10
"""EDNS option (RFC 7873)."""
COOKIE_SIZE = 8
"""Octets that a client chooses."""
FRESH = 8
"""Characters of a name that nobody has asked for before."""
SLOTS = 1024
"""Queries in a socket's ring: ten bits of the id."""
SOCKETS_MAX = 64
"""The other six."""

_LETTERS = bytes(b"abcdefghijklmnopqrstuvwxyz012345"[n % 32] for n in range(256))


@dataclass(frozen=True, slots=True)
class Mix:
    """One kind of load, and what has to come back."""

    title: str
    types: tuple[int, ...]
    """Drawn from evenly, run by run."""
    edns: bool = False
    cookie: str = ""
    """`new`: another client cookie in each query, as from so many clients; `known`: each socket
    sends one client cookie and what the server made of it, as a client that came before."""
    absent: bool = False
    """Names that do not exist, each asked for once."""
    rcode: int = NOERROR
    answers: int = 3
    """Records in the answer section."""


# With EDNS and with cookies it is three of A to one of SRV as well.
MIXES = {
    "mixed": Mix("3 A, 1 SRV", (A, A, A, SRV)),
    "edns": Mix("with EDNS", (A, A, A, SRV), edns=True),
    "a": Mix("A alone", (A,)),
    "nodata": Mix("AAAA, NODATA", (AAAA,), answers=0),
    "nxdomain": Mix("NXDOMAIN flood", (A,), absent=True, rcode=NXDOMAIN, answers=0),
    "cookie": Mix("new cookies", (A, A, A, SRV), edns=True, cookie="new"),
    "known": Mix("known cookies", (A, A, A, SRV), edns=True, cookie="known"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run of queries of one size stands in its ring."""

    start: int
    """Octets from the ring's begin."""
    size: int
    """Octets of one query."""
    fresh: int
    """Octets from a query's begin to the `FRESH` ones that change each time; 0: nothing does."""


@dataclass(frozen=True, slots=True)
class Ring:
    """The queries of one socket, `SLOTS` of them; the id of each says socket and slot."""

    packets: bytearray
    runs: tuple[Run, ...]
    length: int
    """Queries in a run."""
    letters: bool
    """What changes is part of a name."""

    def refresh(self, first: int, last: int, rng: random.Random) -> None:
        """Write new random octets into the runs from `first` to before `last`."""
        packets, n = self.packets, self.length
        drawn = rng.randbytes((last - first) * n * FRESH)
        if self.letters:
            drawn = drawn.translate(_LETTERS)
        taken = 0
        for run in self.runs[first:last]:
            start, size = run.start + run.fresh, run.size
            for column in range(start, start + FRESH):
                packets[column : column + (n - 1) * size + 1 : size] = drawn[taken : taken + n]
                taken += n


def name_wire(name: str) -> bytes:
    """A name on the wire, uncompressed."""
    labels = (label.encode() for label in name.split("."))
    return b"".join(len(label).to_bytes(1, "big") + label for label in labels) + b"\0"


def query(id_: int, name: str, type_: int, *, edns: bool = False, cookie: bytes = b"") -> bytes:
    """One query; with `edns` an OPT record, with a cookie inside where one is given."""
    packet = struct.pack("!6H", id_, 0, 1, 0, 0, int(edns)) + name_wire(name)
    packet += struct.pack("!HH", type_, 1)
    if not edns:
        return packet
    option = struct.pack("!HH", COOKIE, len(cookie)) + cookie if cookie else b""
    return packet + b"\0" + struct.pack("!HHIH", 41, UDP_SIZE, 0, len(option)) + option


def server_cookie(response: bytes, client: bytes) -> bytes:
    """The whole cookie in a response to `client`'s; that alone where the server made none."""
    at = response.rfind(client)
    size = int.from_bytes(response[at - 2 : at]) if at >= 2 else 0
    return response[at : at + size] if size > COOKIE_SIZE else client


def asked_name(type_: int, service: str) -> str:
    """The name that a question of this type for a service has."""
    prefix = f"_{PORT_NAME}._tcp." if type_ == SRV else ""
    return f"{prefix}{service}.{DOMAIN}"


def ring(
    mix: Mix, services: int, number: int, seed: int, *, run: int = 8, cookie: bytes = b""
) -> Ring:
    """The queries of socket `number`.

    Args:
        mix: What to ask.
        services: How many there are.
        number: Of the socket; it is part of every id.
        seed: The same seed makes the same questions.
        run: Queries in a run; a divisor of `SLOTS`.
        cookie: The whole cookie of a known client.

    Raises:
        ValueError: a number is out of its range.
    """
    if SLOTS % run or not 0 <= number < SOCKETS_MAX:
        raise ValueError(f"run {run}, socket {number}")
    rng = random.Random(f"{seed}/{number}")
    types = [mix.types[n % len(mix.types)] for n in range(SLOTS // run)]
    rng.shuffle(types)
    packets = bytearray()
    runs = []
    for place, type_ in enumerate(types):
        start, fresh = len(packets), 0
        for slot in range(place * run, (place + 1) * run):
            service = "0" * FRESH if mix.absent else service_name(rng.randrange(services))
            sent = cookie or (bytes(COOKIE_SIZE) if mix.cookie else b"")
            name = asked_name(type_, service)
            packet = query(number << 10 | slot, name, type_, edns=mix.edns, cookie=sent)
            packets += packet
        if mix.absent:
            fresh = 13
        elif mix.cookie == "new":
            fresh = len(packet) - COOKIE_SIZE
        runs.append(Run(start, len(packet), fresh))
    made = Ring(packets, tuple(runs), run, mix.absent)
    if any(r.fresh for r in runs):
        made.refresh(0, len(runs), rng)
    return made

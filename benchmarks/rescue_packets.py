"""Packets a second through the host, with and without rescue's tables.

Rule: whole Ethernet frames go straight into the container's interface (packet(7)), a batch a system
call, from one core, which then also does all of the host's work on them (a veth pair hands a packet
on at once): what arrives a second says what one packet costs, sending included. Sites take turns
every few milliseconds; a ratio is of two turns of the same round.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from benchmarks import rescue_plans as plans
from benchmarks import results
from benchmarks.dns_mmsg import Runs
from benchmarks.dns_query import Run
from benchmarks.rescue_site import NOBODY_MAC, Site

BATCH = 64
"""Packets of one system call."""
FLOWS = 64
"""Of those that are known to the host when time is taken."""
NEW = 8192
"""Flows that begin in one turn: few enough for a table of 262,144 connections with four sites."""
TURN = 0.025
"""Seconds that a site sends before the next has its turn."""
LOST_MAX = 0.01
"""Share of lost packets above which it is said."""
_SOL_PACKET, _QDISC_BYPASS = 263, 20  # linux/if_packet.h
_SNDBUFFORCE = 32  # asm-generic/socket.h
_DRAINED_WITHIN = 2.0
_ETHERTYPE = {4: 0x0800, 6: 0x86DD}


def checksum(octets: bytes) -> int:
    """The internet checksum (RFC 1071); of an odd number, a zero is added."""
    padded = octets + bytes(len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(
    link: str, source: tuple[str, int], target: tuple[str, int], kind: str, payload: int = 18
) -> bytes:
    """One Ethernet frame.

    Args:
        link: Whom it is sent to on the link.
        source: Address and port.
        target: The same.
        kind: ``udp``; ``ack`` or ``syn``: TCP with that flag.
        payload: Octets of UDP's; TCP has none.
    """
    here, there = ip_address(source[0]), ip_address(target[0])
    ports = struct.pack("!HH", source[1], target[1])
    if kind == "udp":
        number, before, after = 17, ports + struct.pack("!H", 8 + payload), bytes(payload)
    else:
        flags = {"ack": 0x10, "syn": 0x02}[kind]
        acknowledged = 1 if kind == "ack" else 0
        number, after = 6, bytes(2)
        before = ports + struct.pack("!IIBBH", 1, acknowledged, 5 << 4, flags, 65535)
    length = len(before) + 2 + len(after)
    pseudo = here.packed + there.packed + struct.pack("!II", length, number)
    found = checksum(pseudo + before + bytes(2) + after)
    segment = before + struct.pack("!H", found or 0xFFFF) + after
    if here.version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, number, 0)
        head += here.packed + there.packed
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    else:
        head = struct.pack("!IHBB", 6 << 28, length, number, 64) + here.packed + there.packed
    ethernet = plans.mac(link) + plans.mac("02:00:00:00:00:02")
    return ethernet + struct.pack("!H", _ETHERTYPE[here.version]) + head + segment


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is sent."""

    link: str
    target: tuple[str, int]
    kind: str
    fresh: bool = False
    """Whether every packet begins a flow; else they are of `FLOWS` known ones."""
    arrives: str = "eth0"
    """The server's interface where it comes out."""

    def frames(self, count: int) -> list[bytes]:
        """Of as many flows; they differ in the client's port."""
        client = plans.CLIENT[ip_address(self.target[0]).version]
        return [frame(self.link, (client, 2048 + n), self.target, self.kind) for n in range(count)]


class Blaster:
    """Sends the frames of one `Traffic` into one site, round and round. A context."""

    def __init__(self, site: Site, traffic: Traffic) -> None:
        self._site, self._traffic = site, traffic
        frames = traffic.frames(NEW if traffic.fresh else FLOWS)
        self._size = len(frames[0])
        packets = bytearray(b"".join(frames))
        runs = [Run(n * self._size, self._size, 0) for n in range(len(frames))]
        self._count, self._runs = len(runs), Runs(packets, runs, 1)
        self._socket = site.client.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._socket.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, 8 * 1024 * 1024)
        self._socket.bind(("eth0", 0))
        self._counter = site.counter(traffic.arrives)
        self.sent = self.arrived = 0
        """Of all turns."""

    def __enter__(self) -> Blaster:
        return self

    def __exit__(self, *_: object) -> None:
        self._counter.close()
        self._socket.close()

    def turn(self, seconds: float) -> float:
        """Packets a second that arrived.

        Raises:
            RuntimeError: none did, or none was taken from us.
        """
        if self._traffic.fresh:
            self._site.forget()
        before, start = self._counter(), time.perf_counter()
        if self._traffic.fresh:
            sent = self._once(start + _DRAINED_WITHIN)
        else:
            sent = self._repeatedly(start + seconds)
        arrived, end = self._drained(sent + before)
        if arrived == before:
            raise RuntimeError(f"{self._traffic}: of {sent} packets, none arrived")
        self.sent += sent
        self.arrived += arrived - before
        return (arrived - before) / (end - start)

    def _repeatedly(self, until: float) -> int:
        fd, sent = self._socket.fileno(), 0
        while time.perf_counter() < until:
            sent += self._runs.send(fd, 0, BATCH)
        return sent

    def _once(self, until: float) -> int:
        fd, sent = self._socket.fileno(), 0
        while sent < self._count:
            sent += self._runs.send(fd, sent, min(BATCH, self._count - sent))
            if time.perf_counter() > until:
                raise RuntimeError(f"{self._traffic}: only {sent} of {self._count} were taken")
        return sent

    def _drained(self, expected: int) -> tuple[int, float]:
        """How many arrived in all, and when the last did."""
        last, when = self._counter(), time.perf_counter()
        while last < expected and time.perf_counter() - when < 0.003:
            if (now := self._counter()) != last:
                last, when = now, time.perf_counter()
        return last, when


def compare(
    ways: Mapping[str, tuple[Site, Traffic]],
    rounds: int,
    rng: random.Random,
    say: Callable[[str], None],
) -> dict[str, list[float]]:
    """Packets a second of each way in each round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    with ExitStack() as stack:
        blasters = {
            name: stack.enter_context(Blaster(site, traffic))
            for name, (site, traffic) in ways.items()
        }
        for blaster in blasters.values():
            blaster.turn(TURN)
        for _ in range(rounds):
            for name in rng.sample(list(ways), len(ways)):
                found[name].append(blasters[name].turn(TURN))
        for name, (site, _) in ways.items():
            site.forget()
            lost = 1 - blasters[name].arrived / blasters[name].sent
            if lost > LOST_MAX:
                say(f"{name}: {lost:.1%} of the packets were lost")
    return found


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process on its last core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


TO_NOWHERE = {v: (plans.NOWHERE[v], plans.WASTE) for v in (4, 6)}
MISSED: dict[str, Traffic] = {
    "UDP, known flows": Traffic(plans.BRIDGE_MAC, TO_NOWHERE[4], "udp"),
    "TCP, known flows": Traffic(plans.BRIDGE_MAC, TO_NOWHERE[4], "ack"),
    "UDP over IPv6, known flows": Traffic(plans.BRIDGE_MAC, TO_NOWHERE[6], "udp"),
    "UDP, within the bridge": Traffic(NOBODY_MAC, (plans.BESIDE, 9), "udp", arrives="beside"),
    "UDP, each packet a new flow": Traffic(plans.BRIDGE_MAC, TO_NOWHERE[4], "udp", fresh=True),
    "TCP, each packet a SYN": Traffic(plans.BRIDGE_MAC, TO_NOWHERE[4], "syn", fresh=True),
}
"""Traffic that is none of rescue's business, and pays for the look-ups all the same."""


def rescued(version: int, *, near: bool, fresh: bool) -> Traffic:
    """Datagrams to a stale place that come out where those of `MISSED` do."""
    dead = plans.DEAD_NEAR if near else plans.DEAD_FAR
    link = plans.DEAD_MAC if near else plans.BRIDGE_MAC
    return Traffic(link, (dead[version], plans.WASTE), "udp", fresh=fresh)


def ratio(case: str, metric: str, above: Sequence[float], below: Sequence[float]) -> results.Row:
    """The row of a ratio, round by round: a slow moment of the machine mostly hits both."""
    shares = [a / b for a, b in zip(above, below, strict=True)]
    return results.row(case, metric, "ratio", shares)


def added(case: str, metric: str, slower: Sequence[float], faster: Sequence[float]) -> results.Row:
    """The row of what one packet costs more: unlike a ratio, sending it has no part in this."""
    spans = [(1 / a - 1 / b) * 1e9 for a, b in zip(slower, faster, strict=True)]
    return results.row(case, metric, "ns", spans)


def measure(
    bare: Site, again: Site, empty: Site, full: Site, entries: int, rounds: int, rng: random.Random,
    say: Callable[[str], None],
) -> list[results.Row]:  # fmt: skip
    """All cases.

    Args:
        bare: No tables of rescue.
        again: The same, for the control: its ratio is what the machine's noise makes.
        empty: Tables without an entry.
        full: With `entries` of each IP version.
        entries: So many.
        rounds: How often each site has its turn, in each case.
        rng: For the order of turns.
        say: Told what goes on.
    """
    rows = []
    with one_core():
        for case, traffic in MISSED.items():
            say(case)
            sites = {"bare": bare, "again": again, "empty": empty, "full": full}
            ways = {name: (site, traffic) for name, site in sites.items()}
            found = compare(ways, rounds, rng, say)
            much = f"{entries:,} entries"
            rows += [
                results.row(case, "no rescue", "packets/s", found["bare"]),
                results.row(case, "0 entries", "packets/s", found["empty"]),
                results.row(case, much, "packets/s", found["full"]),
                ratio(case, "no rescue, to itself (noise)", found["again"], found["bare"]),
                ratio(case, "0 entries to no rescue", found["empty"], found["bare"]),
                ratio(case, f"{much} to 0 entries", found["full"], found["empty"]),
                ratio(case, f"{much} to no rescue", found["full"], found["bare"]),
                added(case, f"{much} add to each packet", found["full"], found["bare"]),
            ]
        for fresh in (False, True):
            case = f"UDP, rescued, {'each packet a new flow' if fresh else 'known flows'}"
            say(case)
            direct = Traffic(plans.BRIDGE_MAC, TO_NOWHERE[4], "udp", fresh=fresh)
            found = compare(
                {
                    "direct": (full, direct),
                    "far": (full, rescued(4, near=False, fresh=fresh)),
                    "near": (full, rescued(4, near=True, fresh=fresh)),
                },
                rounds,
                rng,
                say,
            )
            rows += [
                results.row(case, "direct", "packets/s", found["direct"]),
                results.row(case, "rescued from another host's", "packets/s", found["far"]),
                results.row(case, "rescued from the same bridge's", "packets/s", found["near"]),
                ratio(case, "another host's to direct", found["far"], found["direct"]),
                ratio(case, "the same bridge's to direct", found["near"], found["direct"]),
            ]
    return rows

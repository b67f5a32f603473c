"""What connection tracking still holds of places that died, or that are in use again.

Rule: read as a stream and filtered by the kernel where that is cheaper, so memory does not grow
with the number of connections of the host. Done in a thread: the kernel goes through its whole
table. Needs CAP_NET_ADMIN. `linux/netfilter/nfnetlink_conntrack.h`.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Collection, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from threading import Lock
from typing import Final, NamedTuple

import trio

from discod.kernel.netlink import NETFILTER, Message, NetlinkFailed, Request
from discod.log import fields
from discod.model.rescue import Place
from discod.rescue.blocking import BlockingNetlink
from discod.rescue.conntrack_codec import (
    DELETE,
    GET,
    Entry,
    Side,
    Sieve,
    Walk,
    dump,
    lookup,
    read,
    walks,
)
from discod.rescue.flows import Flow

log = logging.getLogger(__name__)

LIMIT: Final = 5.0
"""Seconds for one look at the whole table."""
FLOWS: Final = 65_536
"""Connections at most that are named; others end with their next packet, by the packet filter."""
_DELETED_TOGETHER: Final = 256


class Ended(NamedTuple):
    """What became of the flows of places that died."""

    deleted: int
    """Entries of UDP, and of TCP connections that were still being opened: the next datagram or SYN
    is looked at anew, and translated."""
    flows: tuple[Flow, ...]
    """TCP connections that the dead were answering, for `sockets.cut`. Their entries stay: the
    reset that ends them has to find them."""


async def end_flows(places: Collection[Place], *, limit: float = LIMIT) -> Ended:
    """End what these places were answering, translated to them or not.

    Args:
        places: All that is dead, with the containers' own places behind published ones.
        limit: Seconds.

    Raises:
        OSError: no connection tracking, no right to it, or not done in time (then part is done).
    """
    dead = frozenset(places)
    flows: list[Flow] = []

    def ends(entry: Entry) -> bool:
        if entry.answers not in dead:
            return False
        if entry.flow.protocol == "udp" or entry.opening:
            return True
        if len(flows) < FLOWS:
            flows.append(entry.flow)
        return False

    deleted = await trio.to_thread.run_sync(
        _sweep, dead, "answers", ends, time.monotonic() + limit, abandon_on_cancel=True
    )
    if len(flows) == FLOWS:
        log.warning("too many connections to places that died", extra=fields(most=FLOWS))
    return Ended(deleted, tuple(flows))


async def end_late(places: Collection[Place], *, limit: float = LIMIT) -> int:
    """End what these places have begun by an answer that came after `end_flows`; how many.

    Where a datagram was being answered while its entry went, the answer makes an entry of its own:
    the client's next datagram is a reply by it, and would not be looked at anew, for ever.

    Raises:
        OSError: as `end_flows`.
    """
    dead = frozenset(place for place in places if place.protocol == "udp")

    def ends(entry: Entry) -> bool:
        flow = entry.flow
        return Place(flow.client, flow.client_port, flow.protocol) in dead

    return await trio.to_thread.run_sync(
        _sweep, dead, "asks", ends, time.monotonic() + limit, abandon_on_cancel=True
    )


async def forget(places: Collection[Place], *, limit: float = LIMIT) -> int:
    """Let UDP flows to places that are in use again go there, and no longer to a sibling.

    Returns how many were deleted. TCP connections to a sibling stay: they are its own now.

    Raises:
        OSError: as `end_flows`.
    """
    used = frozenset(place for place in places if place.protocol == "udp")

    def ends(entry: Entry) -> bool:
        return (
            entry.translated
            and entry.flow.protocol == "udp"
            and entry.flow.place in used
            and entry.answers not in used
        )

    return await trio.to_thread.run_sync(
        _sweep, used, "asked", ends, time.monotonic() + limit, abandon_on_cancel=True
    )


def _sweep(
    places: AbstractSet[Place], side: Side, ends: Callable[[Entry], bool], until: float
) -> int:
    """Delete the entries for which `ends`; how many."""
    deleted = 0
    some: list[Request] = []
    with ExitStack() as stack:
        if not places:
            return 0
        reader = stack.enter_context(BlockingNetlink(NETFILTER, until))
        killer = stack.enter_context(BlockingNetlink(NETFILTER, until))
        for walk in walks(places):
            for entry in _entries(reader, walk, places, side):
                if not ends(entry):
                    continue
                some.append(Request(DELETE, 0, entry.delete))
                if len(some) == _DELETED_TOGETHER:
                    deleted += killer.ask(some).count(0)
                    some = []
            # Not only after the last: until then datagrams go to who is dead.
            if some:
                deleted += killer.ask(some).count(0)
                some = []
    return deleted


def _entries(
    reader: BlockingNetlink, walk: Walk, places: AbstractSet[Place], side: Side
) -> Iterator[Entry]:
    sieve = Sieve(places, side, walk.version)
    for message in reader.stream(GET, dump(walk, side)):
        if not sieve.drops(message.payload):
            entry = read(message.payload)
            if entry is not None:
                yield entry


class Lookup:
    """Who answers one flow, asked by any thread of the namespace in which this was made."""

    def __init__(self, until: float) -> None:
        self._lock = Lock()
        self._kernel = BlockingNetlink(NETFILTER, until)

    def close(self) -> None:
        """Give the socket back."""
        self._kernel.close()

    def answers(self, flows: Collection[Flow]) -> list[Place | None]:
        """Of each flow who answers it; None: not tracked.

        Raises:
            NetlinkFailed: no connection tracking, no right to it, or not done in time.
        """
        with self._lock:
            said = self._kernel.ask([Request(GET, 0, lookup(flow)) for flow in flows])
        found: list[Place | None] = []
        for answer in said:
            if isinstance(answer, Message):
                entry = read(answer.payload)
                found.append(entry and entry.answers)
            elif answer == errno.ENOENT:
                found.append(None)
            else:
                raise NetlinkFailed(answer, "a connection cannot be looked up")
        return found

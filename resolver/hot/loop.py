"""The loop of a worker: receive a batch, look up, send a batch.

Rule: everything in this file runs for each query or each batch, and nothing else is in it. Changes
are taken between two batches, so an answer is never older than the last change received; the loop
never waits but for the kernel to have something for it.
"""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Final

from resolver.faults import Faults
from resolver.hot.entry import NOTHING, SILENT, Found
from resolver.hot.memo import Memo
from resolver.hot.mmsg import Batch, Peer, address_of, packed, unpiece
from resolver.hot.protocol import Delegated, delegated
from resolver.hot.slots import (
    COOKIES_BAD,
    COOKIES_NEW,
    COOKIES_VALID,
    DELEGATED,
    HEARTBEAT,
    IDLE,
    MEMO,
    OVERFLOW,
    QUERIES,
    RATE_DROPPED,
    RATE_SLIPPED,
    SECONDS,
    SEND_FAILED,
    SILENT_PACKETS,
    SLOW,
    bucket,
)
from resolver.rrl import Limiter

DELEGATED_REFUSED_MAX: Final = 1000
"""Queries a second of clients that are not allowed which the daemon is asked to refuse; more are
dropped, so that they cannot keep it busy."""
CLIENTS_MAX: Final = 65536
"""Clients remembered as allowed; when there are more, all are looked at again."""

_NO_KIND: Final = NOTHING[2]


class Loop:
    """Serves sockets from one memory.

    Args:
        memo: Where answers come from, in the form of `resolver.hot.mmsg.piece`.
        slots: The row of counters (`resolver.hot.slots`).
        batches: One for each socket.
        control: Stream of changes.
        queries: Where to put what the daemon is to answer.
        changes: Called when `control` has something; False ends the loop.
        allowed: Whether a client (packed address) is answered.
    """

    def __init__(
        self,
        memo: Memo[bytes],
        slots: memoryview,
        batches: Sequence[Batch],
        control: socket.socket,
        queries: socket.socket,
        changes: Callable[[], bool],
        allowed: Callable[[bytes], bool],
    ) -> None:
        self._memo = memo
        self._slots = slots
        self._batches = {batch.fd: (i, batch) for i, batch in enumerate(batches)}
        self._control = control.fileno()
        self._queries = queries
        self._changes = changes
        self._allowed = allowed
        self._clients: set[Peer] = set()
        self._denied: set[Peer] = set()
        self._denied_left = 0
        self._over: frozenset[Peer] = frozenset()  # clients of this batch that may be above
        self._faults = Faults()
        self.limiter: Limiter | None = None
        self.serving = False
        """Whether to look at the sockets."""
        self.ready = False
        """Whether there is anything to answer from; until then all is the daemon's."""

    def forget_clients(self) -> None:
        """Look at every client again: who is allowed may have changed."""
        self._clients.clear()
        self._denied.clear()

    def run(self) -> None:
        """Serve until the control stream ends."""
        poll = select.epoll()
        poll.register(self._control, select.EPOLLIN)
        slots = self._slots
        listening = False
        second = 0
        while True:
            if self.serving and not listening:
                for fd in self._batches:
                    poll.register(fd, select.EPOLLIN)
                listening = True
            slots[HEARTBEAT] = time.monotonic_ns()
            events = poll.poll(IDLE)
            slots[HEARTBEAT] = time.monotonic_ns()
            now = int(time.time())
            if now != second:
                second = self._memo.now = now
                self._each_second()
            # Changes first: no answer is older than what has arrived.
            for fd, _ in events:
                if fd == self._control and not self._changes():
                    poll.close()
                    return
            for fd, _ in events:
                if fd != self._control:
                    self._serve(*self._batches[fd])

    def _each_second(self) -> None:
        self._denied_left = DELEGATED_REFUSED_MAX
        self._tell()

    def _tell(self) -> None:
        """Write what others count for us."""
        memo, slots = self._memo, self._slots
        slots[MEMO] = len(memo)
        slots[SLOW] = memo.slow
        slots[COOKIES_VALID] = memo.verdicts["valid"]
        slots[COOKIES_NEW] = memo.verdicts["new"]
        slots[COOKIES_BAD] = memo.verdicts["bad"]
        slots[SEND_FAILED] = sum(batch.failed for _, batch in self._batches.values())

    def _serve(self, index: int, batch: Batch) -> None:
        """One batch of one socket."""
        count = batch.receive()
        if not count:
            return
        start = time.monotonic_ns()
        slots = self._slots
        peers = batch.peers(count)
        clients: Collection[Peer] = peers
        # Whether each query has to be looked at for more than its octets: hardly ever.
        checked = not self.ready
        if self.limiter is not None:
            clients = counted = Counter(peers)
            self._over = self._above_rate(self.limiter, counted)
            checked = checked or bool(self._over)
        if not self._clients.issuperset(clients):
            self._admit(clients)
            checked = checked or not self._clients.issuperset(clients)
        # Each step is one pass over the whole batch and takes few turns of the interpreter for a
        # query, or none: that, and misses of the caches that overlap, is what makes it fast. They
        # overlap best in `zip`, which does nothing but take the next of each iterator.
        packets = batch.packets(count)
        found = next(zip(*map(self._memo.answers.__getitem__, packets), strict=True))
        kinds = batch.fill(found)
        odd = checked or _NO_KIND in kinds
        gaps = self._complete(index, batch, peers, packets, kinds, checked) if odd else ()
        for kind in set(kinds):
            if kind != _NO_KIND:
                slots[kind] += kinds.count(kind)
        first = 0
        for gap in gaps:
            if first < gap:
                batch.send(first, gap)
            first = gap + 1
        if first < count:
            batch.send(first, count)
        self._memo.retired.clear()
        took = time.monotonic_ns() - start
        answered = count - len(gaps)
        slots[QUERIES] += count
        slots[SECONDS] += took * answered
        slots[bucket(took)] += answered
        if odd:
            self._tell()

    # What is not in the first tier --------------------------------------------------------------

    def _complete(
        self,
        index: int,
        batch: Batch,
        peers: Sequence[Peer],
        packets: Sequence[bytes],
        kinds: bytearray,
        checked: bool,
    ) -> list[int]:
        """Put in what the first tier did not have, everything if `checked`; slots without answer.

        Of those SILENT_PACKETS counts the ones that are not handed on.
        """
        gaps = []
        hold = self._memo.retired.append
        answers = self._memo.answers
        put = batch.put
        for slot, kind in enumerate(kinds):
            if kind and not checked:
                continue
            key = packets[slot]
            answer = self._stop(slot, index, batch, peers[slot], key) if checked else None
            if answer is None:
                if kind:
                    continue
                # A question that stands in the batch twice has been found meanwhile.
                if key in answers and (ready := next(answers[key])) is not answers.nothing:
                    address, size, kinds[slot] = unpiece(ready)
                    put(slot, address, size)
                    continue
                answer = self._find(slot, index, batch, key)
            address, size, kind, body = answer
            if kind < 0:
                gaps.append(slot)
                kinds[slot] = _NO_KIND
            else:
                put(slot, address or address_of(body), size)
                kinds[slot] = kind
                hold(body)  # until it is sent
        return gaps

    def _find(self, slot: int, index: int, batch: Batch, key: bytes) -> Found:
        """The answer to one query, `SILENT` when there is none from here."""
        try:
            answer = self._memo.find(key, batch.client(slot))
        except Exception:  # noqa: BLE001 - a fault of ours over one packet must not end the service
            self._faults.report(key)
            answer = None
        if answer is None:
            self._delegate(slot, index, batch, key)
            return SILENT
        if answer[2] < 0:
            self._slots[SILENT_PACKETS] += 1
        return answer

    def _delegate(self, slot: int, index: int, batch: Batch, key: bytes) -> None:
        """Hand a query to the daemon; when it does not keep up, the query is dropped."""
        query = Delegated(index, batch.source(slot), batch.local(slot), batch.id(slot) + key)
        try:
            self._queries.send(delegated(query), socket.MSG_DONTWAIT)
            self._slots[DELEGATED] += 1
        except OSError:
            self._slots[OVERFLOW] += 1

    def _admit(self, clients: Collection[Peer]) -> None:
        """Look at the clients that are new."""
        if len(self._clients) > CLIENTS_MAX:
            self._clients.clear()
        if len(self._denied) > CLIENTS_MAX:
            self._denied.clear()
        for client in set(clients) - self._clients:
            (self._clients if self._allowed(packed(client)) else self._denied).add(client)

    def _above_rate(self, limiter: Limiter, counted: Counter[Peer]) -> frozenset[Peer]:
        """Count a whole batch, but for the clients that come above the rate by it: these."""
        now = self._memo.now
        take = limiter.take
        return frozenset([c for c, n in counted.items() if not take(packed(c), n, now)])

    def _stop(self, slot: int, index: int, batch: Batch, peer: Peer, key: bytes) -> Found | None:
        """What becomes of a query that is not to be answered as usual; None: it is."""
        if not self.ready:
            self._delegate(slot, index, batch, key)
            return SILENT
        if peer in self._denied:
            if self._denied_left > 0:
                self._denied_left -= 1
                self._delegate(slot, index, batch, key)
            else:
                self._slots[OVERFLOW] += 1
            return SILENT
        if self.limiter is None or peer not in self._over:
            return None
        client = packed(peer)
        action = self.limiter.verdict(client, self._memo.now)
        if action == "pass":
            return None
        answer = self._memo.above_rate(key, client, action)
        if answer is not None:
            self._slots[RATE_DROPPED if action == "drop" else RATE_SLIPPED] += 1
        return answer

"""Tells the other hosts of ends at once, and hears theirs: one UDP datagram instead of a consensus.

Rule: stands between the roster and the keeper, and adds speed only. Whatever happens to a datagram,
the store says the same a few milliseconds later, and the store's word is final. See
`discod.model.hint` for why a wrong, late or forged one does no harm.
"""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import trio

from discod.datagram import bound
from discod.keeper import Keeper
from discod.log import fields
from discod.metrics import Metrics
from discod.model.endpoint import Address, Endpoint, EndpointId, Withdrawal
from discod.model.hint import (
    HOLD,
    REPEAT,
    SETTLED,
    SIZE_MAX,
    Down,
    Hint,
    HintError,
    decode,
    encode,
)
from discod.model.rescue import Place

log = logging.getLogger(__name__)

BATCH = 64
"""Datagrams taken before other tasks get their turn."""
REPEATED_MAX = 1024
"""Endpoints that are told of again in one round while the store is away; more wait for it."""


REPEATED_MIN = 3
"""How often an end is told again although the store here has confirmed it."""
LOOK = 0.25
"""Seconds between two looks at the hints that hold."""


@dataclass(slots=True)
class _Held:
    """A hint that holds; times are trio's."""

    taken: float
    contradicted: float = 0.0

    def over(self, now: float, heard: float) -> bool:
        """Whether the store, last `heard` of then, does not stand by it; see `SETTLED`."""
        if not self.contradicted and heard >= self.taken + SETTLED:
            self.contradicted = now
        settled = self.contradicted and now >= self.contradicted + SETTLED
        return bool(settled) and now >= self.taken + HOLD


@dataclass(frozen=True, slots=True)
class HintSettings:
    """Where hints are taken."""

    host: str
    domain: str
    address: Address
    port: int


class Hints:
    """Sends and takes hints; to the roster it is the local Catalog (`LocalCatalog`)."""

    def __init__(self, keeper: Keeper, settings: HintSettings, metrics: Metrics) -> None:
        self._keeper = keeper
        self._settings = settings
        self._metrics = metrics
        self._key = secrets.token_bytes(32)
        self._socket: socket.socket | None = None
        self.port = 0
        """Where others send hints; 0: they cannot."""
        self._said: dict[EndpointId, tuple[Down, int]] = {}  # with how often it was told again
        self._held: dict[EndpointId, _Held] = {}  # hints of others
        self._expiry_wanted = trio.Event()
        keeper.listen(lambda _catalog, _change: self._tell_ends())

    def bind(self) -> int:
        """Take the port; 0, and a line in the log, when it cannot be had: then without hints."""
        at = self._settings
        try:
            sock = bound(at.address, at.port)
        except OSError as error:
            log.error(
                "no hints: other hosts learn of ends from the store alone",
                extra=fields(address=at.address, port=at.port, error=error.strerror),
            )
            return 0
        self._socket = sock
        self.port = int(sock.getsockname()[1])
        return self.port

    @property
    def key(self) -> str:
        """What this host's hints are signed with, for its own record; empty without a port."""
        return self._key.hex() if self.port else ""

    # Out ----------------------------------------------------------------------------------------

    def suppress(self, withdrawals: Iterable[Withdrawal]) -> None:
        """Take endpoints of this host out here, and tell the others (`_tell_ends`).

        An endpoint's `revision` is the one at which the store is known to hold it: 0 where its
        record is about to be written, or was, and nobody has said so yet.
        """
        ended = tuple(withdrawals)
        self._keeper.suppress(ended)
        self._tell_ends({one.endpoint.id for one in ended})

    def _tell_ends(self, ended: Collection[EndpointId] = ()) -> None:
        """Tell of what this host has taken out and the store has, and of all that has just `ended`.

        Of the latter a record may be on its way; when it comes, its revision is told as well.
        """
        down = []
        for one, revision in self._keeper.unconfirmed():
            id_, written = one.endpoint.id, one.endpoint.revision
            told, _ = self._said.get(id_, (None, 0))
            if told is not None and told.at == one.at:
                if told.revision < revision:  # what was on its way has come
                    down.append(replace(told, revision=revision, place=None))
            elif revision or id_ in ended:
                place = None if written else Place(*one.endpoint.place)
                version = max(revision, written)
                down.append(Down(id_, version, one.reason, one.detail, one.at, place))
        if down:
            self._said.update({one.id: (one, 0) for one in down})
            self._send(Hint(self._settings.host, down=tuple(down)))

    def unsuppress(self, endpoints: Iterable[Endpoint]) -> None:
        """Take `suppress` back, and what the others were told of the version that is up again.

        Of any other they were told the truth, and the next version ends it: taken back, a record
        that their store still has would come up once more.
        """
        back = tuple(endpoints)
        self._keeper.unsuppress(back)
        told = tuple(one.id for one in back if self._is_up(one))
        for id_ in told:
            del self._said[id_]
        if told:
            self._send(Hint(self._settings.host, back=told))

    def _is_up(self, endpoint: Endpoint) -> bool:
        """Whether the very version is up, or is about to be, whose end was told."""
        up, said = self._keeper.catalog.endpoint(endpoint.id), self._said.get(endpoint.id)
        if said is None:
            return False
        revisions = {endpoint.revision, up.revision if up is not None else 0} - {0}
        return said[0].revision in revisions or said[0].place == endpoint.place

    def _send(self, hint: Hint) -> None:
        if self._socket is None:
            return
        packets = list(encode(hint, self._settings.domain, self._key))
        for host in self._keeper.catalog.hosts.values():
            if host.name == self._settings.host or not host.hint_port or not host.addresses:
                continue
            address = host.addresses[0]
            if address.version != self._settings.address.version:
                continue
            for packet in packets:
                try:
                    self._socket.sendto(packet, (str(address), host.hint_port))
                    self._metrics.hints_sent.inc()
                except OSError as error:  # no route, a full buffer: the store will say it
                    log.debug("hint not sent", extra=fields(host=host.name, error=error))

    # Tasks --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Receive, repeat and let go, until cancelled."""
        if self._socket is None:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, self._socket)
                nursery.start_soon(self._repeat)
                nursery.start_soon(self._let_go)
        finally:
            self._socket.close()
            self._socket = None

    async def _receive(self, sock: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(BATCH):
                try:
                    packet = sock.recv(SIZE_MAX + 1)
                except BlockingIOError:
                    break
                except OSError as error:  # an ICMP error of an earlier send; the socket is sound
                    log.debug("receive failed", extra=fields(error=error))
                    break
                self._take(packet)

    def _take(self, packet: bytes) -> None:
        try:
            hint = decode(packet, self._settings.domain, self._key_of)
        except HintError as error:
            self._metrics.hints_received.labels("refused").inc()
            log.debug("hint refused", extra=fields(error=error))
            return
        self._metrics.hints_received.labels("taken").inc()
        now = trio.current_time()
        for down in hint.down:
            self._held[down.id] = _Held(now)
        self._keeper.hint(hint.host, hint.down)
        for id_ in hint.back:
            self._held.pop(id_, None)
        if hint.back:
            self._keeper.unhint(hint.back, hint.host)
        self._expiry_wanted.set()

    def _key_of(self, host: str) -> bytes | None:
        record = self._keeper.catalog.hosts.get(host)
        if record is None or host == self._settings.host:
            return None
        try:
            return bytes.fromhex(record.hint_key)
        except ValueError:
            return None

    async def _repeat(self) -> None:
        """Tell again what the store has not confirmed: it may be away, for a while.

        A few times in any case: a datagram may be lost, and the store of another host be away.
        """
        while True:
            await trio.sleep(REPEAT)
            stored = {one.endpoint.id: revision for one, revision in self._keeper.unconfirmed()}
            self._said = {
                id_: (down, times + 1)
                for id_, (down, times) in self._said.items()
                if times < REPEATED_MIN or stored.get(id_) or (down.place and id_ in stored)
            }
            again = tuple(down for down, _ in self._said.values())[:REPEATED_MAX]
            if again:
                self._send(Hint(self._settings.host, down=again))

    async def _let_go(self) -> None:
        """Forget the hints that neither the store nor their sender stands by any more."""
        while True:
            await self._expiry_wanted.wait()
            self._expiry_wanted = trio.Event()
            while self._held:
                await trio.sleep(LOOK)
                now = trio.current_time()
                heard = now - self._keeper.age
                over = [id_ for id_, held in self._held.items() if held.over(now, heard)]
                for id_ in over:
                    del self._held[id_]
                self._keeper.unhint(over)


def settings_for(
    host: str, domain: str, addresses: tuple[Address, ...], port: int, store: str
) -> HintSettings | None:
    """Where this host takes hints; None where it takes none: switched off, or alone."""
    if not port or store == "memory" or not addresses:
        return None
    return HintSettings(host, domain, addresses[0], port)


def hints_for(
    keeper: Keeper,
    host: str,
    domain: str,
    addresses: tuple[Address, ...],
    store: str,
    port: int,
    metrics: Metrics,
) -> Hints | None:
    """Hints of this host, with their port taken; None where there are none."""
    settings = settings_for(host, domain, addresses, port, store)
    if settings is None:
        return None
    hints = Hints(keeper, settings, metrics)
    hints.bind()
    return hints

"""The sockets that peers connect to.

Rule: only a peer's address gets further than `accept`; everybody else is reset and counted, so that
strangers hold nothing here. A socket that cannot be bound is tried again (backoff, 30 s at most).
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final

import trio

from calico_bgp import tcp
from calico_bgp.prefix import Address
from calico_bgp.sparing import Sparing
from calico_bgp.transport import Accept, Dial, Link
from discod.backoff import Backoff
from discod.log import fields
from discod.model.settings import ListenAddress

log = logging.getLogger(__name__)

BIND_FIRST: Final = 0.5
BIND_MOST: Final = 30.0
"""Seconds between tries to bind: the port may be another speaker's for long."""
ACCEPT_PAUSE: Final = 0.2
"""Seconds after an `accept` that failed for want of descriptors or memory."""
_GONE: Final = {errno.ECONNABORTED, errno.EPROTO, errno.EINTR}
"""The connection ended before it was accepted: nothing to wait for."""


class TcpTransport:
    """The real network."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._endpoints: frozenset[ListenAddress] = frozenset()
        self._dials: dict[Address, Dial] = {}
        self._open: dict[ListenAddress, trio.socket.SocketType] = {}
        self._scopes: dict[ListenAddress, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._accept: Accept | None = None
        self.strangers = 0
        self._sparing = Sparing()

    async def connect(self, dial: Dial) -> Link:
        """Connect to a peer."""
        return await tcp.connect(dial)

    def expect(self, endpoints: Iterable[ListenAddress], dials: Mapping[Address, Dial]) -> None:
        """Listen at these from now on, for these peers."""
        before, self._dials = self._dials, dict(dials)
        self._endpoints = frozenset(endpoints)
        for endpoint, sock in self._open.items():
            self._keys(endpoint, sock, before)
            self._hops(endpoint, sock)
        self._update()

    async def serve(self, accept: Accept) -> None:
        """Listen until cancelled."""
        self._accept = accept
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                self._update()
                await trio.sleep_forever()
            finally:
                self._nursery = None
                self._scopes.clear()

    def _update(self) -> None:
        if self._nursery is None:
            return
        for endpoint in self._scopes.keys() - self._endpoints:
            self._scopes.pop(endpoint).cancel()
        for endpoint in self._endpoints - self._scopes.keys():
            scope = self._scopes[endpoint] = trio.CancelScope()
            self._nursery.start_soon(self._listen, endpoint, scope)

    async def _listen(self, endpoint: ListenAddress, scope: trio.CancelScope) -> None:
        backoff = Backoff(self._rng, BIND_FIRST, BIND_MOST)
        failed = ""
        with scope:
            while True:  # tries to bind, after each failure
                try:
                    sock = await tcp.listen(endpoint.address, endpoint.port)
                except OSError as error:
                    if (said := tcp.why(error)) != failed:
                        log.error("cannot listen for BGP", extra=fields(at=_at(endpoint), why=said))
                        failed = said
                    await trio.sleep(backoff.pause())
                    continue
                log.info("listening for BGP", extra=fields(at=_at(endpoint)))
                with sock:
                    self._open[endpoint] = sock
                    try:
                        self._keys(endpoint, sock, {})
                        self._hops(endpoint, sock)
                        await self._serve(sock)
                    finally:
                        del self._open[endpoint]

    def _keys(
        self, endpoint: ListenAddress, sock: trio.socket.SocketType, before: Mapping[Address, Dial]
    ) -> None:
        """Passwords by peer: without its key a peer's segments are dropped by the kernel."""
        for address in before.keys() | self._dials.keys():
            if address.version != endpoint.address.version:
                continue
            old = before[address].password if address in before else b""
            new = self._dials[address].password if address in self._dials else b""
            if old == new:
                continue
            try:
                tcp.set_key(sock, address, new)
            except OSError as error:
                why = tcp.why(error)
                log.error("cannot set a TCP MD5 key", extra=fields(peer=address, why=why))

    def _hops(self, endpoint: ListenAddress, sock: trio.socket.SocketType) -> None:
        """Where all peers have GTSM, nothing from further away is answered at all (RFC 5082).

        Else whoever is far can open connections, and is dropped once it is known to be whom.
        """
        version = endpoint.address.version
        hops = [dial.gtsm for dial in self._dials.values() if dial.address.version == version]
        least = max(hops) if hops and all(hops) else 0
        tcp.set_hops(sock, tcp.family_of(endpoint.address), ttl=tcp.FAR, gtsm=least)

    async def _serve(self, listening: trio.socket.SocketType) -> None:
        while True:
            try:
                sock, name = await listening.accept()
            except OSError as error:
                if error.errno not in _GONE:
                    if self._sparing.lets("accept", trio.current_time()):
                        why = tcp.why(error)
                        log.error("cannot accept a BGP connection", extra=fields(why=why))
                    await trio.sleep(ACCEPT_PAUSE)
                continue
            try:
                self._take(sock, ip_address(name[0].partition("%")[0]))
            except OSError:  # reset by the peer meanwhile
                sock.close()

    def _take(self, sock: trio.socket.SocketType, remote: Address) -> None:
        dial = self._dials.get(remote)
        if dial is None or self._accept is None:
            self._stranger(sock, remote, "no peer of ours")
            return
        family = tcp.family_of(remote)
        tcp.prepare(sock, family)
        tcp.set_hops(sock, family, ttl=dial.ttl, gtsm=dial.gtsm)
        local = tcp.local_of(sock)
        if dial.source is not None and dial.source != local:
            self._stranger(sock, remote, "not to the address that is for it")
        elif not self._accept(Link(trio.SocketStream(sock), local, remote)):
            self._stranger(sock, remote, "too many connections")

    def _stranger(self, sock: trio.socket.SocketType, remote: Address, why: str) -> None:
        self.strangers += 1
        tcp.refuse(sock)
        if self._sparing.lets("stranger", trio.current_time()):
            log.warning(
                "BGP connection refused",
                extra=fields(remote=remote, why=why, refused=self.strangers),
            )


def _at(endpoint: ListenAddress) -> str:
    shown = f"[{endpoint.address}]" if endpoint.address.version == 6 else str(endpoint.address)
    return f"{shown}:{endpoint.port}"

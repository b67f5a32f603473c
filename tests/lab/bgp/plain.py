"""`calico_bgp.session` over plain sockets: the core against real speakers, without an event loop.

Rule: the session does what its actions say, in their order, and nothing else; time passes only in
`pump` and what calls it, so a test decides when we are held up. What the peer sends is kept, octet
by octet (`heard`).
"""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from itertools import count
from types import TracebackType
from typing import Any, Self

from calico_bgp import policy
from calico_bgp.actions import Action, Arm, Cancel, Close, Connect, Down, Routes, Send
from calico_bgp.as_path import AS_SEQUENCE, Segment
from calico_bgp.attributes import Attributes, community_shown
from calico_bgp.peer import Peer
from calico_bgp.prefix import IPV4, IPV6, Prefix, of_network
from calico_bgp.session import Session
from tests.lab.bgp.fabric import Site
from tests.lab.bgp.router import Seen, Told

PORT = 179
TCP_MD5SIG = 14
ALL = policy.PrefixList(policy.Rule(ip_network(text), ge=0) for text in ("0.0.0.0/0", "::/0"))
_ids = count(1)


class Plain:
    """One session of ours with the peer at `address`; a context manager.

    Args:
        site: Where it runs.
        peer: Who both are.
        address: The peer's.
        password: Of TCP MD5; empty: none.
        listen: The peer may connect to us.
    """

    def __init__(
        self, site: Site, peer: Peer, address: str, *, password: str = "", listen: bool = True
    ) -> None:
        self.site, self.peer, self.address = site, peer, address
        self.rng = random.Random(site.n)
        version = ip_address(address).version
        self._family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._source = site.ipv4 if version == 4 else site.ipv6
        self._password = password
        hops = {IPV4: ip_address(site.ipv4), IPV6: ip_address(site.ipv6)}
        self._peering = policy.Peering(peer.local_asn, peer.peer_asn, peer.router_id, hops)
        self._policy = policy.Policy(imports=ALL, exports=ALL)
        self.session = Session(peer, policy.Importer(self._policy, self._peering), self.rng)
        self.actions: list[Action] = []
        self.learned: dict[Prefix, Attributes] = {}
        self.gone = 0
        """Routes that were ever withdrawn."""
        self.heard: list[bytes] = []
        """Each chunk of octets that came."""
        self.outgoing: dict[int, bool] = {}
        """Connections that are open, with whether we began them."""
        self._told: dict[Prefix, Attributes] = {}
        self._due: float | None = None
        self._socks: dict[int, socket.socket] = {}
        self._pending: dict[int, bytes] = {}
        self._connecting: socket.socket | None = None
        self._listener = self._listen() if listen else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.vanish()

    @property
    def log(self) -> str:
        """What the session has done and told."""
        return "\n".join(str(one)[:300] for one in self.actions[-40:])

    # Doing --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Begin, and say that what is announced is all there is."""
        self._do(self.session.synced(time.monotonic()))
        self._do(self.session.start(time.monotonic()))
        return self

    def stop(self, text: str = "") -> None:
        """As an operator does; until all is sent."""
        self._do(self.session.stop(time.monotonic(), text))
        self.until(lambda: not self._socks, deadline=5, what="closed")

    def abandon(self) -> None:
        """As for a restart: no NOTIFICATION; the listener goes too."""
        self._do(self.session.abandon())
        self.vanish()

    def vanish(self) -> None:
        """As kill -9 does."""
        ends = [*self._socks.values(), self._connecting, self._listener]
        for sock in ends:
            if sock is not None:
                sock.close()
        self._socks.clear()
        self._pending.clear()
        self._connecting = self._listener = None

    def announce(self, routes: Mapping[str, Told]) -> None:
        """Announce exactly these from now on."""
        made: dict[Told, Attributes] = {}
        self._told = {}
        for text, told in routes.items():
            if told not in made:
                made[told] = attributes(told)
            self._told[of_network(ip_network(text))] = made[told]
        told_now = policy.export(self._told, self._policy, self._peering)
        self._do(self.session.desired(time.monotonic(), told_now))

    def settings(self, **changes: Any) -> None:
        """Another policy, before anything is announced."""
        self._policy = replace(self._policy, **changes)

    # Seeing -------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether the session is established."""
        return self.session.established is not None

    @property
    def downs(self) -> list[Down]:
        """All ends of sessions and attempts so far."""
        return [one for one in self.actions if isinstance(one, Down)]

    def routes(self, version: int = 4) -> dict[str, Seen]:
        """What was learned, in the form in which routers say it."""
        family = IPV4 if version == 4 else IPV6
        return {str(p): seen(a) for p, a in self.learned.items() if p.family == family}

    # Time ---------------------------------------------------------------------------------------

    def until(self, fits: Callable[[], Any], *, deadline: float = 15.0, what: str = "") -> None:
        """Let time pass until it fits.

        Raises:
            AssertionError: it did not.
        """
        end = time.monotonic() + deadline
        while not fits():
            if time.monotonic() > end:
                raise AssertionError(f"not within {deadline} s: {what}; {self.session.last}")
            self.turn(0.02)

    def pump(self, seconds: float) -> None:
        """Let so much time pass."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.turn(min(left, 0.02))

    def turn(self, wait: float) -> None:
        """One round: all that is ready, or `wait` seconds."""
        poll = select.poll()
        ready: dict[int, Callable[[], None]] = {}
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
            ready[self._listener.fileno()] = self._accept
        if self._connecting is not None:
            poll.register(self._connecting, select.POLLOUT)
            ready[self._connecting.fileno()] = self._finish
        for id_, sock in self._socks.items():
            poll.register(sock, select.POLLIN | (select.POLLOUT if self._pending[id_] else 0))
            ready[sock.fileno()] = lambda id_=id_: self._exchange(id_)  # type: ignore[misc]
        if self._due is not None:
            wait = min(wait, max(self._due - time.monotonic(), 0))
        for fd, _ in poll.poll(wait * 1000):
            ready[fd]()
        if self._due is not None and time.monotonic() >= self._due:
            self._do(self.session.tick(time.monotonic()))

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            self.actions.append(action)
            match action:
                case Connect():
                    self._connect()
                case Cancel():
                    if self._connecting is not None:
                        self._connecting.close()
                        self._connecting = None
                case Send(id_, octets):
                    self._pending[id_] += octets
                    self._flush(id_)
                case Close(id_):
                    self._close(id_)
                case Arm(at):
                    self._due = at
                case Routes(change):
                    self.gone += len(change.withdrawn)
                    for prefix in change.withdrawn:
                        del self.learned[prefix]
                    self.learned.update(change.announced)

    # Sockets ------------------------------------------------------------------------------------

    def _socket(self) -> socket.socket:
        sock = self.site.space.socket(self._family, socket.SOCK_STREAM)
        if self._password:
            set_md5(sock, self.address, self._password)
        return sock

    def _listen(self) -> socket.socket:
        sock = self._socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self._source, PORT))
        sock.listen(8)
        sock.setblocking(False)
        return sock

    def _connect(self) -> None:
        sock = self._socket()
        sock.setblocking(False)
        sock.bind((self._source, 0))
        sock.connect_ex((self.address, PORT))
        self._connecting = sock

    def _finish(self) -> None:
        sock, self._connecting = self._connecting, None
        assert sock is not None
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
            self._do(self.session.connect_failed(time.monotonic(), f"errno {error}"))
        else:
            self._begin(sock, outgoing=True)

    def _accept(self) -> None:
        assert self._listener is not None
        sock, (address, *_) = self._listener.accept()
        if address != self.address:
            sock.close()
            return
        sock.setblocking(False)
        self._begin(sock, outgoing=False)

    def _begin(self, sock: socket.socket, *, outgoing: bool) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        id_ = next(_ids)
        self._socks[id_], self._pending[id_], self.outgoing[id_] = sock, b"", outgoing
        self._do(self.session.connected(time.monotonic(), id_, outgoing=outgoing))

    def _exchange(self, id_: int) -> None:
        if id_ not in self._socks:
            return
        self._flush(id_)
        try:
            octets = self._socks[id_].recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._forget(id_)
            self._do(self.session.lost(time.monotonic(), id_, str(error)))
            return
        if octets:
            self.heard.append(octets)
            self._do(self.session.received(time.monotonic(), id_, octets))
        else:
            self._forget(id_)
            self._do(self.session.lost(time.monotonic(), id_))

    def _flush(self, id_: int) -> None:
        try:
            while self._pending[id_]:
                sent = self._socks[id_].send(self._pending[id_])
                self._pending[id_] = self._pending[id_][sent:]
        except BlockingIOError:
            pass  # the rest goes when there is room
        except OSError:
            self._pending[id_] = b""  # reading says why

    def _close(self, id_: int) -> None:
        if id_ in self._socks:
            # What does not fit at once is lost: bounded, and enough for a NOTIFICATION.
            self._socks[id_].setblocking(True)
            self._socks[id_].settimeout(2)
            if self._pending[id_]:
                self._socks[id_].sendall(self._pending[id_])
            self._forget(id_)

    def _forget(self, id_: int) -> None:
        self._socks.pop(id_).close()
        del self._pending[id_], self.outgoing[id_]


def set_md5(sock: socket.socket, address: str, password: str) -> None:
    """RFC 2385, by tcp_md5sig of linux/tcp.h."""
    packed = ip_address(address).packed
    if len(packed) == 4:
        storage = struct.pack("=HH4s", socket.AF_INET, 0, packed)
    else:
        storage = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, packed, 0)
    key = password.encode()
    value = struct.pack("=128sBBHi80s", storage, 0, 0, len(key), 0, key)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, value)


def peer(site: Site, asn: int, theirs: int, **more: Any) -> Peer:
    """The configuration of a session."""
    return Peer(asn, theirs, IPv4Address(more.pop("router_id", site.router_id)), **more)


def attributes(told: Told) -> Attributes:
    """As the core has it, without a next hop."""
    return Attributes(
        as_path=(Segment(AS_SEQUENCE, told.path),) if told.path else (),
        med=told.med,
        communities=tuple(sorted(_community(one) for one in told.communities)),
        large_communities=tuple(sorted(_large(one) for one in told.large)),
    )


def seen(a: Attributes) -> Seen:
    """As a router would say it."""
    return Seen(
        path=tuple(asn for _, asns in a.as_path for asn in asns),
        med=a.med,
        communities=frozenset(map(community_shown, a.communities)),
        large=frozenset(":".join(map(str, one)) for one in a.large_communities),
        next_hop=str(a.next_hop),
        local_pref=a.local_pref,
    )


def _community(text: str) -> int:
    high, low = text.split(":")
    return int(high) << 16 | int(low)


def _large(text: str) -> tuple[int, int, int]:
    a, b, c = (int(word) for word in text.split(":"))
    return a, b, c

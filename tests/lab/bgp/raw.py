"""A peer that sends what a script says, octet by octet.

Rule: it knows OPEN and KEEPALIVE and nothing else; every wait has a deadline.
"""

from __future__ import annotations

import socket
import time
from ipaddress import IPv4Address, ip_address
from types import TracebackType
from typing import Self

from calico_bgp.capability import Capabilities
from calico_bgp.message import (
    KEEPALIVE_OCTETS,
    NOTIFICATION,
    OPEN,
    UPDATE,
    Keepalive,
    Stream,
    frame,
    write,
)
from calico_bgp.notification import Notification, read_notification
from calico_bgp.opening import Open
from calico_bgp.prefix import FAMILIES
from tests.lab.bgp.fabric import Site


class Raw:
    """One connection that it begins itself."""

    def __init__(self, site: Site, address: str, asn: int) -> None:
        family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
        self._sock = site.space.socket(family, socket.SOCK_STREAM)
        self._sock.settimeout(5)
        self._sock.connect((address, 179))
        self._stream = Stream()
        self.asn, self.site = asn, site
        self.messages: list[tuple[int, bytes]] = []
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sock.close()

    def open(self, hold_time: int = 90) -> None:
        """Send a usual OPEN and the KEEPALIVE that answers the peer's."""
        able = Capabilities(FAMILIES, True, self.asn, None)
        self.send(write(Open(self.asn, hold_time, IPv4Address(self.site.router_id), able)))
        self.send(write(Keepalive()))

    def update(self, attributes: str, nlri: str = "", withdrawn: str = "") -> None:
        """Send an UPDATE whose parts are given in hexadecimal."""
        field, gone = bytes.fromhex(attributes), bytes.fromhex(withdrawn)
        head = len(gone).to_bytes(2, "big") + gone + len(field).to_bytes(2, "big") + field
        self.send(frame(UPDATE, head + bytes.fromhex(nlri)))

    def send(self, octets: bytes) -> None:
        """Send octets."""
        self._sock.sendall(octets)

    def listen(self, seconds: float) -> None:
        """Take what comes for so long; answer nothing."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self.closed:
            self._sock.settimeout(left)
            try:
                octets = self._sock.recv(65536)
            except TimeoutError:
                return
            except ConnectionError:
                octets = b""
            if not octets:
                self.closed = True
                return
            self.messages += self._stream.feed(octets)

    def alive(self) -> None:
        """Send a KEEPALIVE."""
        self.send(KEEPALIVE_OCTETS)

    @property
    def opened(self) -> bool:
        """Whether the peer's OPEN came."""
        return any(kind == OPEN for kind, _ in self.messages)

    @property
    def told(self) -> Notification | None:
        """The NOTIFICATION that came."""
        for kind, body in self.messages:
            if kind == NOTIFICATION:
                return read_notification(body)
        return None

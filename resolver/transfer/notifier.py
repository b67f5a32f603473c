"""Tells the secondaries of changes.

Rule: one task a secondary, so that a silent one delays no other; each message leaves from a port of
its own. An answer that is not signed although the message was is no answer. What is sent and when
is decided in `resolver.transfer.notice`.
"""

from __future__ import annotations

import logging
import random
import secrets
import socket
import time
from collections.abc import Iterable

import trio

from discod.log import fields
from discod.metrics import Metrics
from discod.model.settings import ListenAddress
from resolver.record import Name
from resolver.transfer.keys import Key
from resolver.transfer.notice import Notice, answered, notify
from resolver.transfer.tsig import Signer, verify_response

log = logging.getLogger(__name__)

RECEIVE_MAX = 4096
"""Octets of an answer."""


class Notifier:
    """NOTIFY for one zone.

    Args:
        secondaries: Whom to tell.
        key: Signs what is sent, and what comes back; None: nothing is signed.
        rng: For the pauses; ids and ports are not drawn from it.
    """

    def __init__(
        self,
        secondaries: Iterable[ListenAddress],
        apex: Name,
        key: Key | None,
        metrics: Metrics,
        rng: random.Random,
    ) -> None:
        self._soa = b""
        self._lines = [_Line(one, apex, key, metrics, rng) for one in dict.fromkeys(secondaries)]

    def changed(self, soa: bytes) -> None:
        """The zone has this SOA now; returns at once."""
        for line in self._lines:
            line.changed(soa)

    async def run(self) -> None:
        """Tell them, until cancelled."""
        async with trio.open_nursery() as nursery:
            for line in self._lines:
                nursery.start_soon(line.run)
            await trio.sleep_forever()  # until cancelled, with nobody to tell as well


class _Line:
    """One secondary."""

    def __init__(
        self,
        secondary: ListenAddress,
        apex: Name,
        key: Key | None,
        metrics: Metrics,
        rng: random.Random,
    ) -> None:
        self._secondary = secondary
        self._apex = apex
        self._key = key
        self._notice = Notice(rng)
        self._soa = b""
        self._wait = trio.CancelScope()
        self._takes = True
        self._label = f"{secondary.address}:{secondary.port}"
        self._count = {
            result: metrics.dns_notifies.labels(self._label, result).inc
            for result in ("ok", "refused", "timeout", "error")
        }

    def changed(self, soa: bytes) -> None:
        self._soa = soa
        self._notice.changed(trio.current_time())
        self._wait.deadline = self._notice.due

    async def run(self) -> None:
        while True:
            # `changed` moves the deadline of the wait that is under way.
            with trio.CancelScope(deadline=self._notice.due) as self._wait:
                await trio.sleep_forever()
            while self._notice.due <= trio.current_time():
                await self._tell()

    async def _tell(self) -> None:
        """Send one message, and wait for its answer until the next is due."""
        family = socket.AF_INET6 if self._secondary.address.version == 6 else socket.AF_INET
        packet = notify(secrets.randbelow(2**16), self._apex, self._soa)
        signer = None
        if self._key is not None:
            signer = Signer(self._key)
            packet = signer.sign(packet, time.time())
        self._notice.sent(trio.current_time())
        tries = self._notice.tries
        result = "timeout"
        with trio.CancelScope(deadline=self._notice.due) as self._wait:
            try:
                with trio.socket.socket(family, socket.SOCK_DGRAM) as sock:
                    await sock.connect((str(self._secondary.address), self._secondary.port))
                    await sock.send(packet)
                    result = self._notice.done(await self._answer(sock, packet, signer))
            except OSError as error:  # nobody listens, or no way there: tried again when due
                log.debug("NOTIFY failed", extra=fields(secondary=self._label, error=error))
                result = "error"
        if result == "timeout" and self._notice.tries != tries:
            return  # superseded: it had no time to answer
        self._count[result]()
        if (result == "ok") != self._takes:
            self._takes = not self._takes
            if self._takes:
                log.info("secondary takes NOTIFY again", extra=fields(secondary=self._label))
            else:
                log.warning(
                    "secondary does not take NOTIFY",
                    extra=fields(secondary=self._label, result=result),
                )

    async def _answer(
        self, sock: trio.socket.SocketType, sent: bytes, signer: Signer | None
    ) -> int:
        while True:
            packet = await sock.recv(RECEIVE_MAX)
            if signer is not None and not verify_response(
                packet, signer.key, signer.mac, time.time()
            ):
                continue
            rcode = answered(packet, sent)
            if rcode is not None:
                return rcode

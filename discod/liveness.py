"""Hosts watch each other: the sockets and the clock around `discod.model.swim`.

Rule: decides nothing. It feeds the state machine what has arrived before each of its steps, does
what it says, and keeps from it whatever is not signed, or not new. What leaves the answers for it
is only hidden (`Keeper.silence`): the store's records are nobody's but their host's.
"""

from __future__ import annotations

import itertools
import logging
import random
import secrets
import socket
import time
from dataclasses import dataclass

import trio

from discod.datagram import bound
from discod.keeper import Keeper
from discod.knock import Knocks
from discod.log import fields
from discod.metrics import Metrics
from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Address, Host
from discod.model.report import SilentHost
from discod.model.seal import SIZE_MAX, SealError
from discod.model.settings import LivenessSettings
from discod.model.swim import Swim
from discod.model.swim_message import KIND, Ack, Message, MessageError, Ping, decode, encode
from discod.model.swim_terms import Action, Knock, Noted, Send, Silence, Took, Unsilence

log = logging.getLogger(__name__)

BATCH = 256
"""Datagrams taken before other tasks get their turn, and before each step."""
UNSIGNED_MAX = 100
"""Pings a step that are answered though their sender is not known here: of a daemon whose new key
has not come through the store yet."""
KNOCK_STEPS = 5
"""Steps that a knock waits for its answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this host takes part."""

    host: str
    domain: str
    address: Address
    port: int
    period: float


class Liveness:
    """One host's part in the watch."""

    def __init__(
        self, keeper: Keeper, place: Place, metrics: Metrics, rng: random.Random | None = None
    ) -> None:
        self._keeper = keeper
        self._place = place
        self.port = 0
        """Where others find it; 0: it takes no part."""
        self._metrics = metrics
        self._key = secrets.token_bytes(32)
        self._numbers = itertools.count(1)
        self._heard: dict[str, tuple[str, int]] = {}  # host -> its key, and its last number
        self._hosts: dict[str, Host] = {}
        self._socket: socket.socket | None = None
        self._unsigned = 0
        self._knocks = Knocks(place.address, KNOCK_STEPS * place.period / 2)
        self._swim = Swim(place.host, place.period, rng or random.SystemRandom())
        self._hosts_changed = True
        self._told = (False, False)
        self.silent: dict[str, SilentHost] = {}
        """Hosts that are taken as lost; always this one value, for who wants to look."""
        keeper.listen(self._update)

    def bind(self) -> None:
        """Take the port; only a line in the log when it cannot be had: then without."""
        at = self._place
        try:
            sock = bound(at.address, at.port)
        except OSError as error:
            log.error(
                "no watch over hosts: one that dies leaves DNS with its lease only",
                extra=fields(address=at.address, port=at.port, error=error.strerror),
            )
            return
        self._socket = sock
        self.port = int(sock.getsockname()[1])

    @property
    def key(self) -> str:
        """What this host's messages are signed with, for its own record; empty without a port."""
        return self._key.hex() if self.port else ""

    async def run(self) -> None:
        """Watch and be watched, until cancelled."""
        if self._socket is None:
            return
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, self._socket)
                nursery.start_soon(self._step, self._socket)
        finally:
            self._socket.close()
            self._socket = None
            self._knocks.close()

    # Tasks --------------------------------------------------------------------------------------

    async def _receive(self, sock: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            self._drain(sock)

    async def _step(self, sock: socket.socket) -> None:
        due = trio.current_time()
        while True:
            self._members()
            # What has come is taken first: an answer that waited for us was in time.
            self._drain(sock)
            now = trio.current_time()
            for host in self._knocks.look(now):
                self._do(self._swim.answered(host, now))
            self._do(self._swim.tick(trio.current_time()))
            self._unsigned = 0
            self._tell()
            due = max(due + self._swim.step, trio.current_time())
            await trio.sleep_until(due)

    # In -----------------------------------------------------------------------------------------

    def _drain(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                packet, sender = sock.recvfrom(SIZE_MAX + 1)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error of an earlier send; the socket is sound
                log.debug("receive failed", extra=fields(error=error))
                continue
            if packet:  # an empty one is a knock
                self._take(packet, sender)

    def _take(self, packet: bytes, sender: tuple[str, int]) -> None:
        try:
            sealed = KIND.open(packet)
            number, message = decode(sealed)
        except (SealError, MessageError) as error:
            self._metrics.liveness_refused.inc()
            log.debug("liveness message refused", extra=fields(error=error))
            return
        now = trio.current_time()
        if isinstance(message, Ack):
            self._do(self._swim.ack(message.nonce, now))
            return
        record = self._hosts.get(sealed.host)
        key = record.liveness_key if record is not None else ""
        if key and KIND.verified(sealed, self._place.domain, bytes.fromhex(key)):
            if self._is_new(sealed.host, key, number):
                self._do(self._swim.signed(sealed.host, now))
                self._do(self._swim.take(sealed.host, message, now))
                return
        else:
            self._metrics.liveness_refused.inc()
        if isinstance(message, Ping) and self._unsigned < UNSIGNED_MAX:
            self._unsigned += 1
            self._put(Ack(message.nonce), sender)

    def _is_new(self, host: str, key: str, number: int) -> bool:
        known, last = self._heard.get(host, ("", 0))
        if key == known and number <= last:
            return False
        self._heard[host] = (key, number)
        return True

    def _update(self, _: Catalog, change: Change) -> None:
        self._hosts_changed |= change.hosts

    def _members(self) -> None:
        if not self._hosts_changed:
            return
        self._hosts_changed = False
        place = self._place
        before, self._hosts = (
            self._hosts,
            {
                host.name: host
                for host in self._keeper.catalog.hosts.values()
                if host.name != place.host and _takes_part(host, place.address)
            },
        )
        for name in before.keys() - self._hosts.keys():
            self._heard.pop(name, None)
            self._metrics.liveness_host_up.remove(name)
        for name in self._hosts.keys() - before.keys():
            self._metrics.liveness_host_up.labels(name).set(name not in self._swim.silenced)
        self._swim.members(self._hosts, trio.current_time())

    # Out ----------------------------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        packets: dict[int, bytes] = {}
        for action in actions:
            match action:
                case Send(name, message):
                    host = self._hosts.get(name)
                    if host is not None:
                        # The same to many is one datagram, signed once.
                        packet = packets.get(id(message)) or self._packet(message)
                        packets[id(message)] = packet
                        self._send(packet, (str(host.addresses[0]), host.liveness_port))
                case Knock(name):
                    host = self._hosts.get(name)
                    if host is not None:
                        now = trio.current_time()
                        self._knocks.at(name, host.addresses[0], host.liveness_port, now)
                case Silence():
                    self._silence(action)
                case Unsilence(name, why):
                    self._unsilence(name, why)
                case Took(seconds):
                    self._metrics.liveness_rtt.observe(seconds)
                case Noted(what, name):
                    self._note(what, name)

    def _packet(self, message: Message) -> bytes:
        at = self._place
        return encode(message, next(self._numbers), at.host, at.domain, self._key)

    def _put(self, message: Message, to: tuple[str, int]) -> None:
        self._send(self._packet(message), to)

    def _send(self, packet: bytes, to: tuple[str, int]) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(packet, to)
        except OSError as error:  # no route, a full buffer: one probe less
            log.debug("liveness message not sent", extra=fields(to=to[0], error=error))

    def _silence(self, silence: Silence) -> None:
        name = silence.host
        ago = trio.current_time() - silence.since
        words = ", ".join(silence.witnesses)
        self.silent[name] = SilentHost(name, time.time() - ago, silence.witnesses)
        self._metrics.liveness_confirmed.inc()
        if name in self._hosts:
            self._metrics.liveness_host_up.labels(name).set(0)
        log.warning(
            "host does not answer, its endpoints leave DNS",
            extra=fields(silent=name, seconds=f"{ago:.2f}", witnesses=words),
        )
        self._keeper.silence(name, f"silent by the word of {words}")

    def _unsilence(self, name: str, why: str) -> None:
        self.silent.pop(name, None)
        if name in self._hosts:
            self._metrics.liveness_host_up.labels(name).set(1)
        log.warning("host no longer taken as silent", extra=fields(silent=name, why=why))
        self._keeper.unsilence(name)

    def _note(self, what: str, name: str) -> None:
        counter = {
            "suspicion": self._metrics.liveness_suspicions,
            "refuted": self._metrics.liveness_refuted,
            "late": self._metrics.liveness_late,
        }[what]
        counter.inc()
        log.debug("liveness noted", extra=fields(what=what, of=name))

    def _tell(self) -> None:
        """Say it when this host stops trusting what it sees, and when it does again."""
        now = (self._swim.isolated, self._swim.divided)
        if now == self._told:
            return
        self._told = now
        self._metrics.liveness_cut_off.set(any(now))
        if now[0]:
            log.error("this host hears no other: none is taken as lost for it")
        elif now[1]:
            log.error("half of all hosts or more are silent: none is taken as lost for it")
        else:
            log.warning("other hosts are heard again")


def _takes_part(host: Host, address: Address) -> bool:
    if not host.liveness_port or not host.addresses:
        return False
    if host.addresses[0].version != address.version:
        return False
    try:
        return bool(bytes.fromhex(host.liveness_key))
    except ValueError:
        return False


def watch_for(
    keeper: Keeper,
    host: str,
    domain: str,
    addresses: tuple[Address, ...],
    store: str,
    settings: LivenessSettings,
    metrics: Metrics,
) -> Liveness | None:
    """The part of this host, with its port taken; None: switched off, or alone with its store."""
    if not settings.enabled or store == "memory" or not addresses:
        return None
    place = Place(host, domain, addresses[0], settings.port, settings.period)
    watch = Liveness(keeper, place, metrics)
    watch.bind()
    return watch

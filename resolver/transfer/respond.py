"""Answers requests for the zone: AXFR (RFC 5936), IXFR (RFC 1995), and checks signatures.

Rule: every decision on a request is taken when it comes in, and the serial with it: a transfer
under way is not touched by later changes. Its messages are made one by one, as they are taken. An
error response is signed where the request was. Pure: the clock is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final
from weakref import WeakSet

from discod.model.settings import Network
from resolver.acl import Acl
from resolver.encode import Error, encode, limit
from resolver.record import AXFR, FORMERR, IN, NOERROR, REFUSED, SERVFAIL
from resolver.transfer import tsig
from resolver.transfer.content import Part
from resolver.transfer.journal import Difference, newer
from resolver.transfer.messages import MESSAGE, client_serial, incremental, messages, whole
from resolver.transfer.publisher import Publisher
from resolver.transfer.tsig import NOTAUTH, Keyring, Signer
from resolver.wire import TCP_MAX, Malformed, Query

TRANSFERS_MAX: Final = 8
"""Whole or incremental transfers sent at once; one more gets SERVFAIL, and comes again."""
AT_ONCE: Final = 200
"""Endpoints whose publishing a request may wait for: some milliseconds. Where more is pending, it
gets what was published last."""

NOT_READY: Final = Error(14, "the zone is not complete yet")
PROHIBITED: Final = Error(18, "")
BUSY: Final = Error(0, "too many transfers at once")

Counter = Callable[[str, str], None]
"""(kind, result): ``axfr`` or ``ixfr``; ``whole``, ``incremental``, ``current`` (the client has the
newest serial), ``soa`` (over UDP: to come over TCP), ``refused``, ``notauth``, ``formerr``,
``busy``, ``unready``."""


class Transfer(Iterator[bytes]):
    """The messages of one response; counts as one of those under way until it ends or is dropped.

    Whoever takes them lets other tasks run in between.
    """

    def __init__(self, made: Iterator[bytes]) -> None:
        self._made = made
        self._first: bytes | None = None
        self.ended = False

    @property
    def rcode(self) -> int:
        """What becomes of the request: the rcode of the first message, which is made for that."""
        if self._first is None:
            self._first = next(self._made)
        return self._first[3] & 15

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        try:
            return next(self._made)
        except StopIteration:
            self.ended = True
            raise

    def close(self) -> None:
        """Nobody wants the rest."""
        self.ended = True


class Transfers:
    """Responds to requests for one zone.

    Args:
        wall: Unix seconds.
        count: Told of each request.
        udp_size: For OPT, and the most of a response over UDP.
    """

    def __init__(
        self, publisher: Publisher, *, wall: Callable[[], float], count: Counter, udp_size: int
    ) -> None:
        self.publisher = publisher
        """What there is to transfer; may be replaced."""
        self._wall = wall
        self._count = count
        self._udp_size = udp_size
        self._live: WeakSet[Transfer] = WeakSet()
        self.configure((), {}, signed=True)

    def configure(self, allow: Iterable[Network], keys: Keyring, *, signed: bool) -> None:
        """Who may transfer; `signed`: by a key only."""
        self._acl = Acl(allow)
        self._keys = keys
        self._signed = signed

    def verify(self, packet: bytes, query: Query) -> Signer | bytes | None:
        """Check the signature of a query of any type.

        Returns: what signs the response (which has to leave room for its `octets`); the response
        itself where the signature is not good; None where there is none.
        """
        verdict = tsig.verify(packet, self._keys, self._wall())
        if isinstance(verdict, tsig.Failure):
            response = self._error(query, verdict.rcode)
            return verdict.finish(response, self._wall())
        return verdict

    def sign(self, response: bytes, signer: Signer) -> bytes:
        """A response to the query that `verify` took, signed."""
        return signer.sign(response, self._wall())

    def respond(self, packet: bytes, query: Query, client: str, transport: str) -> Transfer:
        """The response to a query of type AXFR or IXFR, message by message.

        Args:
            packet: The whole query.
            query: As it was read.
            client: Address in text form.
            transport: ``udp``: exactly one message.
        """
        kind = "axfr" if query.type == AXFR else "ixfr"
        if not self._acl.allows(client):
            self._count(kind, "refused")
            return Transfer(iter((self._error(query, REFUSED, PROHIBITED),)))
        signer = self.verify(packet, query)
        if isinstance(signer, bytes):
            self._count(kind, "notauth")
            return Transfer(iter((signer,)))
        result, made = self._decide(packet, query, transport == "udp", signer)
        self._count(kind, result)
        if signer is not None:
            made = _signed(made, signer, self._wall)
        transfer = Transfer(made)
        if result in ("whole", "incremental") and transport != "udp":
            self._live.add(transfer)
        return transfer

    @property
    def under_way(self) -> int:
        """Transfers that have not ended."""
        return sum(1 for transfer in self._live if not transfer.ended)

    def _decide(
        self, packet: bytes, query: Query, udp: bool, signer: Signer | None
    ) -> tuple[str, Iterator[bytes]]:
        def error(rcode: int, *errors: Error) -> Iterator[bytes]:
            return iter((self._error(query, rcode, *errors),))

        if query.fault:
            return "formerr", error(query.fault)
        if self._signed and signer is None:
            return "refused", error(REFUSED, PROHIBITED)
        if query.cls != IN or query.name != self.publisher.apex:
            return "notauth", error(NOTAUTH)
        serial = None
        if query.type != AXFR:
            try:
                serial = client_serial(packet, query)
            except Malformed:
                return "formerr", error(FORMERR)
        elif udp:
            return "formerr", error(FORMERR)  # RFC 5936, section 4.2: not defined; as BIND says
        catch_up(self.publisher)
        if self.publisher.serial is None:
            return "unready", error(SERVFAIL, NOT_READY)
        size = MESSAGE
        if udp:
            size = limit(query, self._udp_size)
        size -= signer.octets if signer is not None else 0
        result, parts = self._content(serial, udp)
        if result in ("whole", "incremental") and not udp and self.under_way >= TRANSFERS_MAX:
            return "busy", error(SERVFAIL, BUSY)
        made = messages(query, parts, size, self._udp_size)
        if udp and result == "incremental":
            first = next(made)
            if next(made, None) is not None or len(first) > size:
                # RFC 1995, section 2: it does not fit, so let the client come over TCP.
                alone = incremental(self.publisher.soa, ())
                return "soa", messages(query, alone, size, self._udp_size)
            made = iter((first,))
        return result, made

    def _content(self, serial: int | None, udp: bool) -> tuple[str, Iterator[Part]]:
        publisher = self.publisher
        assert publisher.serial is not None
        if serial is not None:
            if serial == publisher.serial or newer(serial, publisher.serial):
                return "current", incremental(publisher.soa, ())
            differences = publisher.since(serial)
            if differences is not None and _octets(differences) <= publisher.octets:
                return "incremental", incremental(publisher.soa, differences)
            if udp:
                return "soa", incremental(publisher.soa, ())
        return "whole", whole(publisher.soa, publisher.parts())

    def _error(self, query: Query, rcode: int, *errors: Error) -> bytes:
        packet, _ = encode(
            query,
            rcode,
            limit=TCP_MAX,  # header, question and OPT: always within what UDP takes
            udp_size=self._udp_size,
            aa=False,
            errors=errors if rcode != NOERROR else (),
        )
        return packet


def catch_up(publisher: Publisher) -> None:
    """Publish what is pending, unless that would take long."""
    if publisher.behind and publisher.work() <= AT_ONCE:
        while publisher.step():
            pass


def _octets(differences: Iterable[Difference]) -> int:
    return sum(sum(map(len, d.removed)) + sum(map(len, d.added)) for d in differences)


def _signed(made: Iterator[bytes], signer: Signer, wall: Callable[[], float]) -> Iterator[bytes]:
    for message in made:
        yield signer.sign(message, wall())

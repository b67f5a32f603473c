"""Hints: what one host tells the others of its own endpoints, before the store can.

Rule: a hint is a shortcut to what the store is going to say, never a second truth. It names the
version (store revision) of each record it is about, so a late, lost, doubled or replayed one does
no harm; it is believed only of the sender's own endpoints, until the reader's store has had time to
say otherwise, and only signed with the key that the sender keeps in its own record.

A version that the sender has begun to write and not yet seen has no revision that it knows: then
the place is named instead, and the first later version at that place is the one that is meant. Who
replays such a hint hides what is up again at that place, for as long as any hint holds by itself.

A datagram: `discod.model.seal`'s frame, ``dsc1``, around JSON. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from discod.model.endpoint import EndpointId, Reason
from discod.model.fields import is_text
from discod.model.rescue import Place
from discod.model.seal import SIZE_MAX, Kind, SealError

__all__ = ["HOLD", "REPEAT", "SETTLED", "SIZE_MAX", "Down", "Hint", "HintError", "decode", "encode"]

KIND = Kind(b"dsc1", "discod hint 1")
HOLD = 3.0
"""Seconds that a hint holds at least without the store's word on it."""
SETTLED = 1.0
"""Seconds between a hint and a sign of life of the reader's store that counts against it, and again
before it is forgotten: what the store said of the same moment has arrived by then. While the store
is silent, nothing counts against a hint: of two things known, it is the younger."""
REPEAT = 1.0
"""Seconds between repetitions while the store has not confirmed: three fit into `HOLD`."""
DETAIL_MAX = 120
"""Characters of a detail; the store has it whole."""


class HintError(ValueError):
    """A datagram that is no hint for us; says why."""


@dataclass(frozen=True, slots=True)
class Down:
    """One endpoint whose record is not to be used any more."""

    id: EndpointId
    revision: int
    """The newest version of the record that is meant and known; a later one is not."""
    reason: Reason
    detail: str
    at: float
    """Unix seconds."""
    place: Place | None = None
    """Set: the next version is meant as well, if it names this place; it may be on its way."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What one datagram says."""

    host: str
    down: tuple[Down, ...] = ()
    back: tuple[EndpointId, ...] = ()
    """Endpoints of earlier hints that are up after all."""


def encode(hint: Hint, domain: str, key: bytes) -> Iterator[bytes]:
    """Datagrams that say it, as many as it takes."""
    rows: list[tuple[str, list[object]]] = []
    for one in hint.down:
        row = [*one.id, one.revision, one.reason, one.detail[:DETAIL_MAX], one.at]
        if one.place is None:
            rows.append(("down", row))
        else:  # under a name of its own: readers of before pass over it
            place = one.place
            rows.append(("unseen", [*row, str(place.address), place.port, place.protocol]))
    rows += [("back", [*id_]) for id_ in hint.back]
    room = KIND.room(hint.host)
    batch: dict[str, list[list[object]]] = {"down": [], "unseen": [], "back": []}
    body = _dump(batch)
    for kind, row in rows:
        batch[kind].append(row)
        longer = _dump(batch)
        if len(longer) > room:
            yield KIND.seal(hint.host, body, domain, key)
            batch = {"down": [], "unseen": [], "back": []}
            batch[kind].append(row)
            longer = _dump(batch)
        body = longer
    if any(batch.values()):
        yield KIND.seal(hint.host, body, domain, key)


def decode(packet: bytes, domain: str, key_of: Callable[[str], bytes | None]) -> Hint:
    """What a datagram says.

    Args:
        packet: As received.
        domain: Ours; a hint for another one does not verify.
        key_of: From a host's name to its key, None when it has none.

    Raises:
        HintError: it is malformed, of an unknown host, or not signed by it.
    """
    try:
        sealed = KIND.open(packet)
    except SealError as error:
        raise HintError(str(error)) from None
    host, body = sealed.host, sealed.body
    key = key_of(host)
    if not key:
        raise HintError(f"host {host!r} is not known to send hints")
    if not KIND.verified(sealed, domain, key):
        raise HintError(f"not signed by host {host}")
    try:
        return _load(host, json.loads(body))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HintError(f"malformed, though signed by host {host}: {error!r}") from None


def _load(host: str, value: Any) -> Hint:
    down = [_down(row) for row in value["down"]]
    down += [_down(row[:-3], _place(row[-3:])) for row in value.get("unseen", ())]
    back = tuple(EndpointId(str(service), str(instance)) for service, instance in value["back"])
    return Hint(host, tuple(down), back)


def _down(row: Any, place: Place | None = None) -> Down:
    service, instance, revision, reason, detail, at = row
    timed = isinstance(at, int | float) and 0 <= at < 1e11
    if not (isinstance(revision, int) and is_text(detail) and timed):
        raise ValueError("expected an integer, a string and Unix seconds")
    id_ = EndpointId(str(service), str(instance))
    return Down(id_, revision, Reason(reason), detail, float(at), place)


def _place(row: Any) -> Place:
    address, port, protocol = row
    if not (isinstance(address, str) and isinstance(port, int) and protocol in ("tcp", "udp")):
        raise ValueError("expected an address, a port and tcp or udp")
    return Place(ip_address(address), port, protocol)


def _dump(batch: dict[str, list[list[object]]]) -> bytes:
    return json.dumps(batch, separators=(",", ":")).encode()

"""Hints: what one host tells the others of its own endpoints, before the store can.

Rule: a hint is a shortcut to what the store is going to say, never a second truth. It names the
version (store revision) of each record it is about, so a late, lost, doubled or replayed one does
no harm; it is believed only of the sender's own endpoints, for `HOLD` seconds, and only signed with
the key that the sender keeps in its own record.

A datagram: ``dsc1``, the length of the sender's name (1 octet), the name, an HMAC-SHA256 over all
the rest together with the domain, and JSON. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from discod.model.endpoint import EndpointId, Reason

MAGIC = b"dsc1"
SIZE_MAX = 1232
"""Octets of a datagram: fits every IPv6 path without fragments (RFC 8200, section 5)."""
HOLD = 3.0
"""Seconds that a hint holds without the store's word."""
REPEAT = 1.0
"""Seconds between repetitions while the store has not confirmed: three fit into `HOLD`."""
DETAIL_MAX = 120
"""Characters of a detail; the store has it whole."""
_MAC = 32


class HintError(ValueError):
    """A datagram that is no hint for us; says why."""


@dataclass(frozen=True, slots=True)
class Down:
    """One endpoint whose record is not to be used any more."""

    id: EndpointId
    revision: int
    """The record's version that is meant; a later one is not."""
    reason: Reason
    detail: str
    at: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True)
class Hint:
    """What one datagram says."""

    host: str
    down: tuple[Down, ...] = ()
    back: tuple[EndpointId, ...] = ()
    """Endpoints of earlier hints that are up after all."""


def encode(hint: Hint, domain: str, key: bytes) -> Iterator[bytes]:
    """Datagrams that say it, as many as it takes."""
    rows: list[tuple[str, list[object]]] = [
        ("down", [*one.id, one.revision, one.reason, one.detail[:DETAIL_MAX], one.at])
        for one in hint.down
    ]
    rows += [("back", [*id_]) for id_ in hint.back]
    room = SIZE_MAX - len(MAGIC) - 1 - len(hint.host) - _MAC
    batch: dict[str, list[list[object]]] = {"down": [], "back": []}
    body = _dump(batch)
    for kind, row in rows:
        batch[kind].append(row)
        longer = _dump(batch)
        if len(longer) > room:
            yield _sealed(hint.host, body, domain, key)
            batch = {"down": [], "back": []}
            batch[kind].append(row)
            longer = _dump(batch)
        body = longer
    if batch["down"] or batch["back"]:
        yield _sealed(hint.host, body, domain, key)


def decode(packet: bytes, domain: str, key_of: Callable[[str], bytes | None]) -> Hint:
    """What a datagram says.

    Args:
        packet: As received.
        domain: Ours; a hint for another one does not verify.
        key_of: From a host's name to its key, None when it has none.

    Raises:
        HintError: it is malformed, of an unknown host, or not signed by it.
    """
    if packet[: len(MAGIC)] != MAGIC or len(packet) < len(MAGIC) + 1:
        raise HintError("no hint")
    start = len(MAGIC) + 1
    end = start + packet[len(MAGIC)]
    mac, body = packet[end : end + _MAC], packet[end + _MAC :]
    if len(mac) < _MAC or len(packet) > SIZE_MAX:
        raise HintError("wrong length")
    host = packet[start:end].decode("ascii", "replace")
    key = key_of(host)
    if not key:
        raise HintError(f"host {host!r} is not known to send hints")
    if not hmac.compare_digest(mac, _sign(host, body, domain, key)):
        raise HintError(f"not signed by host {host}")
    try:
        return _load(host, json.loads(body))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise HintError(f"malformed, though signed by host {host}: {error!r}") from None


def _load(host: str, value: Any) -> Hint:
    down = []
    for service, instance, revision, reason, detail, at in value["down"]:
        if not (isinstance(revision, int) and isinstance(detail, str)):
            raise ValueError("expected an integer and a string")
        id_ = EndpointId(str(service), str(instance))
        down.append(Down(id_, revision, Reason(reason), detail, float(at)))
    back = tuple(EndpointId(str(service), str(instance)) for service, instance in value["back"])
    return Hint(host, tuple(down), back)


def _dump(batch: dict[str, list[list[object]]]) -> bytes:
    return json.dumps(batch, separators=(",", ":")).encode()


def _sealed(host: str, body: bytes, domain: str, key: bytes) -> bytes:
    name = host.encode("ascii")
    return MAGIC + bytes([len(name)]) + name + _sign(host, body, domain, key) + body


def _sign(host: str, body: bytes, domain: str, key: bytes) -> bytes:
    return hmac.digest(key, f"discod hint 1 {domain} {host} ".encode() + body, hashlib.sha256)

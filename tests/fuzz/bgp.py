"""The BGP decoder as a fuzzer sees it: `one` takes octets and raises where discod is wrong."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from calico_bgp.attribute_fault import Action
from calico_bgp.attribute_values import Context
from calico_bgp.capability import Capabilities, GracefulRestart
from calico_bgp.message import MESSAGE_MAX, UPDATE, RouteRefresh, Stream, frame, read, write
from calico_bgp.notification import BgpError, shutdown
from calico_bgp.opening import Open
from calico_bgp.prefix import IPV4, IPV6
from calico_bgp.update import (
    Announced,
    Update,
    read_update,
    write_end_of_rib,
    write_update,
    write_withdrawn,
)
from tests.bgp import prefix, route

CONTEXTS = tuple(Context(outside, wide) for outside in (False, True) for wide in (False, True))


CORPUS = Path(__file__).parent / "corpus" / "bgp"
"""OPENs and UPDATEs as BIRD, FRR and GoBGP sent them; see `tests/lab/bgp/test_corpus.py`."""


def one(data: bytes) -> None:
    """Read a stream; only `BgpError` may be raised, and what is sound survives being written."""
    for context in CONTEXTS:
        try:
            for kind, body in Stream().feed(data):
                message = read(kind, body, context)
                if isinstance(message, Update):
                    _update(message, context)
                else:
                    [(again, rest)] = Stream().feed(write(message))
                    assert read(again, rest, context) == message
        except BgpError as error:
            assert len(write(error.notification)) <= MESSAGE_MAX


def _update(update: Update, context: Context) -> None:
    worst = update.action
    if worst is not None:
        assert len(write(worst.notification)) <= MESSAGE_MAX
        assert str(worst)
        if worst.action >= Action.TREAT_AS_WITHDRAW:
            assert not update.announced
        if worst.action == Action.SESSION_RESET:
            assert update == Update(faults=update.faults)
    for announced in update.announced:
        again = read_update(write_update(announced, wide=context.wide), context)
        assert not again.faults, again
        [(attributes, prefixes)] = again.announced
        assert prefixes == announced.prefixes
        # A path of several segments may be written as fewer or more; it stays as long.
        assert attributes._replace(as_path=()) == announced.attributes._replace(as_path=())
        assert attributes.as_path == announced.attributes.as_path


def seeds() -> list[bytes]:
    """One message of each kind, and a stream of all."""
    restart = GracefulRestart(120, ((IPV4, True), (IPV6, False)), restarting=True)
    able = Capabilities((IPV4, IPV6), True, 4200000000, restart, ((70, b""), (73, b"\4host")))
    four = route(
        "192.0.2.1", 64513, 4200000000, med=5, communities=(0xFFFF0000, 7), aggregator=(64513, IP)
    )
    inside = four._replace(local_pref=100, originator_id=IP, cluster_list=(IP,))
    six = route("2001:db8::1", 64513, large_communities=((1, 2, 3),), atomic_aggregate=True)
    targets = (prefix("10.0.0.1/32"), prefix("10.1.0.0/16"))
    found = [
        write(Open(4200000000, 9, IP, able)),
        write(Open(64513, 90, IP, None)),
        write(Open(64513, 0, IP, able._replace(unknown=((200, bytes(250)),) * 2))),
        write(shutdown("back soon")),
        write(RouteRefresh(IPV6)),
        frame(4),
        frame(UPDATE, write_update(Announced(four, targets), wide=True)),
        frame(UPDATE, write_update(Announced(inside, targets), wide=False)),
        frame(UPDATE, write_update(Announced(six, (prefix("2001:db8::5/128"),)), wide=True)),
        frame(UPDATE, write_withdrawn(IPV4, b"\x20\x0a\0\0\1")),
        frame(UPDATE, write_end_of_rib(IPV6)),
    ]
    captured = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
    return list(dict.fromkeys([*found, *captured, b"".join(found)]))


IP = IPv4Address("10.0.0.2")

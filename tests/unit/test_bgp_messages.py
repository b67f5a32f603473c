"""BGP messages: what is written is what is read, however it arrives."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_bgp import as_path
from calico_bgp.as_path import AS_SEQUENCE, AS_SET, AsPath, Segment, merge, read_path, write_path
from calico_bgp.attribute_values import Context
from calico_bgp.attributes import Attributes
from calico_bgp.capability import Capabilities, GracefulRestart
from calico_bgp.message import (
    KEEPALIVE_OCTETS,
    MESSAGE_MAX,
    OPEN,
    UPDATE,
    Keepalive,
    RouteRefresh,
    Stream,
    frame,
    read,
    write,
)
from calico_bgp.notification import (
    CEASE,
    RESET,
    SHUTDOWN,
    Notification,
    hard_reset,
    shutdown,
)
from calico_bgp.opening import AS_TRANS, Open, read_open, write_open
from calico_bgp.prefix import (
    IPV4,
    IPV6,
    BadPrefix,
    Family,
    Prefix,
    of_address,
    of_network,
    read_prefixes,
    write_prefixes,
)
from calico_bgp.update import (
    Announced,
    read_update,
    write_end_of_rib,
    write_update,
    write_withdrawn,
)
from tests.bgp import ASN, ASN2, PREFIX4, PREFIX6, ROUTER_ID, U16, attributes, paths, prefix, route

IBGP, EBGP = Context(external=False), Context(external=True)
OLD = Context(external=False, wide=False)

FAMILY = st.builds(Family, U16, st.integers(0, 255))
RESTART = st.builds(
    GracefulRestart,
    st.integers(0, 4095),
    st.lists(st.tuples(FAMILY, st.booleans()), max_size=4).map(tuple),
    st.booleans(),
    st.booleans(),
)
UNKNOWN = st.tuples(st.integers(66, 255), st.binary(max_size=200))


def capabilities(asn: int) -> st.SearchStrategy[Capabilities]:
    return st.builds(
        Capabilities,
        st.lists(FAMILY, max_size=4, unique=True).map(tuple),
        st.booleans(),
        st.just(asn) if asn > 0xFFFF else st.none() | st.just(asn),
        st.none() | RESTART,
        st.lists(UNKNOWN, max_size=4).map(tuple),
    )


@st.composite
def opens(draw: st.DrawFn) -> Open:
    asn = draw(ASN | ASN2)
    hold = draw(U16.filter(lambda seconds: seconds not in (1, 2)))
    able = capabilities(asn)
    return Open(asn, hold, draw(ROUTER_ID), draw(able if asn > 0xFFFF else st.none() | able))


NOTIFICATIONS = st.builds(
    Notification, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=300)
)
OTHERS = (
    opens()
    | NOTIFICATIONS
    | st.just(Keepalive())
    | st.builds(RouteRefresh, FAMILY, st.integers(0, 2))
)


@given(OTHERS)
def test_all_but_updates(message: Open | Notification | Keepalive | RouteRefresh) -> None:
    [(kind, body)] = Stream().feed(write(message))
    assert read(kind, body, IBGP) == message


@given(st.lists(OTHERS, max_size=5), st.data())
def test_however_the_stream_is_cut(messages: list[Open], data: st.DataObject) -> None:
    octets = b"".join(map(write, messages))
    stream = Stream()
    found = []
    while octets:
        size = data.draw(st.integers(1, len(octets)))
        found += [read(kind, body, IBGP) for kind, body in stream.feed(octets[:size])]
        octets = octets[size:]
    assert found == messages


def test_octet_by_octet() -> None:
    octets = write(Open(64512, 9, IPv4Address("10.0.0.1"))) + KEEPALIVE_OCTETS * 2
    stream = Stream()
    kinds = [kind for octet in octets for kind, _ in stream.feed(bytes((octet,)))]
    assert kinds == [1, 4, 4]


@given(st.lists(PREFIX4, min_size=1, unique=True, max_size=8).map(tuple), st.data())
def test_updates_of_ipv4(prefixes: tuple[Prefix, ...], data: st.DataObject) -> None:
    announced = Announced(data.draw(attributes(IPV4)), prefixes)
    update = read_update(write_update(announced, wide=True), IBGP)
    assert update == ((announced,), (), None, ())


@given(st.lists(PREFIX6, min_size=1, unique=True, max_size=8).map(tuple), st.data())
def test_updates_of_ipv6(prefixes: tuple[Prefix, ...], data: st.DataObject) -> None:
    told = data.draw(attributes(IPV6, internal=False))
    update = read_update(write_update(Announced(told, prefixes), wide=True), EBGP)
    assert update == ((Announced(told, prefixes),), (), None, ())


@given(attributes(IPV4))
def test_an_old_speaker_keeps_the_whole_path_beside(told: Attributes) -> None:
    """RFC 6793: the path comes back whole out of AS_PATH and AS4_PATH."""
    announced = Announced(told, (prefix("10.0.0.1/32"),))
    update = read_update(write_update(announced, wide=False), OLD)
    [(found, _)] = update.announced
    aggregated = told.aggregator is not None and told.aggregator[0] <= 0xFFFF
    if aggregated and as_path.is_wide(told.as_path):
        # Section 4.2.3: an old speaker has aggregated since, so what is beside does not count.
        narrow = read_path(write_path(told.as_path, wide=False), wide=False)
        assert found == told._replace(as_path=narrow)
    else:
        assert found == told
    assert not update.faults


@given(st.lists(PREFIX4, unique=True, max_size=20), st.lists(PREFIX6, unique=True, max_size=20))
def test_withdrawals(four: list[Prefix], six: list[Prefix]) -> None:
    for family, prefixes in ((IPV4, four), (IPV6, six)):
        update = read_update(write_withdrawn(family, write_prefixes(prefixes)), EBGP)
        assert update.withdrawn == tuple(prefixes)
        assert not update.announced
        assert update.end_of_rib == (None if prefixes else family)


@pytest.mark.parametrize("family", [IPV4, IPV6])
def test_end_of_rib(family: Family) -> None:
    assert read_update(write_end_of_rib(family), EBGP) == ((), (), family, ())
    assert write_end_of_rib(IPV4) == bytes(4)


def test_both_families_in_one_update_have_their_own_next_hops() -> None:
    four = write_update(Announced(route(), (prefix("10.0.0.1/32"),)), wide=True)
    six = write_update(Announced(route("2001:db8::1"), (prefix("2001:db8::5/128"),)), wide=True)
    mp = six[4 : 4 + 3 + six[6]]
    length = int.from_bytes(four[2:4], "big") + len(mp)
    update = read_update(bytes(2) + length.to_bytes(2, "big") + mp + four[4:], EBGP)
    hops = {str(a.next_hop): [str(p) for p in ps] for a, ps in update.announced}
    assert hops == {"192.0.2.1": ["10.0.0.1/32"], "2001:db8::1": ["2001:db8::5/128"]}


def test_what_is_withdrawn_and_announced_is_announced() -> None:
    """RFC 4271, section 4.3."""
    body = write_update(Announced(route(), (prefix("10.0.0.1/32"),)), wide=True)
    both = b"\0\x05" + prefix("10.0.0.1/32").nlri + body[2:]
    update = read_update(both, EBGP)
    assert update.announced
    assert not update.withdrawn


def test_families_that_were_not_agreed_upon_are_left_out() -> None:
    four = write_update(Announced(route(), (prefix("10.0.0.1/32"),)), wide=True)
    assert read_update(four, EBGP, (IPV6,)) == ((), (), None, ())
    six = write_update(Announced(route("2001:db8::1"), (prefix("2001:db8::5/128"),)), wide=True)
    update = read_update(six, EBGP, (IPV4,))
    assert not update.announced
    assert [str(fault.action) for fault in update.faults] == ["attribute-discard"]


# Prefixes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nlri"),
    [
        ("0.0.0.0/0", "00"),
        ("10.0.0.0/8", "080a"),
        ("10.128.0.0/9", "090a80"),
        ("192.0.2.7/32", "20c0000207"),
        ("2001:db8::/32", "2020010db8"),
        ("2001:db8::1/128", "8020010db8000000000000000000000001"),
    ],
)
def test_prefixes(text: str, nlri: str) -> None:
    one = of_network(ip_network(text))
    assert one.nlri.hex() == nlri
    assert str(one) == text
    assert one.network == ip_network(text)
    assert read_prefixes(one.family, one.nlri) == [one]


def test_the_prefix_of_a_host() -> None:
    assert of_address(IPv4Address("192.0.2.7")) == prefix("192.0.2.7/32")


def test_bits_behind_the_length_do_not_count() -> None:
    """RFC 4271, section 4.3."""
    assert read_prefixes(IPV4, b"\x09\x0a\xff") == [prefix("10.128.0.0/9")]


@pytest.mark.parametrize("octets", [b"\x21" + bytes(5), b"\x20\x0a\0\0", b"\x08"])
def test_bad_prefixes(octets: bytes) -> None:
    with pytest.raises(BadPrefix):
        read_prefixes(IPV4, octets)


# OPEN -------------------------------------------------------------------------------------------


def test_an_open_as_the_wire_has_it() -> None:
    able = Capabilities((IPV4, IPV6), True, 4200000000)
    body = write_open(Open(4200000000, 9, IPv4Address("10.0.0.1"), able))
    want = "04 5ba0 0009 0a000001 16 02 14 0104 00010001 0104 00020001 0200 4104 fa56ea00"
    assert body.hex() == want.replace(" ", "")
    assert int.from_bytes(body[1:3], "big") == AS_TRANS


def test_many_capabilities_are_sent_in_the_extended_form() -> None:
    """RFC 9072."""
    able = Capabilities(unknown=tuple((128 + i, bytes(100)) for i in range(5)))
    body = write_open(Open(64512, 9, IPv4Address("10.0.0.1"), able))
    assert body[9] == body[10] == 255
    assert read_open(body).capabilities == able


def test_the_extended_form_may_be_short() -> None:
    """RFC 9072, section 2: it may be used for any length."""
    head = write_open(Open(64512, 9, IPv4Address("10.0.0.1"), None))[:9]
    found = read_open(head + bytes.fromhex("ff ff 0005 02 0002 0200"))
    assert found.can.route_refresh


# AS_PATH ----------------------------------------------------------------------------------------


@given(paths())
def test_paths_in_four_octets(path: AsPath) -> None:
    assert read_path(write_path(path, wide=True), wide=True) == path


@given(paths(ASN2))
def test_paths_in_two_octets(path: AsPath) -> None:
    assert read_path(write_path(path, wide=False), wide=False) == path


def sequence(*asns: int) -> Segment:
    return Segment(AS_SEQUENCE, asns)


@pytest.mark.parametrize(
    ("path", "as4", "merged"),
    [
        ((sequence(1, 2, 23456),), (sequence(70000),), (sequence(1, 2, 70000),)),
        ((sequence(1),), (sequence(70000, 70001),), (sequence(1),)),
        ((sequence(23456, 2),), (sequence(70000, 2),), (sequence(70000, 2),)),
        (
            (sequence(1), Segment(AS_SET, (2, 3)), sequence(23456)),
            (sequence(70000),),
            (sequence(1), Segment(AS_SET, (2, 3)), sequence(70000)),
        ),
        ((), (), ()),
    ],
)
def test_merging(path: AsPath, as4: AsPath, merged: AsPath) -> None:
    """RFC 6793, section 4.2.3."""
    assert merge(path, as4) == merged


def test_a_long_path_takes_several_segments() -> None:
    path = (sequence(*range(1, 301)),)
    found = read_path(write_path(path, wide=True), wide=True)
    assert [len(asns) for _, asns in found] == [255, 45]
    assert as_path.length(found) == 300
    assert as_path.length(as_path.prepend(found, 7, 2)) == 302
    assert as_path.shown((sequence(1, 2), Segment(AS_SET, (3, 4)))) == "1 2 {3,4}"


# NOTIFICATION -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("notification", "shown"),
    [
        (Notification(4), "Hold Timer Expired"),
        (Notification(2, 7, b"\1\4\0\2\0\1"), "OPEN Message Error/Unsupported Capability"),
        (Notification(6, 7), "Cease/Connection Collision Resolution"),
        (Notification(99, 3), "code 99/subcode 3"),
        (Notification(3, 99), "UPDATE Message Error/subcode 99"),
        (shutdown("back at 5"), 'Cease/Administrative Shutdown: "back at 5"'),
        (hard_reset(shutdown("gone")), 'Hard Reset (Cease/Administrative Shutdown: "gone")'),
        (Notification(CEASE, SHUTDOWN, b"\x09short"), "(0973686f7274)"),
        (Notification(CEASE, RESET, b"\2\xff\n"), r'"\xff\x0a"'),
        (Notification(3, 1, bytes(100)), "..."),
    ],
)
def test_what_people_see(notification: Notification, shown: str) -> None:
    assert shown in str(notification)


@given(st.text())
def test_shutdown_communication(text: str) -> None:
    """RFC 9003: cut behind a character, at most 255 octets, and never unreadable."""
    made = shutdown(text)
    if made.data:
        assert made.data[0] == len(made.data) - 1 <= 255
        assert text.encode("utf-8", "replace").startswith(made.data[1:])
        made.data[1:].decode()
        assert made.communication.isprintable()


def test_hard_resets_in_one_another_end() -> None:
    once = hard_reset(hard_reset(hard_reset(Notification(4))))
    assert str(once).startswith("Cease/Hard Reset (0609")


def test_frames_have_a_bound() -> None:
    assert len(frame(UPDATE, bytes(MESSAGE_MAX - 19))) == MESSAGE_MAX
    with pytest.raises(ValueError, match="OPEN of 4097"):
        frame(OPEN, bytes(MESSAGE_MAX - 18))

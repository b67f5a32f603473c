"""What a peer gets for each thing that it does wrong: a NOTIFICATION, or an action of RFC 7606.

One row each, with the section that wants it.
"""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from calico_bgp.as_path import shown
from calico_bgp.attribute_fault import Action
from calico_bgp.attribute_values import Context
from calico_bgp.capability import Capabilities
from calico_bgp.message import Stream, frame, read
from calico_bgp.notification import BgpError
from calico_bgp.opening import Open, check_open
from calico_bgp.prefix import IPV4, IPV6
from calico_bgp.update import Update, read_update
from tests.bgp import prefix

MARKER = "ff" * 16
DISCARD, WITHDRAW, RESET = Action
EBGP, IBGP = Context(external=True), Context(external=False)
OLD = Context(external=True, wide=False)

# Messages that end the session ------------------------------------------------------------------

HEAD = "04 fc01 0009 0a000002"
"""Of an OPEN: version 4, AS 64513, 9 s, 10.0.0.2."""

ENDS = [
    # RFC, what is wrong, octets of the whole message, NOTIFICATION
    ("4271, 6.1", "marker", "00" + "ff" * 15 + "0013 04", "1/1"),
    ("4271, 6.1", "length 18", MARKER + "0012 04", "1/2 0012"),
    ("4271, 6.1", "length 4097", MARKER + "1001 02", "1/2 1001"),
    ("4271, 6.1", "OPEN of 28", MARKER + "001c 01" + "00" * 9, "1/2 001c"),
    ("4271, 6.1", "UPDATE of 22", MARKER + "0016 02" + "00" * 3, "1/2 0016"),
    ("4271, 6.1", "NOTIFICATION of 20", MARKER + "0014 03 06", "1/2 0014"),
    ("4271, 6.1", "KEEPALIVE of 20", MARKER + "0014 04 00", "1/2 0014"),
    ("4271, 6.1", "type 0", MARKER + "0013 00", "1/3 00"),
    ("4271, 6.1", "type 6", MARKER + "0013 06", "1/3 06"),
    ("7313, 5", "ROUTE-REFRESH of 22", MARKER + "0016 05 000100", "7/1 " + MARKER + "001605000100"),
    ("4271, 6.2", "version 3", (1, "03" + HEAD[2:] + "00"), "2/1 0004"),
    ("7607, 2", "AS 0", (1, "04 0000 0009 0a000002 00"), "2/2"),
    ("7607, 2", "AS 0 in 4 octets", (1, HEAD + "08 0206 4104 00000000"), "2/2"),
    ("6286, 2.1", "identifier 0", (1, "04 fc01 0009 00000000 00"), "2/3"),
    ("4271, 6.2", "optional parameter 1", (1, HEAD + "03 01 01 00"), "2/4"),
    ("4271, 6.2", "hold time 1", (1, "04 fc01 0001 0a000002 00"), "2/6"),
    ("4271, 6.2", "hold time 2", (1, "04 fc01 0002 0a000002 00"), "2/6"),
    ("4271, 6.2", "parameters too short", (1, HEAD + "05 0202 0200"), "2/0"),
    ("4271, 6.2", "parameters too long", (1, HEAD + "03 0202 0200"), "2/0"),
    ("4271, 6.2", "octets behind them", (1, HEAD + "04 0202 0200 00"), "2/0"),
    ("4271, 6.2", "half a parameter", (1, HEAD + "01 02"), "2/0"),
    ("4271, 6.2", "parameter does not end", (1, HEAD + "03 0205 02"), "2/0"),
    ("9072, 2", "extended length cut", (1, HEAD + "ff ff 00"), "2/0"),
    ("9072, 2", "extended length wrong", (1, HEAD + "ff ff 0006 02 0002 0200"), "2/0"),
    ("9072, 2", "half an extended parameter", (1, HEAD + "ff ff 0002 02 00"), "2/0"),
    ("5492, 4", "capability does not end", (1, HEAD + "04 0202 0104"), "2/0"),
    ("4760, 8", "Multiprotocol of 3 octets", (1, HEAD + "07 0205 0103 000100"), "2/0"),
    ("2918, 2", "Route Refresh with a value", (1, HEAD + "05 0203 0201 00"), "2/0"),
    ("4724, 3", "Graceful Restart of 3 octets", (1, HEAD + "07 0205 4003 007800"), "2/0"),
    ("6793, 3", "AS number of 2 octets", (1, HEAD + "06 0204 4102 fc01"), "2/0"),
]


def _notification(error: BgpError) -> str:
    code, subcode, data = error.notification
    return f"{code}/{subcode} {data.hex()}".strip()


@pytest.mark.parametrize(
    ("octets", "want"), [row[2:] for row in ENDS], ids=[f"{a}: {b}" for a, b, *_ in ENDS]
)
def test_what_ends_the_session(octets: str | tuple[int, str], want: str) -> None:
    if isinstance(octets, tuple):
        packet = frame(octets[0], bytes.fromhex(octets[1]))
    else:
        packet = bytes.fromhex(octets)
    with pytest.raises(BgpError) as caught:
        for kind, body in Stream().feed(packet):
            read(kind, body, EBGP)
    assert _notification(caught.value) == want


def _open(asn: int = 64513, router_id: str = "10.0.0.2", able: Capabilities | None = None) -> Open:
    return Open(asn, 9, IPv4Address(router_id), able)


BOTH = Capabilities((IPV4, IPV6), four_octet_as=64512)
SIX = Capabilities((IPV6,))
UNACCEPTABLE = [
    ("4271, 6.2", "another AS", _open(64999), BOTH, (), "2/2"),
    ("6286, 2.2", "our identifier, in our AS", _open(64512, "10.0.0.1"), BOTH, (), "2/3"),
    ("5492, 5", "no common family", _open(able=SIX), BOTH._replace(families=(IPV4,)), (), "2/7"),
    ("5492, 5", "a required one", _open(able=SIX), BOTH, (IPV4, IPV6), "2/7 010400010001"),
    ("4760, 8", "no capabilities: IPv4", _open(), SIX, (), "2/7 010400020001"),
]


@pytest.mark.parametrize(
    ("theirs", "able", "required", "want"),
    [row[2:] for row in UNACCEPTABLE],
    ids=[f"{a}: {b}" for a, b, *_ in UNACCEPTABLE],
)
def test_opens_that_this_peer_may_not_send(
    theirs: Open, able: Capabilities, required: tuple[object, ...], want: str
) -> None:
    ours = Open(64512, 9, IPv4Address("10.0.0.1"), able)
    expected = 64512 if theirs.asn == 64512 else 64513
    with pytest.raises(BgpError) as caught:
        check_open(theirs, ours, expected, required)  # type: ignore[arg-type]
    assert _notification(caught.value).startswith(want)


def test_opens_that_it_may_send() -> None:
    ours = Open(64512, 9, IPv4Address("10.0.0.1"), BOTH)
    assert check_open(_open(able=SIX), ours, 64513) == (IPV6,)
    assert check_open(_open(), ours, 64513) == (IPV4,)
    assert check_open(_open(able=Capabilities()), ours, 64513) == (IPV4,)
    # RFC 6286, section 2.2: of another AS it may have our identifier.
    assert check_open(_open(router_id="10.0.0.1"), ours, 64513) == (IPV4,)


# UPDATEs ----------------------------------------------------------------------------------------

ORIGIN, PATH, HOP, PREF = "400101 00", "400206 0201 0000fc01", "400304 c0000201", "400504 00000064"
GOOD = ORIGIN + PATH + HOP
P = "20 0a000001"
"""10.0.0.1/32."""
SIX_HOP = "20010db8" + "00" * 11 + "01"
MP = "800e26 0002 01 10" + SIX_HOP + "00 80 20010db8" + "00" * 11 + "05"
P6 = "2001:db8::5/128"


def _body(attributes: str, nlri: str = P, withdrawn: str = "") -> bytes:
    field, gone = bytes.fromhex(attributes), bytes.fromhex(withdrawn)
    head = len(gone).to_bytes(2, "big") + gone + len(field).to_bytes(2, "big") + field
    return head + bytes.fromhex(nlri)


UPDATES = [
    # RFC, what is wrong, context, attributes, action, subcode of UPDATE Message Error
    ("7606, 7.1", "ORIGIN of 2", EBGP, "400102 0000" + PATH + HOP, WITHDRAW, 5),
    ("7606, 7.1", "ORIGIN 3", EBGP, "400101 03" + PATH + HOP, WITHDRAW, 6),
    ("7606, 7.2", "segment type 5", EBGP, ORIGIN + "400206 0501 0000fc01" + HOP, WITHDRAW, 11),
    ("7606, 7.2", "segment too long", EBGP, ORIGIN + "400206 0202 0000fc01" + HOP, WITHDRAW, 11),
    ("7606, 7.2", "segment too short", EBGP, ORIGIN + "400207 0201 0000fc0102" + HOP, WITHDRAW, 11),
    ("7606, 7.2", "empty segment", EBGP, ORIGIN + "400202 0200" + HOP, WITHDRAW, 11),
    ("5065, 4", "confederation", EBGP, ORIGIN + "400206 0301 0000fc01" + HOP, WITHDRAW, 11),
    ("7607, 2", "AS 0", EBGP, ORIGIN + "400206 0201 00000000" + HOP, WITHDRAW, 11),
    ("7606, 7.3", "NEXT_HOP of 5", EBGP, ORIGIN + PATH + "400305 c000020100", WITHDRAW, 5),
    ("4271, 6.3", "NEXT_HOP 0.0.0.0", EBGP, ORIGIN + PATH + "400304 00000000", WITHDRAW, 8),
    ("4271, 6.3", "NEXT_HOP multicast", EBGP, ORIGIN + PATH + "400304 e0000001", WITHDRAW, 8),
    ("7606, 7.4", "MED of 3", EBGP, GOOD + "800403 000000", WITHDRAW, 5),
    ("7606, 7.5", "LOCAL_PREF of 3", IBGP, GOOD + "400503 000000", WITHDRAW, 5),
    ("7606, 7.5", "LOCAL_PREF from outside", EBGP, GOOD + PREF, DISCARD, 9),
    ("7606, 7.5", "the same, malformed", EBGP, GOOD + "400503 000000", DISCARD, 9),
    ("7606, 7.6", "ATOMIC_AGGREGATE of 1", EBGP, GOOD + "400601 00", DISCARD, 5),
    ("7606, 7.7", "AGGREGATOR of 6", EBGP, GOOD + "c00706 fc01 0a000001", DISCARD, 5),
    ("7606, 7.7", "of 8 from an old one", OLD, "", DISCARD, 5),
    ("7607, 2", "AGGREGATOR of AS 0", EBGP, GOOD + "c00708 00000000 0a000001", DISCARD, 9),
    ("7606, 7.8", "COMMUNITIES of 5", EBGP, GOOD + "c00805 0000000000", WITHDRAW, 9),
    ("7606, 7.8", "COMMUNITIES of 0", EBGP, GOOD + "c00800", WITHDRAW, 9),
    ("7606, 7.9", "ORIGINATOR_ID of 3", IBGP, GOOD + PREF + "800903 000000", WITHDRAW, 5),
    ("7606, 7.9", "ORIGINATOR_ID from outside", EBGP, GOOD + "800904 0a000001", DISCARD, 9),
    ("7606, 7.10", "CLUSTER_LIST of 5", IBGP, GOOD + PREF + "800a05 0000000000", WITHDRAW, 5),
    ("7606, 7.10", "CLUSTER_LIST of 0", IBGP, GOOD + PREF + "800a00", WITHDRAW, 5),
    ("7606, 7.10", "CLUSTER_LIST from outside", EBGP, GOOD + "800a04 0a000001", DISCARD, 9),
    ("7606, 7.14", "EXTENDED COMMUNITIES of 7", EBGP, GOOD + "c01007" + "00" * 7, WITHDRAW, 9),
    ("8092, 6", "LARGE_COMMUNITY of 11", EBGP, GOOD + "c0200b" + "00" * 11, WITHDRAW, 9),
    ("8092, 6", "LARGE_COMMUNITY of 0", EBGP, GOOD + "c02000", WITHDRAW, 9),
    ("6793, 4.1", "AS4_PATH from a new one", EBGP, GOOD + "c01106 0201 00011170", DISCARD, 9),
    ("6793, 6", "AS4_PATH malformed", OLD, "c01106 0202 00011170", DISCARD, 9),
    ("6793, 6", "AS4_PATH of a confederation", OLD, "c01106 0301 00011170", None, 0),
    ("6793, 6", "one that does not end", OLD, "c01106 0302 00011170", DISCARD, 9),
    ("6793, 6", "AS4_PATH of type 5", OLD, "c01106 0501 00011170", DISCARD, 9),
    ("6793, 6", "AS4_AGGREGATOR of 7", OLD, "c01207" + "01" * 7, DISCARD, 5),
    ("7606, 3 c", "ORIGIN optional", EBGP, "c00101 00" + PATH + HOP, WITHDRAW, 4),
    ("7606, 3 c", "MED transitive", EBGP, GOOD + "c00404 00000000", WITHDRAW, 4),
    ("7606, 3 c", "ATOMIC_AGGREGATE optional", EBGP, GOOD + "c00600", WITHDRAW, 4),
    ("7606, 3 c", "MP_REACH transitive", EBGP, "c0" + MP[2:] + GOOD, WITHDRAW, 4),
    ("7606, 3 d", "no ORIGIN", EBGP, PATH + HOP, WITHDRAW, 3),
    ("7606, 3 d", "no AS_PATH", EBGP, ORIGIN + HOP, WITHDRAW, 3),
    ("7606, 3 d", "no NEXT_HOP", EBGP, ORIGIN + PATH, WITHDRAW, 3),
    ("7606, 3 d", "no LOCAL_PREF inside", IBGP, GOOD, WITHDRAW, 3),
    ("7606, 3 g", "ORIGIN twice", EBGP, GOOD + ORIGIN, DISCARD, 1),
    ("7606, 3 g", "unknown twice", EBGP, GOOD + "c0fe00 c0fe00", DISCARD, 1),
    ("7606, 3 g", "MP_REACH twice", EBGP, MP + MP + GOOD, RESET, 1),
    ("7606, 3 g", "MP_UNREACH twice", EBGP, "800f03 000201" * 2 + GOOD, RESET, 1),
    ("4271, 6.3", "unknown well-known", EBGP, GOOD + "40fe00", RESET, 2),
    ("7606, 4", "attribute does not end", EBGP, GOOD + "800404 0000", WITHDRAW, 5),
    ("7606, 4", "half a header", EBGP, GOOD + "8004", WITHDRAW, 1),
    ("7606, 4", "half an extended header", EBGP, GOOD + "900400", WITHDRAW, 1),
    ("7606, 4", "AS_PATH of 0 is sound", IBGP, ORIGIN + "400200" + HOP + PREF, None, 0),
    ("7606, 5.3", "MP_REACH does not end", EBGP, GOOD + MP[:-2], RESET, 5),
    ("7606, 7.11", "MP_REACH of 4", EBGP, "800e04 00020110" + GOOD, RESET, 9),
    ("7606, 7.11", "next hop of 15", EBGP, MP.replace("01 10", "01 0f") + GOOD, RESET, 9),
    ("7606, 7.11", "next hop of 255", EBGP, MP.replace("01 10", "01 ff") + GOOD, RESET, 9),
    ("7606, 7.11", "next hop of 4", EBGP, MP.replace("01 10", "01 04") + GOOD, RESET, 9),
    ("7606, 5.3", "prefix of 129 in MP_REACH", EBGP, MP.replace("80 2001", "81 2001"), RESET, 9),
    ("4760, 3", "next hop ::", EBGP, MP.replace(SIX_HOP, "00" * 16) + GOOD, WITHDRAW, 9),
    ("7606, 7.12", "MP_UNREACH of 2", EBGP, "800f02 0002" + GOOD, RESET, 9),
    ("7606, 5.3", "prefix of 129 in MP_UNREACH", EBGP, "800f05 000201 81ff" + GOOD, RESET, 9),
    ("4760, 7", "MP_REACH of another family", EBGP, "800e05 0001 02 00 00" + GOOD, DISCARD, 9),
    ("4271, 5", "unknown, not transitive", EBGP, GOOD + "80fe01 00", None, 0),
    ("4271, 5", "unknown, transitive", EBGP, GOOD + "c0fe01 00", None, 0),
]
OLD_GOOD = ORIGIN + "400204 0201 fc01" + HOP


@pytest.mark.parametrize(
    ("context", "attributes", "action", "subcode"),
    [row[2:] for row in UPDATES],
    ids=[f"{a}: {b}" for a, b, *_ in UPDATES],
)
def test_updates(context: Context, attributes: str, action: Action | None, subcode: int) -> None:
    if context is OLD:
        attributes = OLD_GOOD + (attributes or "c00708 0000fc01 0a000001")
    update = read_update(_body(attributes), context)
    worst = update.action
    if worst is None:
        assert action is None
    else:
        assert worst.action is action, update.faults
        assert worst.notification[:2] == (3, subcode)
        assert str(worst.action) in str(worst)
    wanted = prefix("10.0.0.1/32")
    announced = [one for _, prefixes in update.announced for one in prefixes]
    if action is RESET:
        assert not announced
        assert not update.withdrawn
    elif action is WITHDRAW:
        assert not announced
        assert wanted in update.withdrawn
        assert (prefix(P6) in update.withdrawn) == (
            "800e26" in attributes or "c00e26" in attributes
        )
    else:
        assert announced == [wanted]
        assert not update.withdrawn


BODIES = [
    ("4271, 6.3", "withdrawn longer than all", "0005 0000", RESET, 1),
    ("4271, 6.3", "attributes longer than all", "0000 0005 00", RESET, 1),
    ("7606, 5.3", "prefix of 33", _body(GOOD, "21 0a00000100").hex(), RESET, 10),
    ("7606, 5.3", "prefix does not end", _body(GOOD, "20 0a0000").hex(), RESET, 10),
    ("7606, 5.3", "withdrawn prefix of 33", _body("", "", "21 0a00000100").hex(), RESET, 10),
    ("7606, 5.3", "withdrawn does not end", _body("", "", "20 0a").hex(), RESET, 10),
    ("7606, 5.2", "ORIGIN 3 and no prefix", _body("400101 03", "").hex(), RESET, 6),
    ("7606, 5.2", "cut, and no prefix", _body("400101", "").hex(), RESET, 5),
    ("7606, 5.2", "discard, and no prefix", _body("400601 00", "").hex(), DISCARD, 5),
]


@pytest.mark.parametrize(
    ("octets", "action", "subcode"),
    [row[2:] for row in BODIES],
    ids=[f"{a}: {b}" for a, b, *_ in BODIES],
)
def test_bodies(octets: str, action: Action, subcode: int) -> None:
    update = read_update(bytes.fromhex(octets), EBGP)
    assert update.action is not None
    assert (update.action.action, update.action.subcode) == (action, subcode)
    assert update._replace(faults=()) == Update()


def test_the_strongest_counts() -> None:
    """RFC 7606, section 3 h."""
    update = read_update(_body("400101 03" + PATH + HOP + "400601 00"), EBGP)
    assert [fault.action for fault in update.faults] == [WITHDRAW, DISCARD]
    assert update.action == update.faults[0]
    assert update.withdrawn == (prefix("10.0.0.1/32"),)


def test_what_is_discarded_is_not_there() -> None:
    update = read_update(_body(GOOD + PREF + "80fe01 00" + "c0fd01 07"), EBGP)
    [(attributes, _)] = update.announced
    assert attributes.local_pref is None
    assert attributes.unknown == ((0xFD, b"\7"),)


def test_confederations_alone_are_left_out_of_an_as4_path() -> None:
    """RFC 6793, section 6: the rest of it counts."""
    path = ORIGIN + "400206 0202 fc01 5ba0" + HOP  # 64513, AS_TRANS
    update = read_update(_body(path + "c0110c 0301 0000fde8 0201 00011170"), OLD)
    assert not update.faults
    [(attributes, _)] = update.announced
    assert shown(attributes.as_path) == "64513 70000"


@pytest.mark.parametrize(
    "hop",
    ["400305 c000020100", "400304 00000000", "c00304 c0000201"],
    ids=["of 5", "0.0.0.0", "optional"],
)
def test_next_hop_counts_where_there_are_prefixes_for_it_only(hop: str) -> None:
    """RFC 4760, section 3: beside nothing but MP_REACH_NLRI it is ignored, whatever it is."""
    update = read_update(_body(MP + ORIGIN + PATH + hop, ""), EBGP)
    assert [fault.action for fault in update.faults] == [DISCARD]
    [(_, prefixes)] = update.announced
    assert prefixes == (prefix(P6),)
    both = read_update(_body(MP + ORIGIN + PATH + hop), EBGP)
    assert set(both.withdrawn) == {prefix(P6), prefix("10.0.0.1/32")}
    assert not both.announced
    cut = read_update(_body(MP + ORIGIN + PATH + "400305 c0000201", ""), EBGP)
    assert cut.withdrawn == (prefix(P6),)


def test_a_fault_never_overfills_its_notification() -> None:
    update = read_update(_body(GOOD + "d008 0fa1" + "00" * 4001), EBGP)
    assert update.action is not None
    assert len(update.action.notification.data) == 4000

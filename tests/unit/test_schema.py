"""discod.model.schema: keys and values as etcd, CoreDNS and other discods see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model import schema
from discod.model.endpoint import (
    Alias,
    Endpoint,
    EndpointId,
    Fault,
    Host,
    Producer,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.schema import (
    HostKey,
    Keyspace,
    RecordError,
    RecordKey,
    RefusedKey,
    VipKey,
    VipOwnerKey,
    WithdrawnKey,
)
from discod.model.vip import VipRecord
from discod.model.vip_records import decode_vip, decode_vip_owner, encode_vip, encode_vip_owner
from tests.unit.test_names import LABELS

KEYS = Keyspace()
ID = EndpointId("web", "alpha-0123456789ab-8080")
KEY = KEYS.record(ID)
WEB = Endpoint(
    service=ID.service,
    instance=ID.instance,
    address=ip_address("10.1.2.3"),
    port=8080,
    protocol="tcp",
    port_name="http",
    tags=("blue", "v2"),
    weight=50,
    priority=20,
    attributes=(("zone", "a"),),
    host="alpha",
    container="0123456789ab" + "0" * 52,
    container_name="shop-web-1",
    producer=Producer.DOCKER,
    since=1764000000.5,
)
SEARCH = Alias("search", "alpha-alias-0", "_x.www.example.com", "alpha", since=1764000000.5)

VIP4, VIP6 = ip_address("192.0.2.80"), ip_address("2001:db8::80")

# Strategies -----------------------------------------------------------------------------------

ADDRESSES = st.ip_addresses()
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TIMES = st.floats(0, 1e10, allow_nan=False)
PORT_NAMES = st.from_regex(r"([a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?)?", fullmatch=True)
SERVICES = LABELS.filter(lambda text: text not in ("any", "dns", "node", "service"))
ENDPOINTS = st.builds(
    Endpoint,
    service=SERVICES,
    instance=LABELS,
    address=ADDRESSES,
    port=st.integers(0, 65535),
    protocol=st.sampled_from(["tcp", "udp"]),
    port_name=PORT_NAMES,
    tags=st.lists(LABELS, max_size=3).map(tuple),
    weight=st.integers(0, 65535),
    priority=st.integers(1, 65535),
    attributes=st.dictionaries(TEXTS, TEXTS, max_size=3).map(lambda d: tuple(sorted(d.items()))),
    host=LABELS,
    container=st.from_regex(r"[0-9a-f]{64}|", fullmatch=True),
    container_name=TEXTS,
    producer=st.sampled_from(Producer),
    since=TIMES,
    target=st.one_of(st.just(""), LABELS),
    ttl=st.integers(0, 2**31 - 1),
    alpn=st.lists(st.from_regex(r"[A-Za-z0-9./-]{1,32}", fullmatch=True), max_size=3).map(tuple),
    prefer=st.sampled_from([None, "none", "local", "zone"]),
    rescue=st.booleans(),
    vip=st.sampled_from([(), (VIP4,), (VIP6,), (VIP4, VIP6)]),
    affinity=st.booleans(),
)
ALIASES = st.builds(
    Alias,
    service=SERVICES,
    instance=LABELS,
    target=st.lists(LABELS.filter(lambda text: not text.isdigit()), min_size=1, max_size=3).map(
        ".".join
    ),
    host=LABELS | st.just(""),
    ttl=st.integers(0, 2**31 - 1),
    since=TIMES,
)
HOSTS = st.builds(
    Host,
    name=LABELS,
    addresses=st.lists(ADDRESSES, max_size=3).map(tuple),
    version=TEXTS,
    machine=TEXTS,
    started=TIMES,
    zone=LABELS | st.just(""),
    drained=st.none() | TIMES,
    hint_port=st.integers(0, 65535),
    hint_key=st.sampled_from(["", "ab" * 32]),
)
WITHDRAWALS = st.builds(
    Withdrawal, endpoint=ENDPOINTS, reason=st.sampled_from(Reason), detail=TEXTS, at=TIMES
)
REFUSALS = st.builds(
    Refusal,
    host=LABELS,
    container=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    container_name=TEXTS,
    faults=st.lists(st.builds(Fault, TEXTS, TEXTS, TEXTS), max_size=3).map(tuple),
    at=TIMES,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# fmt: off
FIELDS = (
    "host", "port", "priority", "weight", "ttl", "text", "discod",
    "v", "producer", "container", "name", "port_name", "protocol", "tags", "health", "since",
    "attributes", "target", "record", "reason", "detail", "at", "faults", "addresses", "started",
    "drained", "zone", "alpn", "prefer", "rescue", "vip", "affinity", "requested", "service",
)
# fmt: on
OBJECTS = st.dictionaries(
    st.sampled_from(FIELDS), JSON | st.dictionaries(st.sampled_from(FIELDS), JSON)
)

OURS = b'{"host":"192.0.2.1","discod":{"protocol":"tcp","producer":"docker",%b}}'

DECODERS: dict[str, Callable[[bytes], object]] = {
    "record": lambda value: schema.decode_record(KEY, ID, value),
    "withdrawal": lambda value: schema.decode_withdrawal("w", ID, value),
    "host": lambda value: schema.decode_host("h", "alpha", value),
    "refusal": lambda value: schema.decode_refusal("r", "alpha", "0" * 64, value),
    "vip": lambda value: decode_vip("v", "web", value),
    "owner": lambda value: decode_vip_owner("v", value),
}
ALL_DECODERS = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS.keys())

# Values ---------------------------------------------------------------------------------------


def test_a_record_is_coredns_compatible_to_the_byte() -> None:
    assert KEY == "/skydns/internal/discod/web/alpha-0123456789ab-8080"
    assert schema.encode_endpoint(WEB) == (
        b'{"host":"10.1.2.3","port":8080,"priority":20,"weight":50,"ttl":1,"discod":{"v":1,'
        b'"producer":"docker","host":"alpha","container":"0123456789ab' + b"0" * 52 + b'",'
        b'"name":"shop-web-1","port_name":"http","protocol":"tcp","tags":["blue","v2"],'
        b'"health":"up","since":1764000000.5,"attributes":{"zone":"a"}}}'
    )


def test_an_ipv6_record_with_defaults() -> None:
    endpoint = Endpoint("web", "a-v6", ip_address("2001:db8::1"), 53, "udp", target="a")
    value = schema.encode_endpoint(endpoint)
    assert value.startswith(
        b'{"host":"2001:db8::1","port":53,"priority":10,"weight":100,"ttl":1,"discod":{'
    )
    assert value.endswith(b'"target":"a"}}')


def test_what_answers_shall_be_like_rides_in_our_object() -> None:
    endpoint = replace(WEB, ttl=30, alpn=("h2", "http/1.1"), prefer="local")
    value = schema.encode_endpoint(endpoint)
    assert b'"ttl":1,"discod"' in value, "SkyDNS's own field stays CoreDNS's floor"
    assert value.endswith(b',"ttl":30,"alpn":["h2","http/1.1"],"prefer":"local"}}')


def test_rescue_and_own_addresses_ride_in_our_object() -> None:
    endpoint = replace(WEB, attributes=(), rescue=False, vip=(VIP4, VIP6), affinity=True)
    value = schema.encode_endpoint(endpoint)
    assert value.endswith(
        b',"rescue":false,"vip":["192.0.2.80","2001:db8::80"],"affinity":"client"}}'
    )
    decoded = schema.decode_record(KEY, ID, OURS % b'"since":5')
    assert isinstance(decoded, Endpoint)
    assert (decoded.rescue, decoded.vip, decoded.affinity) == (True, (), False)


def test_an_address_of_a_service_to_the_byte() -> None:
    record = VipRecord("web", (VIP4, VIP6), "fixed", 1764000000.5)
    value = encode_vip(record)
    assert value == (
        b'{"v":1,"addresses":["192.0.2.80","2001:db8::80"],"requested":"fixed",'
        b'"since":1764000000.5}'
    )
    assert decode_vip("k", "web", value, 7) == record
    assert decode_vip("k", "web", value, 7).revision == 7
    assert encode_vip_owner("web") == b'{"v":1,"service":"web"}'
    assert decode_vip_owner("k", encode_vip_owner("web")) == "web"


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"[]", "value"),
        (b"{}", "addresses"),
        (b'{"addresses":[]}', "addresses"),
        (b'{"addresses":["192.0.2.1","192.0.2.2"]}', "addresses"),
        (b'{"addresses":["224.0.0.1"]}', "addresses"),
        (b'{"addresses":["192.0.2.1"]}', "requested"),
        (b'{"addresses":["192.0.2.1"],"requested":"auto","since":-1}', "since"),
    ],
)
def test_bad_records_of_an_address(value: bytes, field: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode_vip("k", "web", value)
    assert caught.value.fault.subject == field


@pytest.mark.parametrize("value", [b"5", b"{}", b'{"service":"A"}', b'{"service":5}'])
def test_bad_owners_of_an_address(value: bytes) -> None:
    with pytest.raises(RecordError):
        decode_vip_owner("k", value)


def test_an_alias_is_a_record_whose_host_is_a_name() -> None:
    assert schema.encode_alias(SEARCH) == (
        b'{"host":"_x.www.example.com","ttl":1,"discod":{"v":1,"producer":"static",'
        b'"host":"alpha","since":1764000000.5}}'
    )
    assert schema.encode_alias(replace(SEARCH, ttl=60)).endswith(b',"ttl":60}}')


@given(ALIASES)
def test_aliases_survive(alias: Alias) -> None:
    value = schema.encode_alias(alias)
    assert schema.decode_record(KEYS.record(alias.id), alias.id, value) == alias


@pytest.mark.parametrize(
    ("value", "target"),
    [
        (b'{"host":"www.example.com"}', "www.example.com"),
        (b'{"host":"WWW.Example.COM.","port":80,"weight":"any"}', "www.example.com"),
        (b'{"host":"_a._b.example","ttl":60}', "_a._b.example"),
        (b'{"host":"intranet"}', "intranet"),
        (b'{"host":"10.in-addr.arpa","discod":{}}', "10.in-addr.arpa"),
    ],
)
def test_aliases_of_other_producers(value: bytes, target: str) -> None:
    alias = schema.decode_record("key", EndpointId("web", "x"), value, 7)
    assert alias == Alias("web", "x", target)
    assert alias.revision == 7


def test_a_withdrawal_of_an_alias_is_none() -> None:
    value = b'{"reason":"crashed","record":{"host":"www.example.com"}}'
    with pytest.raises(RecordError, match=r"host = 'www\.example\.com': expected an IPv4"):
        schema.decode_withdrawal("w", ID, value)


def test_no_port_is_an_absent_field() -> None:
    assert "port" not in json.loads(schema.encode_endpoint(replace(WEB, port=0)))


def test_the_other_values_to_the_byte() -> None:
    assert schema.encode_host(Host("alpha", (ip_address("192.0.2.1"),), "0.1.0", "id", 1.5)) == (
        b'{"v":1,"addresses":["192.0.2.1"],"version":"0.1.0","machine":"id","started":1.5,'
        b'"zone":"","drained":null,"hints":{"port":0,"key":""}}'
    )
    refusal = Refusal("alpha", "c" * 64, "bad", (Fault("label", "*", "a name"),), 2.0)
    assert (
        schema.encode_refusal(refusal)
        == b'{"v":1,"name":"bad","faults":[["label","*","a name"]],"at":2.0}'
    )
    record = schema.encode_endpoint(WEB)
    assert schema.encode_withdrawal(Withdrawal(WEB, Reason.CRASHED, "exit 1", 3.0)) == (
        b'{"v":1,"reason":"crashed","detail":"exit 1","at":3.0,"record":' + record + b"}"
    )


@given(ENDPOINTS)
def test_endpoints_survive(endpoint: Endpoint) -> None:
    value = schema.encode_endpoint(endpoint)
    assert schema.decode_record(KEYS.record(endpoint.id), endpoint.id, value) == endpoint


@given(WITHDRAWALS)
def test_withdrawals_survive(withdrawal: Withdrawal) -> None:
    value = schema.encode_withdrawal(withdrawal)
    assert schema.decode_withdrawal("key", withdrawal.endpoint.id, value) == withdrawal


@given(HOSTS)
def test_hosts_survive(host: Host) -> None:
    assert schema.decode_host("key", host.name, schema.encode_host(host)) == host


@given(REFUSALS)
def test_refusals_survive(refusal: Refusal) -> None:
    value = schema.encode_refusal(refusal)
    assert schema.decode_refusal("key", refusal.host, refusal.container, value) == refusal


def test_a_long_foreign_value_is_cut_in_a_refusal() -> None:
    refusal = Refusal("alpha", "c" * 64, "bad", (Fault("label", "x" * 1000, "less"),), 0.0)
    value = schema.encode_refusal(refusal)
    assert schema.decode_refusal("key", "alpha", "c" * 64, value).faults[0].value == "x" * 256


def test_half_a_surrogate_pair_does_not_stop_a_refusal() -> None:
    refusal = Refusal("alpha", "c" * 64, "bad", (Fault("label", "\ud800", "UTF-8"),), 0.0)
    value = schema.encode_refusal(refusal)
    assert schema.decode_refusal("key", "alpha", "c" * 64, value).faults[0].value == "?"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # FIELD: priority 0 means 10, an absent weight means 100, unknown fields are ignored
        (b'{"host":"192.0.2.7"}', Endpoint("web", "x", ip_address("192.0.2.7"), 0)),
        (
            b'{"host":"192.0.2.7","port":80,"priority":0,"weight":0,"ttl":60,"mail":true}',
            Endpoint("web", "x", ip_address("192.0.2.7"), 80, weight=0, priority=10),
        ),
        (
            b'{"host":"2001:DB8::7","text":"hello","group":"g","targetstrip":1}',
            Endpoint("web", "x", ip_address("2001:db8::7"), 0, text="hello"),
        ),
    ],
)
def test_records_of_other_producers(value: bytes, expected: Endpoint) -> None:
    decoded = schema.decode_record("key", EndpointId("web", "x"), value)
    assert decoded == expected
    assert decoded.producer is Producer.FOREIGN


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"", "value"),
        (b"\xff\xfe", "value"),
        (b"[]", "value"),
        (b"1", "value"),
        (b"{", "value"),
        (b"[" * 100_000, "value"),
        (b"{}", "host"),
        (b'{"host":null}', "host"),
        (b'{"host":""}', "host"),
        (b'{"host":"."}', "host"),
        (b'{"host":"exa mple.com"}', "host"),
        (b'{"host":"-a.example"}', "host"),
        (b'{"host":"a..example"}', "host"),
        (b'{"host":"10.0.0.300"}', "host"),
        (b'{"host":"10.0.0.1:80"}', "host"),
        (b'{"host":"' + b"a." * 127 + b'a"}', "host"),
        (b'{"host":"a.example","discod":1}', "discod"),
        (b'{"host":"a.example","discod":{"host":1}}', "host"),
        (b'{"host":"a.example","discod":{"ttl":-1}}', "ttl"),
        (b'{"host":"a.example","discod":{"since":"now"}}', "since"),
        (b'{"host":"10.0.0.1/8"}', "host"),
        (b'{"host":"fe80::1%eth0"}', "host"),
        (b'{"host":"\\ud800"}', "host"),
        (b'{"host":"192.0.2.1","port":"80"}', "port"),
        (b'{"host":"192.0.2.1","port":true}', "port"),
        (b'{"host":"192.0.2.1","port":80.0}', "port"),
        (b'{"host":"192.0.2.1","port":-1}', "port"),
        (b'{"host":"192.0.2.1","port":65536}', "port"),
        (b'{"host":"192.0.2.1","weight":null}', "weight"),
        (b'{"host":"192.0.2.1","priority":70000}', "priority"),
        (b'{"host":"192.0.2.1","text":5}', "text"),
        (b'{"host":"192.0.2.1","text":"\\udfff"}', "text"),
        (b'{"host":"192.0.2.1","discod":[]}', "discod"),
        (b'{"host":"192.0.2.1","discod":{}}', "protocol"),
        (b'{"host":"192.0.2.1","discod":{"protocol":"sctp"}}', "protocol"),
        (b'{"host":"192.0.2.1","discod":{"protocol":"tcp"}}', "producer"),
        (b'{"host":"192.0.2.1","discod":{"protocol":"tcp","port_name":"a b"}}', "port_name"),
        (b'{"host":"192.0.2.1","discod":{"protocol":"tcp","tags":["A"]}}', "tags"),
        (b'{"host":"192.0.2.1","discod":{"protocol":"tcp","tags":[1]}}', "tags"),
        (b'{"host":"192.0.2.1","discod":{"protocol":"tcp","attributes":{"a":1}}}', "attributes"),
        (
            b'{"host":"192.0.2.1","discod":{"protocol":"tcp","producer":"docker","since":NaN}}',
            "since",
        ),
        (
            b'{"host":"192.0.2.1","discod":{"protocol":"tcp","producer":"docker","target":"-"}}',
            "target",
        ),
        (OURS % b'"ttl":"30"', "ttl"),
        (OURS % b'"ttl":2147483648', "ttl"),
        (OURS % b'"ttl":1.5', "ttl"),
        (OURS % b'"alpn":"h2"', "alpn"),
        (OURS % b'"alpn":["h2",""]', "alpn"),
        (OURS % b'"alpn":["h,2"]', "alpn"),
        (OURS % b'"prefer":""', "prefer"),
        (OURS % b'"prefer":"near"', "prefer"),
        (OURS % b'"rescue":"no"', "rescue"),
        (OURS % b'"rescue":0', "rescue"),
        (OURS % b'"vip":"192.0.2.80"', "vip"),
        (OURS % b'"vip":["192.0.2.80","192.0.2.81"]', "vip"),
        (OURS % b'"vip":["ff02::1"]', "vip"),
        (OURS % b'"affinity":true', "affinity"),
        (OURS % b'"affinity":""', "affinity"),
    ],
)
def test_a_bad_record_is_named_with_key_field_and_expectation(value: bytes, field: str) -> None:
    with pytest.raises(RecordError) as caught:
        schema.decode_record(KEY, ID, value)
    assert caught.value.key == KEY
    assert caught.value.fault.subject == field
    assert caught.value.fault.expected.startswith("expected")
    assert str(caught.value).startswith(f"{KEY}: {field} = ")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zone", [b"1", b'"A"', b'"a.b"'])
def test_a_hosts_zone_is_a_label(zone: bytes) -> None:
    with pytest.raises(RecordError, match=r"zone = .*: expected"):
        schema.decode_host("key", "alpha", b'{"zone":%b}' % zone)


@ALL_DECODERS
@given(value=st.binary())
def test_any_bytes_decode_or_are_a_record_error(
    decode: Callable[[bytes], object], value: bytes
) -> None:
    _decodes_or_refuses(decode, value)


@ALL_DECODERS
@given(value=OBJECTS)
def test_any_json_decodes_or_is_a_record_error(
    decode: Callable[[bytes], object], value: object
) -> None:
    _decodes_or_refuses(decode, json.dumps(value).encode())


@ALL_DECODERS
@pytest.mark.parametrize("depth", [*range(900, 1010), 5_000, 50_000])
def test_json_nested_to_the_edge_of_the_stack(
    decode: Callable[[bytes], object], depth: int
) -> None:
    nested = b"[" * depth + b"]" * depth
    _decodes_or_refuses(decode, nested)
    _decodes_or_refuses(decode, b'{"host":%b,"record":%b,"faults":%b}' % (nested, nested, nested))


@given(ENDPOINTS, st.data())
def test_a_damaged_record_decodes_or_is_a_record_error(
    endpoint: Endpoint, data: st.DataObject
) -> None:
    value = bytearray(schema.encode_endpoint(endpoint))
    value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    _decodes_or_refuses(DECODERS["record"], bytes(value))


def _decodes_or_refuses(decode: Callable[[bytes], object], value: bytes) -> None:
    try:
        decoded = decode(value)
    except RecordError as error:
        str(error).encode()
    else:
        repr(decoded).encode()


# Keys -----------------------------------------------------------------------------------------


def test_keys() -> None:
    keys = Keyspace("a.b.example", "/dns")
    assert keys.prefixes == ("/dns/example/b/a/", "/discod/v1/a.b.example/")
    assert keys.record(EndpointId("web", "x")) == "/dns/example/b/a/web/x"
    assert keys.host("alpha") == "/discod/v1/a.b.example/hosts/alpha"
    assert (
        keys.withdrawn("alpha", EndpointId("web", "x"))
        == "/discod/v1/a.b.example/withdrawn/alpha/web/x"
    )
    assert keys.refused("alpha", "c1") == "/discod/v1/a.b.example/refused/alpha/c1"
    assert keys.vip("web") == "/discod/v1/a.b.example/vip/service/web"
    assert keys.vip_owner(VIP6) == "/discod/v1/a.b.example/vip/address/2001:db8::80"
    assert keys.vip("web").startswith(keys.vips)
    assert keys.vip_owner(VIP4).startswith(keys.vips)


@given(host=LABELS, id_=st.builds(EndpointId, SERVICES, LABELS | st.just("")))
def test_keys_survive(host: str, id_: EndpointId) -> None:
    assert KEYS.parse(KEYS.record(id_)) == RecordKey(id_)
    assert KEYS.parse(KEYS.host(host)) == HostKey(host)
    assert KEYS.parse(KEYS.refused(host, "c1")) == RefusedKey(host, "c1")
    assert KEYS.parse(KEYS.vip(id_.service)) == VipKey(id_.service)
    for address in (VIP4, VIP6):
        assert KEYS.parse(KEYS.vip_owner(address)) == VipOwnerKey(address)
    if id_.instance:
        assert KEYS.parse(KEYS.withdrawn(host, id_)) == WithdrawnKey(host, id_)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/",
        "/skydns/internal/other/web/x",
        "/skydns/internal/discodweb/x",
        "/skydns/internal/discod/dns/ns/ns1",
        "/skydns/internal/discod/dns",
        "/discod/v1/discod.internal/later/thing",
        "/discod/v1/discod.internal/hosts/alpha/more",
        "/discod/v2/discod.internal/hosts/alpha",
    ],
)
def test_keys_that_are_not_ours_to_read(key: str) -> None:
    assert KEYS.parse(key) is None


@pytest.mark.parametrize(
    "key",
    [
        "/skydns/internal/discod/",
        "/skydns/internal/discod/web/",  # would name the same endpoint as ".../web"
        "/skydns/internal/discod//x",
        "/skydns/internal/discod/web/x/y",
        "/skydns/internal/discod/Web/x",
        "/skydns/internal/discod/web/X",
        "/skydns/internal/discod/web/host:name:80",  # Registrator's
        "/skydns/internal/discod/web/a\n",
        "/skydns/internal/discod/*/x",
        "/skydns/internal/discod/any/x",
        "/skydns/internal/discod/node/x",
        "/skydns/internal/discod/service/x",
        "/discod/v1/discod.internal/hosts/",
        "/discod/v1/discod.internal/hosts/A B",
        "/discod/v1/discod.internal/withdrawn/alpha/web/*",
        "/discod/v1/discod.internal/refused//c1",
        "/discod/v1/discod.internal/vip/service/A",
        "/discod/v1/discod.internal/vip/service/any",  # no service can have that name
        "/discod/v1/discod.internal/vip/address/web",
        "/discod/v1/discod.internal/vip/address/2001:DB8::1",  # a second key of one address
        "/discod/v1/discod.internal/vip/address/2001:db8:0::1",
        "/discod/v1/discod.internal/vip/address/fe80::1%lo",
    ],
)
def test_malformed_keys(key: str) -> None:
    with pytest.raises(RecordError) as caught:
        KEYS.parse(key)
    assert caught.value.fault.subject == "key"


@given(st.text())
def test_any_key_parses_or_is_a_record_error(tail: str) -> None:
    for prefix in ("", *KEYS.prefixes):
        try:
            KEYS.parse(prefix + tail)
        except RecordError as error:
            assert error.key == prefix + tail


def test_a_fault_tames_what_it_shows() -> None:
    assert str(Fault("label", "a\nb\x1b[31m", "expected x")) == (
        "label = 'a\\nb\\x1b[31m': expected x"
    )
    assert len(str(Fault("label", "x" * 10_000, "expected x"))) < 120

"""Fuzz targets: what others write into the store, and the hints that they send.

Rule: each target raises when anything but the declared exception comes out, and when a record that
was there before, at a key that was not written, changes by it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from zlib import crc32

from discod import api
from discod.model.catalog import Catalog, CatalogState
from discod.model.endpoint import (
    Alias,
    EndpointId,
    Fault,
    Producer,
    Reason,
    Refusal,
    Withdrawal,
)
from discod.model.hint import KIND, Down, Hint, HintError, decode, encode
from discod.model.schema import (
    encode_alias,
    encode_endpoint,
    encode_host,
    encode_refusal,
    encode_withdrawal,
)
from discod.view import StoreReport
from tests.resolving import BETA, HOSTS, KEYS, PUBLISHED, WEB, endpoint, items

GONE = endpoint("web", "beta-c9-80", "10.101.2.9", host="beta")
GOOD = {
    **{key: value for key, value, _ in items((*WEB, *PUBLISHED), HOSTS)},
    KEYS.record(EndpointId("docs", "")): encode_alias(Alias("docs", "", "www.example", "alpha")),
    KEYS.withdrawn("beta", GONE.id): encode_withdrawal(
        Withdrawal(GONE, Reason.STOPPING, "signal 15", 1.7e9)
    ),
    KEYS.refused("beta", "f" * 64): encode_refusal(
        Refusal("beta", "f" * 64, "box", (Fault("discod.name", "A B", "expected a label"),), 1.7e9)
    ),
}
NOW = 1.8e9
SHORT = {"@r": KEYS.records, "@h": KEYS.own + "hosts/", "@w": KEYS.own + "withdrawn/",
         "@f": KEYS.own + "refused/", "@o": KEYS.own}  # fmt: skip
"""So that the fuzzer need not spell prefixes."""
STORE = StoreReport("etcd", True, 0.2, "")


def _fresh() -> CatalogState:
    state = CatalogState(KEYS)
    state.reset([(key, value, 1) for key, value in GOOD.items()], 7, NOW)
    return state


BEFORE = _fresh().catalog
assert not BEFORE.invalid and len(list(BEFORE.endpoints())) == 6


def events_of(data: bytes) -> list[tuple[str, bytes | None]]:
    """``key\\x01value`` between ``\\x02``; without a value it is a deletion."""
    found: list[tuple[str, bytes | None]] = []
    for part in data.split(b"\x02"):
        raw, separator, value = part.partition(b"\x01")
        key = raw.decode("utf-8", "backslashreplace")
        key = SHORT.get(key[:2], key[:2]) + key[2:]
        found.append((key, value if separator else None))
    return found


def untouched(catalog: Catalog, written: set[str]) -> None:
    """Everything of `GOOD` but what stands at the keys `written` is as it was."""
    for one in BEFORE.endpoints():
        if KEYS.record(one.id) not in written:
            assert catalog.endpoint(one.id) == one, f"{one.id} changed"
    for service, aliases in BEFORE.aliases.items():
        for instance, alias in aliases.items():
            if KEYS.record(alias.id) not in written:
                assert catalog.aliases[service][instance] == alias
    for name, host in BEFORE.hosts.items():
        if KEYS.host(name) not in written:
            assert catalog.hosts[name] == host
    for pair, refusal in BEFORE.refused.items():
        if KEYS.refused(*pair) not in written:
            assert catalog.refused[pair] == refusal
    for id_, said in BEFORE.withdrawn.items():
        if KEYS.withdrawn(said.endpoint.host, id_) not in written:
            assert catalog.withdrawn.get(id_) == said, f"the withdrawal of {id_} changed"


def rendered(document: object) -> bytes:
    """As the API sends it (starlette's JSONResponse)."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode("utf-8")


def store(data: bytes) -> None:
    """Target: keys and values that anybody wrote."""
    events = events_of(data)
    state = _fresh()
    state.apply([(key, value, 8) for key, value in events], 8, NOW)
    catalog = state.catalog
    written = {key for key, _ in events}
    untouched(catalog, written)
    assert set(catalog.invalid) <= written
    for why in catalog.invalid.values():
        assert len(why) < 3 * len(data) + 2000 and "\n" not in why.split(": ", 1)[-1]
    match crc32(data) & 3:  # each takes its time: the input chooses
        case 0:
            _read_by_others(catalog)
        case 1:
            _the_way_is_of_no_account(catalog, events)
        case 2:
            _undone(state, written)


def _read_by_others(catalog: Catalog) -> None:
    rendered(api.catalog_document(catalog, STORE))
    rendered(api.hosts(catalog, "alpha"))
    rendered(api.services(catalog))
    for service in (*catalog.services, *catalog.aliases):
        rendered(api.service(catalog, service))
    rendered(api.prometheus(catalog))


def _the_way_is_of_no_account(catalog: Catalog, events: list[tuple[str, bytes | None]]) -> None:
    present = {**GOOD}
    for key, value in events:
        if value is None:
            present.pop(key, None)
        else:
            present[key] = value
    direct = CatalogState(KEYS)
    direct.reset([(key, value, 1) for key, value in present.items()], 8, NOW)
    for name in ("services", "aliases", "hosts", "refused", "invalid"):
        assert dict(getattr(catalog, name)) == dict(getattr(direct.catalog, name)), name


def _undone(state: CatalogState, written: set[str]) -> None:
    """Writing the old values brings everything back."""
    undo = [(key, GOOD.get(key), 9) for key in sorted(written)]
    state.apply(undo, 9, NOW)
    for name in ("services", "aliases", "hosts", "refused", "invalid"):
        assert dict(getattr(state.catalog, name)) == dict(getattr(BEFORE, name)), name


def store_seeds() -> list[bytes]:
    """Records of ours and of others, good and bad."""
    web = replace(WEB[0], instance="x-1-80")
    docker = replace(
        web, producer=Producer.DOCKER, container="c" * 64, container_name="c", since=1.7e9, ttl=5,
        alpn=("h2",), prefer="local",
    )  # fmt: skip
    withdrawal = encode_withdrawal(Withdrawal(docker, Reason.CRASHED, "exit 1", 1.7e9))
    pairs: list[list[tuple[bytes, bytes | None]]] = [
        [(b"@rweb/x-1-80", encode_endpoint(docker))],
        [(b"@rdb/y", b'{"host":"192.0.2.9","port":5432,"weight":10,"priority":1,"text":"t"}')],
        [(b"@rdb/y", b'{"host":"db.example.","ttl":60}')],
        [(b"@rdb", b'{"host":"2001:db8::9"}')],
        [(b"@rdocs/a", b'{"host":"other.example","discod":{"v":1,"producer":"static","ttl":3}}')],
        [(b"@hgamma", encode_host(replace(BETA, name="gamma", zone="r1", drained=1.0)))],
        [(b"@wgamma/web/x-1-80", withdrawal)],
        [(b"@walpha/web/x-1-80", withdrawal), (b"@rweb/x-1-80", encode_endpoint(docker))],
        [(b"@walpha/web/x-1-80", withdrawal.replace(b'"reason":"crashed"', b'"reason":"bored"'))],
        [(b"@fgamma/" + b"a" * 64, encode_refusal(
            Refusal("gamma", "a" * 64, "n", (Fault("l", "v", "e"),), 1.0)))],
        [(b"@rweb/beta-c2-80", None), (b"@hbeta", None)],
        [(b"@rdns/ns", b"x"), (b"@onew/thing", b"1"), (b"@rany/a", b"{}"), (b"@ra/b/c", b"[]")],
        [(b"@rjunk/x", b"{not json"), (b"@rjunk/d", b"[" * 300), (b"/skydns/x", b"{}")],
        [(b"@rweb/n", b'{"host":"192.0.2.9","port":' + b"9" * 400 + b"}")],
    ]  # fmt: skip
    return [
        b"\x02".join(key if value is None else key + b"\x01" + value for key, value in events)
        for events in pairs
    ]


STORE_WORDS = (
    *b'@r @h @w @f @o web/ api/ docs db beta alpha gamma beta-c2-80 alpha-c1-80 x-1-80 host port '
    b'priority weight ttl text discod v producer protocol tags health since attributes target alpn '
    b'prefer zone drained hints key addresses machine reason detail at record faults "192.0.2.9" '
    b'"2001:db8::9" "fe80::1%lo" "a.b.c" "x." 1e999 -1 65536 null [] {} true "docker" "foreign" '
    b'"tcp" "crashed" "drained"'.split(),
    b"\x01", b"\x02",
)  # fmt: skip


# Hints ----------------------------------------------------------------------------------------

KEY = bytes(range(32))


def hints(data: bytes) -> None:
    """Target: a datagram as it comes (first octet even), or a body that beta signed (odd)."""
    packet = data[1:]
    signed = bool(data) and data[0] & 1 == 1
    if signed:
        packet = KIND.seal("beta", packet, KEYS.domain, KEY)
    try:
        hint = decode(packet, KEYS.domain, lambda host: KEY if host == "beta" else None)
    except HintError as error:
        assert len(str(error)) < 2000
        return
    assert hint.host == "beta"
    state = _fresh()
    state.hint(hint.down, hint.host, NOW)
    for one in BEFORE.endpoints():
        if one.host != "beta":
            assert state.catalog.endpoint(one.id) == one, "a hint about another host's endpoint"
    rendered(api.catalog_document(state.catalog, STORE))
    for service in ("web", "api"):
        rendered(api.service(state.catalog, service))
    state.unhint([down.id for down in hint.down], NOW)
    untouched(state.catalog, set())


def hint_seeds() -> list[bytes]:
    """Hints of beta's endpoints, and of others'."""
    downs = tuple(Down(e.id, 9, Reason.CRASHED, "exit 1", 1.7e9) for e in WEB)
    found = [b"\0" + one for one in encode(Hint("beta", downs, (WEB[2].id,)), KEYS.domain, KEY)]
    bodies: list[Any] = [
        {"down": [[*e.id, 9, "crashed", "exit 1", 1.7e9] for e in WEB], "back": [["web", "x"]]},
        {"down": [], "back": []},
        {
            "down": [],
            "unseen": [
                [*e.id, 0, "crashed", "", 1.7e9, str(e.address), e.port, e.protocol] for e in WEB
            ],
            "back": [],
        },
        {"down": [["web", "beta-c2-80", -1, "stopping", "", 0]], "back": [[]]},
    ]
    return found + [b"\1" + json.dumps(one).encode() for one in bodies]


HINT_WORDS = tuple(
    b'"down" "unseen" "back" "tcp" "web" "beta-c2-80" "alpha-c1-80" "crashed" "stopping" '
    b"[] {} null true -1 1e400 NaN Infinity".split()
)

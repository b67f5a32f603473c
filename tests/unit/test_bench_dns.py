"""The instruments of `make bench-dns`: what they ask, count and compute must be so.

No test here measures time; the servers themselves are measured by the benchmark.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
import tomllib
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path

import dnslib
import pytest

from benchmarks import dns, dns_peers, dns_place, dns_table
from benchmarks.__main__ import names
from benchmarks.dns_catalog import (
    DOMAIN,
    address,
    catalog,
    dnsmasq_srv,
    hosts_file,
    service_name,
    static_services,
    zone_file,
)
from benchmarks.dns_etcd import KEYS, numbered
from benchmarks.dns_load import RUN, Checker, Outcome, Port
from benchmarks.dns_mmsg import TIMESTAMPNS, Arena, Runs, recvmmsg
from benchmarks.dns_query import (
    COOKIE_SIZE,
    FRESH,
    MIXES,
    SLOTS,
    SRV,
    Ring,
    query,
    ring,
    server_cookie,
)
from benchmarks.dns_rig import median_ratio
from benchmarks.dns_stream import Connection, framed
from discod.model.endpoint import Endpoint
from discod.model.schema import RecordKey, decode_record

ROOT = Path(__file__).resolve().parents[2]


def packets(made: Ring) -> list[bytes]:
    return [
        bytes(made.packets[start : start + run.size])
        for run in made.runs
        for start in range(run.start, run.start + made.length * run.size, run.size)
    ]


# What is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("run", [1, 8])
def test_a_ring_holds_what_its_mix_says(mix: str, run: int) -> None:
    asked = MIXES[mix]
    cookie = bytes(range(24)) if asked.cookie == "known" else b""
    made = ring(asked, 50, 5, seed=1, run=run, cookie=cookie)
    found = packets(made)
    assert len(found) == SLOTS
    known = {f"{service_name(n)}.{DOMAIN}." for n in range(50)}
    types: list[int] = []
    seen = set()
    for slot, packet in enumerate(found):
        parsed = dnslib.DNSRecord.parse(packet)
        assert parsed.header.id == 5 << 10 | slot
        assert parsed.pack() == packet
        name, type_ = str(parsed.q.qname), int(parsed.q.qtype)
        types.append(type_)
        if type_ == SRV:
            assert name.startswith("_http._tcp.")
            name = name.removeprefix("_http._tcp.")
        assert (name in known) is not asked.absent
        seen.add(name)
        options = [option for record in parsed.ar for option in record.rdata]
        assert len(parsed.ar) == int(asked.edns)
        if asked.cookie:
            assert [(o.code, len(o.data)) for o in options] == [(10, len(cookie) or COOKIE_SIZE)]
        else:
            assert options == []
    assert len(seen) == (SLOTS if asked.absent else 50)
    for type_ in set(asked.types):
        assert types.count(type_) == SLOTS * asked.types.count(type_) // len(asked.types)


def test_the_same_seed_asks_the_same_and_another_something_else() -> None:
    mix = MIXES["mixed"]
    assert ring(mix, 9, 0, 1).packets == ring(mix, 9, 0, 1).packets
    assert ring(mix, 9, 0, 1).packets != ring(mix, 9, 0, 2).packets
    assert ring(mix, 9, 0, 1).packets != ring(mix, 9, 1, 1).packets


@pytest.mark.parametrize("mix", ["nxdomain", "cookie"])
@pytest.mark.parametrize(("first", "last"), [(0, 1), (3, 7), (0, SLOTS // 8)])
def test_refreshing_changes_the_fresh_octets_of_these_runs_alone(
    mix: str, first: int, last: int
) -> None:
    made = ring(MIXES[mix], 50, 0, seed=1)
    before = packets(made)
    made.refresh(first, last, random.Random(7))
    for slot, (old, new) in enumerate(zip(before, packets(made), strict=True)):
        fresh = made.runs[slot // 8].fresh
        assert fresh > 0
        if not first * 8 <= slot < last * 8:
            assert new == old
            continue
        assert new[fresh : fresh + FRESH] != old[fresh : fresh + FRESH]
        assert new[:fresh] + new[fresh + FRESH :] == old[:fresh] + old[fresh + FRESH :]
        if made.letters:
            assert new[fresh : fresh + FRESH].isalnum()
            assert new[fresh : fresh + FRESH].islower()


@pytest.mark.parametrize(("run", "number"), [(7, 0), (8, 64), (8, -1)])
def test_a_ring_that_its_ids_cannot_number_is_refused(run: int, number: int) -> None:
    with pytest.raises(ValueError, match=f"run {run}, socket {number}"):
        ring(MIXES["a"], 1, number, 1, run=run)


def test_a_servers_cookie_is_found_behind_the_clients() -> None:
    client, whole = b"12345678", b"12345678" + bytes(range(16))
    assert server_cookie(query(1, "a.test", 1, edns=True, cookie=whole), client) == whole
    assert server_cookie(query(1, "a.test", 1, edns=True, cookie=client), client) == client
    assert server_cookie(query(1, "a.test", 1, edns=True), client) == client


# What is held ---------------------------------------------------------------------------------


def test_every_notation_of_the_catalog_says_the_same() -> None:
    services = catalog(20)
    wanted = {(s.name, str(at)) for s in services for at in s.addresses}
    assert len(wanted) == 60

    zone = dnslib.RR.fromZone(zone_file(services, IPv4Address("192.0.2.1")))
    addresses = {(str(r.rname), str(r.rdata)) for r in zone if r.rtype == 1}
    srv = [r for r in zone if r.rtype == SRV]
    assert {(f"{name}.{DOMAIN}.", at) for name, at in wanted} <= addresses
    assert len(srv) == 60
    targets = {str(r.rdata.target) for r in srv}
    assert {name for name, _ in addresses} >= targets
    assert {r.ttl for r in zone} == {0}

    read = tomllib.loads(static_services(services))["service"]
    assert {(table["name"], at) for table in read for at in table["address"]} == wanted

    lines = {tuple(line.split()) for line in hosts_file(services).splitlines()}
    assert lines >= {(at, f"{name}.{DOMAIN}") for name, at in wanted}
    assert len(lines) == 120
    assert {line.split(",")[1] + "." for line in dnsmasq_srv(services)} == targets


def test_addresses_never_meet() -> None:
    own = {address(n) for n in range(1000)}
    other = {address(n, other=True) for n in range(1000)}
    assert len(own | other) == 2000
    assert len(service_name(0)) == len(service_name(99_999))


def test_records_in_etcd_are_discods_own() -> None:
    item = numbered(7, 3, other=True, weight=5)
    key = KEYS.parse(item.key)
    assert isinstance(key, RecordKey)
    endpoint = decode_record(item.key, key.id, item.value)
    assert isinstance(endpoint, Endpoint)
    assert (endpoint.service, endpoint.instance) == (service_name(2), "ep-1")
    assert (endpoint.address, endpoint.weight) == (address(7, other=True), 5)
    assert endpoint.port_name == "http"


@pytest.mark.parametrize("name", dns_peers.KINDS)
def test_a_server_is_told_its_address_and_writes_into_its_folder(name: str, tmp_path: Path) -> None:
    command = dns_peers.KINDS[name].setup(tmp_path, "192.0.2.7", catalog(2))
    assert command[0] == dns_peers.KINDS[name].program
    assert str(tmp_path) in " ".join(command)
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("192.0.2.7" in text for text in written)
    assert any(service_name(1) in text for text in written)


# What is counted ------------------------------------------------------------------------------


def response(id_: int, flags: int = 0x8400, answers: int = 3) -> bytes:
    return b"".join(n.to_bytes(2, "big") for n in (id_, flags, 1, answers, 0, 0))


def filled(responses: list[bytes]) -> Arena:
    arena = Arena(8, 64)
    for place, packet in enumerate(responses):
        arena.packets[place * 64 : place * 64 + len(packet)] = packet
    return arena


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (response(2, 0x0400), "a query"),
        (response(2, 0x8600), "cut off"),
        (response(2, 0x8403), "NXDOMAIN"),
        (response(2, 0x8485), "REFUSED, with a bit of the flags beside it"),
        (response(2, answers=2), "too little"),
        (response(2, answers=259), "low octet right, high octet wrong"),
    ],
)
def test_a_wrong_answer_is_seen(bad: bytes, why: str) -> None:
    checker = Checker(MIXES["mixed"])
    good = [response(n, 0x8580) for n in range(4)]
    assert checker.wrong(filled(good), 4) == 0
    assert checker.wrong(filled([*good[:2], bad, *good[3:]]), 4) == 1, why
    assert checker.wrong(filled([*good, bad]), 4) == 0  # beyond what came


def test_what_counts_as_right_depends_on_the_mix() -> None:
    nothing = filled([response(1, 0x8403, answers=0)])
    assert Checker(MIXES["nxdomain"]).wrong(nothing, 1) == 0
    assert Checker(MIXES["nodata"]).wrong(nothing, 1) == 1
    assert Checker(MIXES["mixed"], answers=1).wrong(filled([response(1, answers=1)]), 1) == 0


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    """A connected socket and the one it sends to."""
    there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.bind(("127.0.0.1", 0))
    there.settimeout(5)
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.connect(there.getsockname())
    there.connect(here.getsockname())
    return here, there


def test_runs_leave_as_single_queries(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    with here, there:
        made = ring(MIXES["mixed"], 50, 0, seed=1)
        runs = Runs(made.packets, made.runs, 8)
        assert runs.send(here.fileno(), 5, 3) == 3
        assert [there.recv(512) for _ in range(24)] == packets(made)[40:64]


def test_an_arena_takes_packets_and_the_kernels_time(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    here, there = pair
    with here, there:
        here.setsockopt(socket.SOL_SOCKET, TIMESTAMPNS, 1)
        before = time.time()
        for number in range(5):
            there.send(response(number))
        after = time.time()
        arena = Arena(8, 64, stamped=True)
        for _ in range(2):  # the headers serve again
            assert recvmmsg(here.fileno(), arena.headers, 8, socket.MSG_DONTWAIT, None) == 5
            assert arena.column(1, 5) == bytes(range(5))
            stamps = arena.stamps(5)
            assert stamps == sorted(stamps)
            assert all(before - 0.001 <= at <= after + 0.001 for at in stamps)
            before = time.time()
            for number in range(5):
                there.send(response(number))
            after = time.time()


def test_every_query_is_answered_or_lost(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    with here, there:
        made = ring(MIXES["mixed"], 50, 3, seed=1)
        port = Port(here, 3, Runs(made.packets, made.runs, RUN), window=4 * RUN)
        outcome = Outcome()
        assert port.room() == (0, 4)
        port.send(4, outcome)
        assert port.room() == (4, 0)
        assert (outcome.sent, port.under_way) == (4 * RUN, 4 * RUN)

        base = 3 << 10
        port.take(filled([response(base), response(base + 9), response(base)]), 3, outcome)
        assert (outcome.answered, outcome.stray) == (2, 1)  # the second of one id is a stray
        port.take(filled([response(base + 40), response(1)]), 2, outcome)
        assert (outcome.answered, outcome.stray) == (2, 3)  # not asked yet; another socket's
        assert port.under_way == 4 * RUN - 2
        assert port.room() == (4, 0)  # less than a run is free

        # Round the ring: what is still under way when its slot comes again is lost.
        outcome = Outcome()
        port.next = 0
        port.open[:] = bytes(SLOTS)
        port.open[:16] = b"\1" * 16
        port.under_way = 16
        port.send(1, outcome)
        assert (outcome.sent, outcome.lost, port.under_way) == (RUN, RUN, 16)
        port.give_up(outcome)
        assert (outcome.lost, port.under_way) == (16 + RUN, 0)
        assert sum(port.open) == 0


def test_a_stream_is_cut_into_answers_wherever_it_is_split() -> None:
    made = ring(MIXES["mixed"], 50, 2, seed=1, run=1)
    frames, starts = framed(made)
    sent = packets(made)
    assert frames == b"".join(len(p).to_bytes(2, "big") + p for p in sent)
    assert [frames[a + 2 : b] for a, b in pairwise(starts)] == sent

    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        one = Connection(here, 2, made)
        outcome = Outcome()
        one.send(3, outcome)
        assert there.recv(4096) == frames[: starts[3]]
        ids = [2 << 10 | slot for slot in (2, 0, 1)]
        back = [response(ids[0]), response(ids[1], 0x8403), response(ids[2])]
        data = b"".join(len(p).to_bytes(2, "big") + p for p in [*back, back[0]])
        for octet in data:
            there.send(bytes([octet]))
            one.take(MIXES["mixed"], outcome)
        assert (outcome.answered, outcome.stray, outcome.wrong) == (3, 1, 1)
        assert one.under_way == 0
        there.close()
        with pytest.raises(ConnectionError, match="closed"):
            one.take(MIXES["mixed"], outcome)


def test_processor_time_and_families_are_read() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b"up\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"up\n"  # it has its own command line by now
            assert child.pid in dns_place.family(os.getpid())
            assert dns_place.command_line(child.pid) == "cat "
            before = dns_place.busy([os.getpid()])
            assert before > 0
            assert dns_place.busy([os.getpid(), child.pid]) >= before
            assert dns_place.resident(os.getpid()) > 1_000_000
        finally:
            child.kill()
    assert dns_place.command_line(child.pid) == ""
    assert dns_place.busy([child.pid]) == 0


# What is made of it ---------------------------------------------------------------------------


def outcomes(*rates: float, cpu: float = 1.0, **rest: int) -> list[Outcome]:
    return [
        Outcome(seconds=1.0, sent=int(r), answered=int(r), cpu=cpu, **rest)  # type: ignore[arg-type]
        for r in rates
    ]


def test_an_outcome_is_per_second_and_per_answer() -> None:
    found = Outcome(seconds=2.0, sent=1000, answered=800, lost=200, cpu=0.4)
    assert found.rate == 400
    assert found.cost == pytest.approx(500)
    assert found.busy == pytest.approx(0.2)
    assert found.loss == pytest.approx(0.2)
    assert Outcome(seconds=1.0).cost == 0


def test_ratios_are_of_the_same_round() -> None:
    found = {
        "nsd": outcomes(100, 200, 100),
        "gdnsd": outcomes(200, 400, 200),
        "discod": outcomes(150, 300, 120),
    }
    # Of the medians it would be 1.5 as well; of the rounds 1.5, 1.5 and 1.2.
    assert dns_table.ratio(found, "discod", "nsd") == pytest.approx(1.5)
    found["discod"] = outcomes(110, 400, 110)
    assert dns_table.ratio(found, "discod", "nsd") == pytest.approx(1.1)
    assert dns_table.ratio(found, "discod", "knot") is None
    assert dns_table.fastest(found) == "gdnsd"
    assert dns_table.fastest({"discod": outcomes(9)}) == ""
    assert median_ratio([1.0, 9.0, 2.0], [1.0, 3.0, 1.0]) == 2.0


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (outcomes(100, cpu=0.99), ""),
        (outcomes(100, cpu=0.5), "unsaturated"),
        (outcomes(100, lost=1), "LOSSES"),
        (outcomes(100, wrong=1), "WRONG ANSWERS"),
        (outcomes(100, no_cookies=1), "makes no cookies"),
    ],
)
def test_what_makes_a_figure_doubtful_stands_beside_it(found: list[Outcome], said: str) -> None:
    assert dns_table.doubts(found, 0.001) == said


def test_a_table_has_every_server_the_fastest_first() -> None:
    table = dns_table.throughput("t")
    found = {"nsd": outcomes(100_000), "discod": outcomes(120_000)}
    dns_table.add_load(table, "A", found, {"nsd": "NSD", "discod": "discod"}, 0.001)
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["A", ""]
    assert columns[1] == ["[bold]discod[/]", "NSD"]
    assert columns[5] == ["1.20", "1.00"]


# How it is run --------------------------------------------------------------------------------


def test_make_and_the_package_know_the_same_benchmarks() -> None:
    command = "grep -l '^if __name__' benchmarks/*.py"  # as the Makefile has it
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = {Path(line).stem for line in done.stdout.splitlines()} - {"__main__"}
    assert found >= {"dns", "failover", "idle"}
    assert not any(name.startswith("dns_") for name in found)  # its parts are none of their own
    assert names() == sorted(found)


@pytest.mark.parametrize("argv", [["--only", "nothing"], ["--servers", "nsd,x"]])
def test_what_does_not_exist_is_refused(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        dns.main(argv)
    assert ended.value.code == 2
    assert "nothing is called" in capsys.readouterr().err


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "root" in dns.lack(["nsd"], ["throughput"])
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name in ("named", "etcd") else name)
    assert dns.lack(["nsd", "bind"], ["tcp"]).endswith("apt-get install bind9")
    assert dns.lack(["nsd", "bind"], ["scale"]).endswith("apt-get install etcd-server")
    assert dns.lack(["nsd"], ["throughput"]) == ""

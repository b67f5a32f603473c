"""Bad input of every kind: a clear message each, and nothing else affected."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator, Mapping

import pytest

from tests.lab.daemon import until
from tests.lab.engine import Box
from tests.lab.rig import Host, Lab, offer

pytestmark = pytest.mark.lab


@pytest.fixture
def well(one: Lab) -> Iterator[tuple[Host, Box]]:
    """A container that is well; after the test it must still be in DNS, without a change."""
    host = one.hosts[0]
    box = host.engine.box("well", offer("well"))
    one.everywhere("well", [box.ipv4, box.ipv6])
    with one.poller("well", interval=0.005) as poller:
        poller.wait(lambda answer: answer.addresses == (box.ipv4,))
        yield host, box
        count = poller.tracks["a"].answered
        until(lambda: poller.tracks["a"].answered > count + 20, what="answers go on")
        assert len(poller.tracks["a"].changes) == 1
        assert poller.tracks["a"].longest_silence < 1


LABELS: Mapping[str, Mapping[str, str]] = {
    "unicode": offer("bücher"),
    "long": offer("x" * 1000),
    "newline": offer("web\nevil"),
    "any": offer("any"),
    "star": offer("*"),
    "empty": offer(""),
    "dots": offer("a.b"),
    "underscore": offer("_tcp"),
    "upper": offer("WEB"),
    "reserved": offer("dns"),
    "port": {"discod.name": "p", "discod.port": "99999"},
    "weight": offer("w", weight="heavy"),
    "tags": offer("t", tags="ok,not ok"),
    "unknown": offer("u", nmae="u"),
    "nul": {"discod.name": "n", "discod.port": "1\x01"},
    "registrator": {"SERVICE_NAME": "a b c", "discod.port": "80"},
}


def test_garbage_labels_refuse_that_container_only(one: Lab, well: tuple[Host, Box]) -> None:
    host, _ = well
    boxes = {
        name: host.engine.box(f"bad-{name}", labels, "sleep", "3600")
        for name, labels in LABELS.items()
    }
    until(
        lambda: host.discod.metrics()["discod_announcer_containers_refused"] == len(boxes),
        what="all are refused",
    )
    assert {entry[0] for entry in host.catalog()} == {"well"}
    for name, box in boxes.items():
        explained = host.discod.api(f"/v1/explain?q=bad-{name}")
        faults = [fault for one in explained["findings"] for fault in one["faults"]]
        assert faults, f"{name}: {explained}"
        assert all(fault["expected"] for fault in faults)
        assert box.short in host.discod.log or box.name in host.discod.log, name
    log = host.discod.log
    assert "x" * 500 not in log, "long values are cut"
    assert "\nevil" not in log, "newlines are escaped"


def test_garbage_in_the_store(one: Lab, well: tuple[Host, Box]) -> None:
    host, _ = well
    base = "/skydns/internal/discod"
    bad = {
        f"{base}/junk/x": "{not json",
        f"{base}/junk/list": "[1,2]",
        f"{base}/junk/nohost": '{"port":1}',
        f"{base}/junk/port": '{"host":"192.0.2.9","port":"eighty"}',
        f"{base}/junk/deep": "[" * 5000,
        f"{base}/well/UPPER": '{"host":"192.0.2.9","port":1}',
        f"{base}/a/b/c/d": '{"host":"192.0.2.9"}',
        f"{base}/well/": "",
        "/discod/v1/discod.internal/hosts/x": "nonsense",
        "/discod/v1/discod.internal/withdrawn/a/b/c": "{}",
        "/discod/v1/discod.internal/strange": "1",
    }
    try:
        for key, value in bad.items():
            one.etcdctl("put", key, value)
        good = f"{base}/after/x"
        one.etcdctl("put", good, '{"host":"192.0.2.77","port":1}')
        one.everywhere("after", ["192.0.2.77"])
        invalid = host.discod.api("/v1/catalog")["invalid"]
        # An empty value and an unknown key of ours may be read leniently; the rest is named.
        assert set(bad) - set(invalid) <= {
            f"{base}/well/",
            "/discod/v1/discod.internal/strange",
        }
        assert all(invalid.values())
        assert host.discod.metrics()["discod_catalog_invalid_records"] == len(invalid)
        assert host.dig("junk") == []
    finally:
        one.etcdctl("del", "--prefix", f"{base}/junk")
        for key in [*bad, good]:
            one.etcdctl("del", key)
    until(lambda: host.discod.metrics()["discod_catalog_invalid_records"] == 0)


TEN_MISTAKES = """
[host]
name = "not a label"
[store]
endpoints = ["ftp://nowhere"]
lease_ttl = "forever"
[announce]
address = "somewhere"
drian = "1s"
[dns]
listen = ["127.0.0.1:99999"]
domain = "UPPER.example"
udp_size = 70000
[http]
listen = "nonsense"
[[service]]
name = "any"
port = 0
"""


def test_reload_with_ten_mistakes_keeps_the_last_good_one(one: Lab, well: tuple[Host, Box]) -> None:
    host, _ = well
    assert host.discod.metrics()["discod_config_stale"] == 0
    try:
        host.discod.write(TEN_MISTAKES)
        checked = host.discod.cli("check-config", str(host.discod.file))
        assert checked.returncode != 0
        said = checked.stdout + checked.stderr
        for mistake in (
            "not a label", "ftp://nowhere", "forever", "somewhere", "drian", "99999",
            "UPPER.example", "70000", "nonsense", "any",
        ):  # fmt: skip
            assert mistake in said, f"{mistake} in:\n{said}"
        host.discod.reload()
        until(lambda: host.discod.metrics()["discod_config_stale"] == 1)
        assert "ftp://nowhere" in host.discod.log
        later = host.engine.box("later", offer("later"))
        one.everywhere("later", [later.ipv4, later.ipv6])
    finally:
        host.discod.write()
        host.discod.reload()
    until(lambda: host.discod.metrics()["discod_config_stale"] == 0)


def packets() -> list[bytes]:
    """Malformed and odd DNS packets; the same ones in every run."""
    rng = random.Random(53)
    query = bytes.fromhex("1234010000010000000000000477656c6c") + b"\x06discod\x08internal\0"
    whole = query + b"\0\1\0\1"
    found = [b"", b"\0", whole[:11], whole[:12], query, whole + b"trailing", whole * 40]
    found += [
        whole[:2] + b"\x81\x80" + whole[4:],  # a response
        whole[:2] + b"\x79\x00" + whole[4:],  # an unknown opcode
        whole[:4] + b"\xff\xff" + whole[6:],  # 65,535 questions
        whole[:12] + b"\xc0\x0c\0\1\0\1",  # a pointer to itself
        whole[:12] + b"\xc0\xff\0\1\0\1",  # a pointer to nowhere
        whole[:12] + b"\x3f" * 300,  # a name too long
        whole[:12] + b"\x80abc\0\0\1\0\1",  # a reserved kind of label
        whole[:10] + b"\0\1" + whole[12:] + b"\0\0\x29\xff\xff\0\0\0\0\xff\xff",  # broken EDNS
    ]
    for _ in range(2000):
        packet = bytearray(rng.choice(found[2:]) or b"x")
        for _ in range(rng.randrange(1, 6)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        found.append(bytes(packet[:1400]))
    return found


def test_malformed_packets(one: Lab, well: tuple[Host, Box]) -> None:
    host, box = well
    with host.udp() as sock:
        sock.settimeout(0.0)
        for packet in packets():
            sock.sendto(packet, host.server)
    for packet in packets()[:60]:
        with host.tcp() as sock:
            sock.settimeout(2)
            sock.connect(host.server)
            try:
                sock.sendall(len(packet).to_bytes(2, "big") + packet)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass
            except ConnectionError:  # being thrown out is an answer
                continue
    until(lambda: host.dig("well") == [box.ipv4])
    malformed = {k: v for k, v in host.discod.metrics().items() if "dns_malformed_total" in k}
    assert sum(malformed.values()) > 100
    assert "traceback" not in host.discod.log


def test_broken_http(one: Lab, well: tuple[Host, Box]) -> None:
    host, _ = well
    status, _ = host.discod.request("GET", "/v1/nothing")
    assert status == 404
    status, _ = host.discod.request("POST", "/v1/services")
    assert status == 405
    with host.tcp() as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", 9353))
        sock.sendall(os.urandom(400) + b"\r\n\r\n")
        while sock.recv(4096):
            pass
    with host.tcp() as sock:  # what changes something is for the control socket only
        sock.settimeout(5)
        sock.connect(("127.0.0.1", 9353))
        sock.sendall(b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert b" 403 " in sock.recv(4096).split(b"\r\n")[0]

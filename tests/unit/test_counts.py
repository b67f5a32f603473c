"""The resolver's metrics: closed label sets, and what workers counted."""

from __future__ import annotations

from typing import Any

import pytest

from discod.metrics import Metrics
from discod.model.settings import DnsSettings
from resolver.answer import Transport
from resolver.counts import Counts
from tests.resolving import NAMED, packet, responder

D = "discod.internal"


class Rig:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.counts = Counts(self.metrics, D)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"discod_dns_{name}_total", labels)

    def series(self) -> int:
        return sum(len(list(family.samples)) for family in self.metrics.registry.collect())


def ask(rig: Rig, raw: bytes, transport: Transport = "udp", **settings: Any) -> None:
    to = responder(NAMED["web"])
    to.configure(DnsSettings(**settings), (b"s" * 16,))
    rig.counts.query(to.respond(raw, "10.0.0.1", transport, 1e9), transport)


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_transports_and_types(transport: Transport) -> None:
    rig = Rig()
    for qtype, label in ((64, "SVCB"), (65, "HTTPS"), (257, "CAA"), (65280, "other")):
        ask(rig, packet(f"web.{D}", qtype), transport)
        assert rig.value("requests", zone=D, proto=transport, type=label) == 1
    ask(rig, b"", transport)
    ask(rig, packet(D)[:-1], transport)
    assert rig.value("malformed", proto=transport) == 2


def test_cookies_and_limits() -> None:
    rig = Rig()
    option = b"\0\0\x29\4\xd0\0\0\0\0\0\x0c\0\x0a\0\x08"
    head = packet(f"web.{D}")[:10] + b"\0\1" + packet(f"web.{D}")[12:]
    ask(rig, head + option + b"12345678")
    ask(rig, head + option[:10] + b"\x0b\0\x0a\0\x07" + b"1234567")
    assert rig.value("cookies", result="new") == 1
    assert rig.value("cookies", result="malformed") == 1
    assert rig.value("malformed", proto="udp") == 1
    assert rig.value("rate_limited", action="drop") == 0
    rig = Rig()
    to = responder(NAMED["web"], DnsSettings(rate_limit=1, rate_slip=2))
    for _ in range(5):
        rig.counts.query(to.respond(packet(D), "10.0.0.1", "udp", 7.0), "udp")
    assert rig.value("rate_limited", action="drop") == 2
    assert rig.value("rate_limited", action="slip") == 2
    assert rig.value("requests", zone=".", proto="udp", type="A") == 4  # not looked up


def test_what_workers_counted() -> None:
    rig = Rig()
    before = rig.series()
    rig.counts.add_queries("domain", "udp", 28, 40)
    rig.counts.add_queries("reverse", "udp", 9999, 2)
    rig.counts.add_responses(0, False, 30)
    rig.counts.add_responses(3, True, 10)
    rig.counts.add_responses(-1, False, 2)
    rig.counts.add_malformed("udp", 3)
    rig.counts.add_cookies("valid", 4)
    rig.counts.add_limited("slip", 5)
    rig.counts.add_refused(6)
    assert rig.value("requests", zone=D, proto="udp", type="AAAA") == 40
    assert rig.value("requests", zone="reverse", proto="udp", type="other") == 2
    assert rig.value("responses", rcode="NOERROR") == 30
    assert rig.value("responses", rcode="NXDOMAIN") == 10
    assert rig.value("responses", rcode="other") == 2
    assert rig.value("truncated") == 10
    assert rig.value("malformed", proto="udp") == 3
    assert rig.value("cookies", result="valid") == 4
    assert rig.value("rate_limited", action="slip") == 5
    assert rig.value("acl_refused") == 6
    assert rig.series() == before  # every label was there from the start


def test_no_client_makes_the_registry_grow() -> None:
    rig = Rig()
    before = rig.series()
    for number in range(0, 65536, 97):
        ask(rig, packet(f"web.{D}", number))
        rig.counts.response(".", number % 4096, False, 0.0)
    assert rig.series() == before

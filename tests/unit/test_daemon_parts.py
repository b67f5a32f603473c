"""The small pure parts of the daemon: banner, reload, identity, static endpoints."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from announcer.health import CheckState
from announcer.static import judge, offers_of
from discod.banner import ROWS, banner
from discod.identity import host_addresses, host_name
from discod.model.catalog import Catalog
from discod.model.endpoint import Endpoint, Producer, Reason
from discod.model.names import is_label
from discod.model.report import PartReport
from discod.model.settings import (
    AnnounceSettings,
    DnsSettings,
    HostSettings,
    HttpSettings,
    ServiceSettings,
    Settings,
    StoreSettings,
)
from discod.reload import needs_restart

V4, V4B, V6 = ip_address("192.0.2.1"), ip_address("192.0.2.2"), ip_address("2001:db8::1")


def catalog(services: int) -> Catalog:
    return Catalog(
        "discod.internal",
        services={
            f"s{n:03}": {"i": Endpoint(f"s{n:03}", "i", V4, 80, container_name="box")}
            for n in range(services)
        },
    )


def test_the_banner_says_what_is_served_and_how_to_ask() -> None:
    text = banner(Settings(), "h1", catalog(1), [PartReport("docker", False, "no socket", 0.0)])
    assert "h1.node.discod.internal" in text
    assert "s000.discod.internal" in text
    assert "1 endpoint(s): box" in text
    assert "not ready: docker: no socket (trying again)" in text
    assert "dig @127.0.0.1 -p 5354 h1.node.discod.internal" in text
    assert "dig @127.0.0.1 -p 5354 s000.discod.internal SRV" in text
    assert "curl http://127.0.0.1:9353/v1/services" in text


def test_the_banner_stays_short_and_shows_only_what_is_there() -> None:
    text = banner(Settings(), "h1", catalog(200), [])
    assert len(text.splitlines()) < ROWS + 12
    assert "161 more" in text
    off = Settings(dns=replace(DnsSettings(), listen=()), http=replace(HttpSettings(), listen=()))
    assert "dig" not in banner(off, "h1", catalog(1), [])


def test_a_reload_names_what_it_cannot_change() -> None:
    before = Settings()
    assert needs_restart(before, before) == ()
    after = replace(
        before,
        store=StoreSettings(endpoints=("http://192.0.2.1:2379",)),
        announce=AnnounceSettings(docker="", drain=2.0, withdrawal_ttl=60.0, hint_port=1),
        dns=replace(before.dns, domain="x.internal", udp_size=512, workers=2),
    )
    assert needs_restart(before, after) == (
        "store",
        "announce.docker",
        "announce.hint_port",
        "announce.withdrawal_ttl",
        "dns.domain",
        "dns.workers",
    )


def test_the_host_is_as_configured_or_as_the_system_says() -> None:
    assert host_name(HostSettings(name="alpha")) == "alpha"
    assert is_label(host_name(HostSettings()))
    assert host_addresses(HostSettings(addresses=(V4, V6))) == (V4, V6)
    assert host_addresses(HostSettings())


def test_static_endpoints_one_for_each_address() -> None:
    service = ServiceSettings("api", 8080, addresses=(V6, V4, V4B), port_name="http")
    offers = offers_of(service, host="h1", addresses=(), producer=Producer.STATIC, since=1.0)
    endpoints = [offer.endpoint for offer in offers]
    assert [(e.instance, e.address, e.target) for e in endpoints] == [
        ("h1-api-8080", V4, ""),
        ("h1-api-2-8080", V4B, ""),
        ("h1-api-8080-v6", V6, "h1-api-8080"),
    ]
    assert {(e.port, e.port_name, e.host) for e in endpoints} == {(8080, "http", "h1")}


def test_static_endpoints_default_to_the_hosts_addresses_and_port_as_name() -> None:
    [offer] = offers_of(
        ServiceSettings("dns", 53, protocol="udp"),
        host="h1",
        addresses=(V4,),
        producer=Producer.COMMAND,
        since=1.0,
    )
    assert offer.endpoint.address == V4
    assert offer.endpoint.port_name == "53"
    assert offer.endpoint.instance == "h1-dns-53-udp"


@pytest.mark.parametrize(
    ("check", "drained", "reason"),
    [
        (None, None, None),
        (CheckState(up=True), None, None),
        (CheckState(), None, Reason.STARTING),
        (CheckState(up=False, detail="refused"), None, Reason.UNHEALTHY),
        (None, "by hand", Reason.DRAINED),
        (CheckState(up=False), "by hand", Reason.DRAINED),
    ],
)
def test_when_a_static_endpoint_is_up(
    check: CheckState | None, drained: str | None, reason: Reason | None
) -> None:
    verdict = judge(check, drained)
    assert (verdict.up, verdict.reason) == (reason is None, reason)

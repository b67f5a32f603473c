"""The whole of it as the daemon holds it."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import dnslib
import pytest
import trio

from discod.metrics import Metrics
from discod.model.catalog import CatalogState
from discod.model.settings import DnsSettings, ListenAddress, TransferSettings
from resolver.record import to_name
from resolver.transfer import service
from resolver.transfer.keys import Key, parse_keys
from resolver.transfer.service import TransferService
from resolver.transfer.tsig import Signer
from resolver.zone import Zone
from tests.resolving import HOSTS, KEYS, OWN, PUBLISHED, WEB, endpoint, packet
from tests.transferring import NOW, D, Secondary, query_of, request, wanted
from tests.unit.test_transfer_notify import ONE, Network, acknowledge, serials
from tests.unit.test_transfer_publisher import drop, hosts, put

ALLOW = (ip_network("127.0.0.0/8"), ip_network("192.0.2.0/24"))
SECRET = b"0123456789abcdef"
KEY_FILE = f"key.example hmac-sha256 {base64.b64encode(SECRET).decode()}\n"
NOTIFY = (ListenAddress(ip_address(ONE[0]), ONE[1]),)


class Rig:
    def __init__(self, settings: TransferSettings) -> None:
        self.metrics = Metrics()
        self.state = CatalogState(KEYS)
        self.zone = Zone(DnsSettings(), OWN)
        self.service = TransferService(
            settings, self.zone, OWN.name, self.metrics, rng=random.Random(1), wall=lambda: NOW
        )
        self.network = Network({ONE: acknowledge})

    def apply(self, events: list[tuple[str, bytes | None]], revision: int) -> None:
        told = [(key, value, revision) for key, value in events]
        change = self.state.apply(told, revision, 0.0)
        self.service.update(self.state.catalog, change)

    def start(self) -> None:
        self.apply(hosts(*HOSTS) + put(*WEB), 7)

    def ask(self, query: bytes) -> list[bytes]:
        return list(self.service.respond(query, query_of(query), "192.0.2.9", "tcp"))

    def rcode(self, query: bytes) -> int:
        return self.ask(query)[0][3] & 15

    def refresh(self, secondary: Secondary) -> str:
        kind = 252 if secondary.serial is None else 251
        return secondary.take(self.ask(request(kind, secondary.serial)))

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def running(rig: Rig) -> AsyncIterator[Rig]:
    trio.socket.set_custom_socket_factory(rig.network)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.service.run)
        yield rig
        nursery.cancel_scope.cancel()


async def test_without_anybody_allowed_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(TransferSettings())

    def fail(*args: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(rig.zone, "update", fail)
    monkeypatch.setattr(rig.service._publisher, "note", fail)
    rig.start()
    assert rig.rcode(request()) == 5
    assert rig.value("discod_dns_serial") == 7  # of the zone, whoever may transfer it
    assert rig.value("discod_dns_transfers_total", kind="axfr", result="refused") == 1


async def test_a_change_is_published_and_told_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig, secondary = Rig(TransferSettings(allow=ALLOW, notify=NOTIFY)), Secondary()
    async with running(rig):
        rig.start()
        await trio.sleep(1)
        assert rig.refresh(secondary) == "whole"
        for revision in (8, 9):
            rig.apply(put(*PUBLISHED) if revision == 8 else drop(*PUBLISHED), revision)
            await trio.sleep(1)
            assert rig.refresh(secondary) == "incremental"
        assert serials(rig.network, ONE) == [7, 8, 9]
        assert rig.network.times(ONE) == [0.0, 1.0, 2.0]
    assert secondary.records == wanted(rig.state.catalog)
    assert rig.value("discod_dns_transfers_total", kind="ixfr", result="incremental") == 2


@pytest.mark.parametrize(("takes", "told"), [(0.25, 0.25), (60.0, service.SETTLE)])
async def test_nobody_is_told_before_answers_are_settled(
    autojump_clock: trio.testing.MockClock, takes: float, told: float
) -> None:
    """Nor is the waiting endless."""
    rig = Rig(TransferSettings(allow=ALLOW, notify=NOTIFY))

    async def settled() -> None:
        await trio.sleep(takes)

    rig.service.settled = settled
    async with running(rig):
        rig.start()
        await trio.sleep(told - 0.01)
        assert serials(rig.network, ONE) == []
        rig.apply(put(*PUBLISHED), 8)  # meanwhile
        await trio.sleep(5)
        assert serials(rig.network, ONE) == [7, 8]
        assert rig.network.times(ONE)[0] == pytest.approx(told)


async def test_what_changes_nothing_is_told_to_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig(TransferSettings(allow=ALLOW, notify=NOTIFY))
    async with running(rig):
        rig.start()
        await trio.sleep(1)
        rig.apply([], 8)
        await trio.sleep(1)
        assert serials(rig.network, ONE) == [7]
        secondary = Secondary()
        rig.refresh(secondary)
        assert secondary.serial == 8


async def test_what_a_request_published_is_told_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig, secondary = Rig(TransferSettings(allow=ALLOW, notify=NOTIFY)), Secondary()
    rig.start()
    assert rig.refresh(secondary) == "whole"  # before `run` has begun
    async with running(rig):
        await trio.sleep(1)
        rig.apply(put(*PUBLISHED), 8)
        assert rig.refresh(secondary) == "incremental"  # sooner than `run`
        await trio.sleep(1)
    assert serials(rig.network, ONE) == [7, 8]


async def test_a_flood_is_led_through_few_serials(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig(TransferSettings(allow=ALLOW, notify=NOTIFY))
    async with running(rig):
        rig.start()
        for n in range(200):
            rig.apply(put(replace(WEB[0], weight=n + 1)), 8 + n)
            await trio.sleep(0.005)
        await trio.sleep(1)
    told = serials(rig.network, ONE)
    assert told[-1] == 207 and 9 <= len(told) <= 13


async def test_a_large_zone_is_made_in_slices(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SLICE", 0.0)
    rig, secondary = Rig(TransferSettings(allow=ALLOW)), Secondary()
    rig.apply(hosts(*HOSTS) + put(*(endpoint(f"s{n}", "i", "10.0.0.1") for n in range(400))), 7)
    turns = 0
    async with running(rig):
        while rig.rcode(request()) == 2:
            turns += 1
            await trio.lowlevel.checkpoint()
        assert turns > 300
        assert rig.refresh(secondary) == "whole"
    assert secondary.records == wanted(rig.state.catalog)


async def test_settings_are_put_in_force(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY_FILE)
    rig = Rig(TransferSettings())
    signer = Signer(Key(to_name("key.example"), (b"hmac-sha256",), SECRET))
    async with running(rig):
        rig.start()
        await trio.sleep(1)
        rig.service.configure(TransferSettings(allow=ALLOW, notify=NOTIFY))
        assert rig.rcode(request()) == 0  # from what it was told before
        await trio.sleep(1)
        assert serials(rig.network, ONE) == [7]
        rig.service.configure(TransferSettings(allow=ALLOW, keys=str(keys)))
        assert rig.rcode(request()) == 5
        signed = signer.sign(request(), NOW)
        assert rig.rcode(signed) == 0
        verdict = rig.service.verify(signed, query_of(signed))
        assert isinstance(verdict, Signer)
        response = rig.service.sign(
            bytes(dnslib.DNSRecord.parse(packet(D)).reply().pack()), verdict
        )
        assert response[10:12] == b"\0\1"
        await trio.sleep(1)
        rig.service.configure(TransferSettings())
        assert rig.rcode(request()) == 5


async def test_the_journal_outlives_a_reload() -> None:
    settings = TransferSettings(allow=ALLOW)
    rig, secondary = Rig(settings), Secondary()
    rig.start()
    rig.refresh(secondary)
    rig.zone.configure(DnsSettings(consul_names=True))
    rig.service.configure(settings, zone_changed=True)
    rig.apply(put(*PUBLISHED), 8)
    assert rig.refresh(secondary) == "incremental"
    assert secondary.records == wanted(rig.state.catalog, DnsSettings(consul_names=True))
    rig.service.configure(replace(settings, journal=5))
    assert rig.refresh(secondary) == "current"
    rig.apply(drop(*PUBLISHED), 9)
    assert rig.refresh(secondary) == "incremental"


@pytest.mark.parametrize("text", [None, "nonsense", "a hmac-md5 AAAAAAAAAAAAAAAA", "\xff"])
async def test_keys_that_cannot_be_read_open_nothing(tmp_path: Path, text: str | None) -> None:
    keys = tmp_path / "keys"
    if text is not None:
        keys.write_bytes(text.encode("latin-1"))
    rig = Rig(TransferSettings(allow=ALLOW, keys=str(keys)))
    rig.start()
    assert rig.rcode(request()) == 5
    signer = Signer(Key(to_name("key.example"), (b"hmac-sha256",), SECRET))
    assert rig.rcode(signer.sign(request(), NOW)) == 9


def test_the_example_of_a_key_file() -> None:
    """Each configuration of a secondary in `deploy/` has the same key."""
    deploy = Path(__file__).parents[2] / "deploy"
    (key,) = parse_keys((deploy / "transfer.keys.example").read_text())
    assert key.name == (b"discod-transfer",) and key.algorithm == (b"hmac-sha256",)
    files = sorted(deploy.glob("*-secondary.conf"))
    assert [file.name.partition("-")[0] for file in files] == ["bind", "knot", "nsd"]
    for file in files:
        assert base64.b64encode(key.secret).decode() in file.read_text()

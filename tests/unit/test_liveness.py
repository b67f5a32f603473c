"""The watch over hosts on real sockets: what counts as a sign of life, and what is not believed."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import trio

from discod.keeper import Keeper
from discod.knock import OPEN_MAX, Knocks
from discod.liveness import Liveness, Place, watch_for
from discod.metrics import Metrics
from discod.model.endpoint import Endpoint, Host, Producer
from discod.model.schema import Keyspace, encode_endpoint, encode_host
from discod.model.settings import LivenessSettings
from discod.model.swim_message import KIND, Ack, Ping, Word, decode, encode
from discod.store.base import KeyValue, Snapshot

KEYS = Keyspace()
DOMAIN = KEYS.domain
PERIOD = 0.1
AWAY = 20.0
"""Seconds to wait for what comes after about one."""


def address(name: str) -> str:
    """Each host has one of loopback's addresses."""
    return f"127.0.0.{ord(name) - ord('a') + 10}"


class Cluster:
    """Hosts of one process: the store's part is played by `share`."""

    def __init__(self, names: str) -> None:
        self.metrics = {name: Metrics() for name in names}
        self.keepers = {
            name: Keeper(
                KEYS, wall=lambda: 1000.0, monotonic=lambda: 0.0,
                metrics=self.metrics[name], host=name,
            )
            for name in names
        }  # fmt: skip
        self.parts: dict[str, Liveness] = {}
        for name in names:
            place = Place(name, DOMAIN, ip_address(address(name)), 0, PERIOD)
            self.parts[name] = Liveness(
                self.keepers[name], place, self.metrics[name], random.Random(name)
            )
            self.parts[name].bind()
        self.scopes: dict[str, trio.CancelScope] = {}

    def share(self) -> None:
        items = []
        for name, part in self.parts.items():
            own = (ip_address(address(name)),)
            host = Host(name, own, liveness_port=part.port, liveness_key=part.key)
            web = Endpoint(
                "web", name, own[0], 80, port_name="80", host=name, producer=Producer.DOCKER
            )
            items += [
                KeyValue(KEYS.host(name), encode_host(host), 5),
                KeyValue(KEYS.record(web.id), encode_endpoint(web), 5),
            ]
        for keeper in self.keepers.values():
            keeper.snapshot(Snapshot(5, tuple(items)))

    def web(self, on: str) -> set[str]:
        return set(self.keepers[on].catalog.services.get("web", {}))

    def value(self, on: str, metric: str, **labels: str) -> float:
        return self.metrics[on].registry.get_sample_value(metric, labels) or 0.0


@asynccontextmanager
async def running(names: str) -> AsyncIterator[Cluster]:
    cluster = Cluster(names)
    cluster.share()
    async with trio.open_nursery() as nursery:
        for name, part in cluster.parts.items():
            scope = cluster.scopes[name] = trio.CancelScope()

            async def one(part: Liveness = part, scope: trio.CancelScope = scope) -> None:
                with scope:
                    await part.run()

            nursery.start_soon(one)
        yield cluster
        nursery.cancel_scope.cancel()


async def until(fits: object) -> None:
    assert callable(fits)
    with trio.fail_after(AWAY):
        while not fits():  # noqa: ASYNC110 - it is the clock that is waited for
            await trio.sleep(0.02)


async def test_a_daemon_that_is_gone_is_no_dead_host_its_kernel_answers() -> None:
    async with running("abc") as cluster:
        await until(lambda: cluster.value("b", "discod_liveness_rtt_seconds_count") > 4)
        cluster.scopes["a"].cancel()
        await trio.sleep(PERIOD * 15)
        assert cluster.web("b") == cluster.web("c") == {"a", "b", "c"}
        assert not cluster.parts["b"].silent


async def test_a_host_that_answers_nothing_is_out_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loopback's kernel always answers, so what a knock brings is taken away here."""
    monkeypatch.setattr(Knocks, "look", lambda self, now: [])
    async with running("abc") as cluster:
        await until(lambda: cluster.value("b", "discod_liveness_rtt_seconds_count") > 4)
        a = cluster.parts["a"]
        held = a._socket
        monkeypatch.setattr(a, "_drain", lambda sock: sock.setblocking(False))
        monkeypatch.setattr(a, "_send", lambda packet, to: None)
        await until(lambda: cluster.web("b") == cluster.web("c") == {"b", "c"})
        silent = cluster.parts["b"].silent["a"]
        assert set(silent.witnesses) == {"b", "c"}
        assert cluster.value("b", "discod_liveness_host_up", host="a") == 0
        assert cluster.value("b", "discod_liveness_confirmed_total") == 1
        said = next(iter(cluster.keepers["b"].catalog.withdrawn.values()))
        assert "by the word of b, c" in said.detail
        assert held is not None
        monkeypatch.undo()
        await until(lambda: cluster.web("b") == cluster.web("c") == {"a", "b", "c"})
        assert not cluster.parts["b"].silent
        assert cluster.value("b", "discod_liveness_host_up", host="a") == 1


async def test_nobody_believes_what_is_forged_or_replayed() -> None:
    async with running("abc") as cluster:
        await until(lambda: cluster.value("b", "discod_liveness_rtt_seconds_count") > 2)
        b = cluster.parts["b"]
        word = Word(silent=(("a", 9000),))
        refused = cluster.value("b", "discod_liveness_refused_total")
        b._take(encode(word, 10**9, "c", DOMAIN, b"x" * 32), ("127.0.0.1", 9))
        assert cluster.value("b", "discod_liveness_refused_total") == refused + 1
        assert not b._swim._cases
        key = bytes.fromhex(cluster.parts["c"].key)
        b._take(encode(word, 10**9, "c", DOMAIN, key), ("127.0.0.1", 9))
        assert "a" in b._swim._cases
        b._swim._cases.clear()
        b._take(encode(word, 10**9, "c", DOMAIN, key), ("127.0.0.1", 9))
        assert not b._swim._cases
        b._take(b"dsl1garbage", ("127.0.0.1", 9))
        b._take(b"", ("127.0.0.1", 9))
        assert cluster.web("b") == {"a", "b", "c"}


async def test_a_ping_of_a_host_whose_key_is_not_known_yet_is_answered() -> None:
    async with running("ab") as cluster:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.bind(("127.0.0.1", 0))
            to = (address("a"), cluster.parts["a"].port)
            sock.sendto(encode(Ping(77), 1, "new", DOMAIN, b"y" * 32), to)
            packet = await trio.to_thread.run_sync(sock.recv, 2000)
        assert decode(KIND.open(packet))[1] == Ack(77)


async def test_knocks_at_closed_ports_are_answered_by_the_kernel() -> None:
    knocks = Knocks(ip_address("127.0.0.1"), 1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]  # UDP is open and mute, TCP is closed
        knocks.at("a", ip_address("127.0.0.1"), port, 0.0)
        assert knocks.look(0.1) == ["a"]
        assert knocks.look(0.2) == []
    for _ in range(OPEN_MAX + 5):
        knocks.at("b", ip_address("127.0.0.1"), port, 0.0)
    assert len(knocks._open) == OPEN_MAX
    knocks.close()
    assert knocks.look(9.0) == []


def test_a_port_that_is_taken_costs_only_the_watch() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        metrics = Metrics()
        keeper = Keeper(KEYS, wall=lambda: 0.0, monotonic=lambda: 0.0, metrics=metrics)
        own = (ip_address("127.0.0.1"),)
        part = watch_for(keeper, "a", DOMAIN, own, "etcd", LivenessSettings(port=port), metrics)
        assert part is not None
        assert (part.port, part.key) == (0, "")
        assert watch_for(keeper, "a", DOMAIN, own, "memory", LivenessSettings(), metrics) is None
        off = LivenessSettings(enabled=False)
        assert watch_for(keeper, "a", DOMAIN, own, "etcd", off, metrics) is None
        assert watch_for(keeper, "a", DOMAIN, (), "etcd", LivenessSettings(), metrics) is None

"""The service of BGP, over parts that only note what they are told."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import trio
import trio.testing

from calico_bgp.counts import PeerCounts
from calico_bgp.parts import Parts
from calico_bgp.ports import Desired, Hops, MeshHost, PeerStatus, RouteStatus, Standing
from calico_bgp.prefix import Address, Prefix
from calico_bgp.service import BgpService
from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.bgp_settings import BgpSettings
from discod.model.catalog import Change
from discod.model.endpoint import Endpoint, Host, HostBgp, Reason, Withdrawal
from discod.model.schema import Keyspace, encode_endpoint, encode_host
from discod.store.base import Delta, KeyValue, Removed, Snapshot
from tests.unit.test_bgp_desired import HERE, SETTINGS, endpoint

KEYS = Keyspace()
PEER = PeerStatus(
    "tor",
    "192.0.2.254",
    64600,
    False,
    True,
    "Established",
    1.0,
    ("ipv4",),
    9,
    3,
    2,
    False,
    1,
    "",
    0,
)


@dataclass
class FakeSpeaker:
    told: list[Desired] = field(default_factory=list)
    meshes: list[Mapping[str, MeshHost]] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    fails: bool = False
    runs: int = 0
    count: PeerCounts = field(default_factory=PeerCounts)

    def want(self, desired: Desired) -> None:
        if self.fails:
            raise RuntimeError("a fault of the speaker")
        self.told.append(desired)

    def set_mesh(self, hosts: Mapping[str, MeshHost]) -> None:
        self.meshes.append(hosts)

    def synced(self) -> None:
        self.calls.append("synced")

    def reconfigure(self, settings: BgpSettings, addresses: Sequence[Address] = ()) -> None:
        self.calls.append(("reconfigure", settings, tuple(addresses)))

    async def run(self) -> None:
        self.runs += 1
        if self.fails:
            raise RuntimeError("a fault of the speaker")
        await trio.sleep_forever()

    async def shutdown(self, text: str, deadline: float) -> None:
        self.calls.append(("shutdown", text))
        if self.fails:
            raise RuntimeError("a fault of the speaker")
        await trio.lowlevel.checkpoint()

    def peers(self) -> tuple[PeerStatus, ...]:
        return (PEER,)

    def routes(self) -> tuple[RouteStatus, ...]:
        return ()

    def counts(self) -> Mapping[Address, PeerCounts]:
        return {ip_address(PEER.address): self.count}


@dataclass
class FakeKernel:
    failed: dict[Prefix, str] = field(default_factory=dict)

    def learned(self, changed: Mapping[Prefix, Hops]) -> None: ...

    def settled(self) -> None: ...

    def installed(self, prefix: Prefix) -> bool:
        return True

    async def run(self) -> None:
        await trio.sleep_forever()

    def counts(self) -> Mapping[str, int]:
        return {"installed": 5}

    def faults(self) -> Mapping[Prefix, str]:
        return self.failed


@dataclass
class FakeFollower:
    told: list[Desired] = field(default_factory=list)
    left: int = 0
    failing: bool = False

    def want(self, desired: Desired) -> None:
        self.told.append(desired)

    async def run(self) -> None:
        await trio.sleep_forever()

    async def leave(self) -> None:
        self.left += 1
        if self.failing:
            raise OSError("no right to")

    def status(self) -> Sequence[Standing]:
        return [Standing("net.ipv4.ip_forward", "1", "present")]


class Rig:
    """A service between a keeper and fakes."""

    def __init__(self, settings: BgpSettings = SETTINGS, host: Host = HERE) -> None:
        self.speaker, self.kernel, self.follower = FakeSpeaker(), FakeKernel(), FakeFollower()
        self.metrics = Metrics()
        self.keeper = Keeper(
            KEYS, wall=lambda: 1.0, monotonic=lambda: 1.0, metrics=self.metrics, host="alpha"
        )
        self.running: list[Address] = []
        self.service = BgpService(
            settings,
            host,
            lambda *_: Parts(self.speaker, self.kernel, (self.follower,)),
            self.metrics,
            running=lambda: iter(self.running),
            rng=random.Random(1),
        )
        self.keeper.listen(self.service.update)
        self.revision = 1

    def snapshot(self, *endpoints: Endpoint, hosts: Sequence[Host] = ()) -> None:
        items = [KeyValue(KEYS.record(e.id), encode_endpoint(e), 1) for e in endpoints]
        items += [KeyValue(KEYS.host(h.name), encode_host(h), 1) for h in hosts]
        self.keeper.snapshot(Snapshot(self.revision, tuple(items)))
        self.service.begin(self.keeper.catalog)

    def put(self, key: str, value: bytes | None) -> None:
        self.revision += 1
        event = (
            Removed(key, self.revision) if value is None else KeyValue(key, value, self.revision)
        )
        self.keeper.delta(Delta(self.revision, (event,)))

    @property
    def announced(self) -> list[str]:
        return sorted(map(str, self.speaker.told[-1].announced))


def test_a_crash_reaches_the_speaker_within_the_call_that_tells_of_it() -> None:
    rig = Rig()
    rig.snapshot(endpoint(), endpoint("10.101.1.3"))
    assert rig.announced == ["10.101.1.2/32", "10.101.1.3/32"]
    rig.keeper.suppress([Withdrawal(endpoint(), Reason.CRASHED, "exit status 1", 1.0)])
    assert rig.announced == ["10.101.1.3/32"]


def test_before_the_first_snapshot_nothing_is_told() -> None:
    rig = Rig()
    rig.keeper.suppress([Withdrawal(endpoint(), Reason.CRASHED, "", 1.0)])
    rig.service.refresh()
    rig.service.docker_networks((ip_network("10.101.1.0/24"),))
    assert rig.speaker.told == []


def test_what_changes_nothing_is_not_told() -> None:
    rig = Rig()
    rig.snapshot(endpoint())
    told = len(rig.speaker.told)
    other = endpoint("10.101.2.2", host="beta")
    rig.put(KEYS.record(other.id), encode_endpoint(other))
    rig.service.update(rig.keeper.catalog, Change(frozenset(), False, ()))
    assert len(rig.speaker.told) == told


def test_the_host_side_hears_of_it_only_when_all_is_known() -> None:
    rig = Rig()
    rig.snapshot()
    rig.put(KEYS.record(endpoint().id), encode_endpoint(endpoint()))
    assert rig.follower.told == []
    rig.service.synced()
    rig.service.synced()
    assert rig.follower.told == [rig.service.desired]
    assert rig.speaker.calls == ["synced"]
    rig.put(KEYS.record(endpoint().id), None)
    assert [len(one.announced) for one in rig.follower.told] == [1, 0]


def test_other_hosts_make_the_mesh_and_what_is_routed() -> None:
    rig = Rig(replace(SETTINGS, mesh=True, networks=(ip_network("10.101.1.0/24"),)))
    rig.snapshot(endpoint())
    two = ip_address("192.0.2.2")
    record = HostBgp(64512, two, two, mesh=True, networks=(ip_network("10.101.2.0/24"),))  # type: ignore[arg-type]
    rig.put(KEYS.host("beta"), encode_host(Host("beta", (two,), bgp=record)))
    assert rig.speaker.meshes == [{"beta": MeshHost("beta", two, 179, 64512, False)}]
    routed = list(map(str, rig.speaker.told[-1].routed))
    assert routed == ["10.101.1.0/24", "10.101.2.0/24", "192.0.2.2/32"]
    rig.put(KEYS.host("beta"), None)
    assert rig.speaker.meshes[-1] == {}
    assert list(map(str, rig.speaker.told[-1].routed)) == ["10.101.1.0/24"]


def test_hosts_with_the_same_prefix_are_named(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.snapshot()
    rig.service.docker_networks((ip_network("172.17.0.0/16"),))
    two = ip_address("192.0.2.2")
    record = HostBgp(64512, two, two, networks=(ip_network("172.17.0.0/16"),))  # type: ignore[arg-type]
    rig.put(KEYS.host("beta"), encode_host(Host("beta", (two,), bgp=record)))
    assert rig.service.status()["clashes"] == ["beta: 172.17.0.0/16"]
    assert [r.message for r in caplog.records].count(
        "another host has containers in the same prefix; each needs prefixes of its own"
    ) == 1


def test_dockers_networks_are_in_the_record_unless_the_settings_name_some() -> None:
    rig = Rig()
    rig.snapshot()
    assert rig.service.docker_networks((ip_network("172.17.0.0/16"),))
    assert not rig.service.docker_networks((ip_network("172.17.0.0/16"),))
    record = rig.service.record()
    assert record is not None
    assert record.networks == (ip_network("172.17.0.0/16"),)


def test_running_containers_without_an_endpoint() -> None:
    rig = Rig(replace(SETTINGS, announce="running"))
    rig.snapshot()
    rig.running = [ip_address("10.101.1.9")]
    rig.service.refresh()
    assert rig.announced == ["10.101.1.9/32"]
    rig.running = []
    rig.service.refresh()
    assert rig.announced == []


async def test_a_drain_lowers_then_withdraws(autojump_clock: trio.testing.MockClock) -> None:
    rig = Rig()
    rig.snapshot(endpoint())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.service.run)
        rig.service.drain()
        assert rig.speaker.told[-1].draining
        rig.keeper.suppress([Withdrawal(endpoint(), Reason.DRAINED, "", 1.0)])
        await trio.sleep(4.9)
        assert rig.announced == ["10.101.1.2/32"]
        assert rig.service.leaves
        await trio.sleep(0.2)
        assert rig.announced == []
        assert not rig.speaker.told[-1].draining
        rig.service.undrain()
        rig.keeper.unsuppress([endpoint()])
        assert rig.announced == ["10.101.1.2/32"]
        assert not rig.service.leaves
        nursery.cancel_scope.cancel()


async def test_a_drain_that_is_taken_back_withdraws_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    rig = Rig()
    rig.snapshot(endpoint())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.service.run)
        rig.service.drain()
        await trio.sleep(1)
        rig.service.undrain()
        await trio.sleep(10)
        assert rig.announced == ["10.101.1.2/32"]
        nursery.cancel_scope.cancel()


def test_a_host_that_starts_drained_announces_nothing() -> None:
    rig = Rig(
        replace(SETTINGS, aggregates=(ip_network("10.101.1.0/24"),)), replace(HERE, drained=1)
    )
    rig.snapshot(endpoint())
    assert all(one.announced == frozenset() for one in rig.speaker.told)


@pytest.mark.parametrize(
    ("graceful", "drained", "said"),
    [(120.0, False, False), (0.0, False, True), (120.0, True, True)],
)
async def test_which_stop_is_a_leave_taking(graceful: float, drained: bool, said: bool) -> None:
    host = replace(HERE, drained=1.0 if drained else None)
    rig = Rig(replace(SETTINGS, graceful_restart=graceful), host)
    await rig.service.shutdown()
    words = [call[1] for call in rig.speaker.calls]
    assert (bool(words), bool(rig.follower.left)) == (said, said)
    assert all(("drained" in text) == drained and len(text.encode()) <= 255 for text in words)


async def test_a_part_that_cannot_leave_does_not_keep_the_others_from_it() -> None:
    rig = Rig(replace(SETTINGS, graceful_restart=0.0))
    rig.follower.failing = True
    await rig.service.shutdown()
    assert rig.speaker.calls
    assert "no right to" in rig.service.error


# Faults stay here ----------------------------------------------------------------------------


async def test_a_speaker_at_fault_hurts_nobody_and_is_run_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(replace(SETTINGS, graceful_restart=0.0))
    rig.speaker.fails = True
    rig.snapshot(endpoint())
    rig.put(KEYS.record(endpoint("10.101.1.3").id), encode_endpoint(endpoint("10.101.1.3")))
    assert len(rig.keeper.catalog.services["web"]) == 2
    assert "a fault of the speaker" in rig.service.error
    with trio.move_on_after(20):
        await rig.service.run()
    assert 4 <= rig.speaker.runs <= 12  # pauses of 0.25 s to 16 s
    await rig.service.shutdown()
    assert rig.metrics.registry.get_sample_value("discod_bgp_faults_total") > 5  # type: ignore[operator]


def test_a_wish_that_failed_is_told_with_the_next_change() -> None:
    rig = Rig()
    rig.speaker.fails = True
    rig.snapshot(endpoint())
    rig.speaker.fails = False
    rig.put(KEYS.record(endpoint("10.101.1.3").id), encode_endpoint(endpoint("10.101.1.3")))
    assert rig.announced == ["10.101.1.2/32", "10.101.1.3/32"]
    rig.speaker.fails = True
    rig.put(KEYS.record(endpoint("10.101.1.3").id), None)
    rig.speaker.fails = False
    other = endpoint("10.101.2.2", host="beta")
    rig.put(KEYS.record(other.id), encode_endpoint(other))
    assert rig.announced == ["10.101.1.2/32"]


def test_without_a_router_id_the_daemon_lives() -> None:
    def build(*_: object) -> Parts:
        raise ValueError("no router id")

    service = BgpService(SETTINGS, HERE, build, Metrics(), rng=random.Random(1))
    assert "bgp.router_id" in service.error
    assert service.peers() == ()


# Seeing --------------------------------------------------------------------------------------


def samples(metrics: Metrics) -> Iterator[str]:
    return (
        line
        for line in metrics.exposition().decode().splitlines()
        if line.startswith("discod_bgp_") and "_created" not in line
    )


def test_metrics_follow_what_the_parts_say() -> None:
    rig = Rig()
    rig.snapshot(endpoint())
    rig.speaker.count = PeerCounts(updates_received=3, updates_sent=4, lost=1)
    list(samples(rig.metrics))
    rig.speaker.count.updates_received = 5
    found = set(samples(rig.metrics))
    assert {
        'discod_bgp_session_up{peer="tor"} 1.0',
        "discod_bgp_announced_prefixes 1.0",
        'discod_bgp_received_prefixes{peer="tor"} 3.0',
        'discod_bgp_updates_total{direction="received",peer="tor"} 5.0',
        'discod_bgp_updates_total{direction="sent",peer="tor"} 4.0',
        'discod_bgp_flaps_total{peer="tor"} 1.0',
        "discod_bgp_kernel_routes 5.0",
    } <= found


def test_the_status_says_it_all() -> None:
    rig = Rig()
    rig.snapshot(endpoint())
    found = rig.service.status()
    assert found["announced"] == ["10.101.1.2/32"]
    assert (found["peers"], found["established"], found["phase"]) == (1, 1, "serving")
    assert found["stop"] == "keeps routes"
    assert found["host_side"] == [
        {"what": "net.ipv4.ip_forward", "wanted": "1", "present": "present", "good": True}
    ]
    assert rig.service.announced(ip_address("10.101.1.2"))
    assert not rig.service.announced(ip_address("10.101.1.3"))

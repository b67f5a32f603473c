"""`Table` itself: changes, revoking, faults, and that it leaves nothing behind."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address
from threading import Event, Thread
from types import MappingProxyType

import pytest
import trio

from discod.kernel.commands import CommandFailed
from discod.model.rescue import Plan
from discod.rescue.elements_socket import ElementsSocket
from discod.rescue.ruleset_layout import everywhere
from discod.rescue.table import Table
from tests.lab.netns import inside
from tests.lab.rescue_table.world import DEAD, VIP, World, at, place, plan, pool, stale

pytestmark = pytest.mark.lab


def normal(ruleset: str) -> list[str]:
    """A listing in which the order of elements, sets and chains does not matter."""
    flat = re.sub(r",\s+", ", ", ruleset)
    blocks: list[str] = []
    for family, body in re.findall(r"^table (\w+) discod_rescue \{\n(.*?)^\}", flat, re.M | re.S):
        for block in re.findall(r"^\t\w+ \w+ \{\n.*?^\t\}", body, re.M | re.S):
            match = re.search(r"elements = \{ (.*?) \}", block, re.S)
            some = sorted(match[1].split(", ")) if match else []
            blocks.append(f"{family} {re.sub(r'elements = .*', '', block, flags=re.S)} {some}")
    return sorted(blocks)


def there(world: World, key: str) -> bool:
    """Whether a place is in any set that decides on packets."""
    counting = ("rescued", "reset", "refused", "busy")
    deciding = [b for b in normal(world.ruleset()) if not b.split()[2].startswith(counting)]
    return any(re.search(rf"{re.escape(key)}\b", block) for block in deciding)


def random_plan(rng: random.Random, world: World) -> Plan:
    """Few services and addresses, so that everything happens to everything."""
    pools = [
        pool(
            rng.choice((4, 6)), rng.choice(("tcp", "udp")), service=rng.choice(("a", "b", "c-d")),
            affinity=rng.random() < 0.3, n=rng.choice((16, 32)),
        )
        for _ in range(rng.randrange(1, 5))
    ]  # fmt: skip
    full = []
    for one in pools:
        some = [at(n, one.id.version) for n in ("s", "t", "far") if rng.random() < 0.5]
        made = pool(
            one.id.version, one.id.protocol, *some, service=one.id.service,
            affinity=one.affinity, n=16,
        )  # fmt: skip
        full.append(made)
    gone = []
    for one in full:
        for _ in range(rng.randrange(4)):
            n = rng.randrange(70, 75)
            net = rng.choice((1, 3, 9))
            text = f"10.101.{net}.{n}" if one.id.version == 4 else f"2001:db8:{net}::{n}"
            backend = place(text, 8081, one.id.protocol) if rng.random() < 0.3 else None
            where = place(text, 80, one.id.protocol)
            gone.append(stale(where, one, cut=rng.random() < 0.6, backend=backend))
    vips = {
        place(VIP[one.id.version], rng.choice((80, 81)), one.id.protocol): one.id
        for one in full
        if rng.random() < 0.5
    }
    bridges = world.bridges if rng.random() < 0.8 else world.bridges[: rng.randrange(2)]
    return plan(gone, full, MappingProxyType(vips), bridges, rng.random() < 0.8)


@pytest.mark.parametrize("seed", range(4))
def test_a_change_leads_to_the_same_as_a_replacement(world: World, seed: int) -> None:
    rng = random.Random(seed)
    other = world.another()
    runs: list[str] = []
    through = world.table._run

    async def counting(argv: Sequence[str], stdin: str) -> str:
        runs.append(stdin)
        return await through(argv, stdin)

    world.table._run = counting
    changed = 0
    for _ in range(12):
        wanted = random_plan(rng, world)
        runs.clear()
        world.apply(wanted)
        assert len(runs) <= 1, "a change was refused and all was replaced"
        changed += any("delete element" in words for words in runs)
        by_change = normal(world.ruleset())
        trio.run(other.apply, wanted)
        assert normal(world.ruleset()) == by_change
        trio.run(other.remove)
        # Back to the tables of the one that changes; the other begins anew each time.
        world.restart()
        world.table._run = through
        world.apply(wanted)
        world.table._run = counting
    assert changed > 3
    other.close()


def thousand(n: int) -> Plan:
    one = pool(4, "tcp", at("s", 4), at("t", 4))
    return plan((stale(place(str(ip_address("10.101.9.0") + i), 80), one) for i in range(n)), [one])


def test_what_it_costs(world: World, record_property: Callable[[str, object], None]) -> None:
    took: dict[str, float] = {}
    for name, n in (("whole 0", 0), ("1 more", 1), ("1,000 more", 1001), ("1 less", 1000)):
        wanted = thousand(n)
        begun = time.perf_counter()
        world.apply(wanted)
        took[name] = (time.perf_counter() - begun) * 1000
    for n in (5, 6):  # the first has the socket to make
        begun = time.perf_counter()
        world.table.revoke([place(f"10.101.9.{n}", 80)])
        took["revoke 1"] = (time.perf_counter() - begun) * 1000
    for name, ms in took.items():
        record_property(name, round(ms, 3))
        print(f"{name}: {ms:.3f} ms")
    assert took["1 more"] < 1000
    assert took["1,000 more"] < 5000
    assert took["revoke 1"] < 200


def test_no_connection_fails_while_rules_are_replaced(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4), at("t", 4))
    dead = stale(place(DEAD[4], 80), siblings)
    wanted = plan([dead], [siblings], bridges=world.bridges)
    world.apply(wanted)
    over = Event()
    faults: list[OSError] = []
    done: list[str] = []

    def ask() -> None:
        while not over.is_set():
            try:
                done.append(world.get("c", DEAD[4], 80))
            except OSError as error:
                faults.append(error)

    thread = Thread(target=ask)
    thread.start()
    try:
        for turn in range(20):
            if turn % 2:
                world.restart()
            targets = (at("s", 4), at("t", 4))[: 1 + turn % 4 // 2]
            changed = pool(4, "tcp", *targets, n=16 << (turn % 3))
            world.apply(plan([dead], [changed], bridges=world.bridges))
    finally:
        over.set()
        thread.join()
    assert not faults
    assert len(done) > 20


def test_revoked_is_gone_at_once_and_others_stay(world: World) -> None:
    for version in (4, 6):
        siblings = pool(version, "tcp", at("s", version))
        dead = stale(place(DEAD[version], 80), siblings)
        alive = stale(place(at("t", version)), siblings, backend=place(DEAD[version], 81))
        world.apply(plan([dead, alive], [siblings], bridges=world.bridges))
        assert world.get("c", at("t", version)).startswith("s ")
        world.table.revoke([alive.place, place("10.101.9.9")])
        assert world.get("c", at("t", version)).startswith("t ")
        assert world.get("o", at("t", version)).startswith("t ")
        assert world.get("c", DEAD[version], 80).startswith("s ")
        assert not there(world, f"{at('t', version)} . tcp")
        assert not there(world, f"{DEAD[version]} . tcp . 81")
        assert there(world, f"{DEAD[version]} . tcp . 80")
        # And a later plan that has it anew brings it back, by a change.
        world.apply(plan([dead, alive], [siblings], bridges=world.bridges))
        assert world.get("c", at("t", version)).startswith("s ")


async def test_revoked_does_not_come_back_with_a_change_under_way(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4))
    coming = [stale(place(at("t", 4)), siblings)]
    table = world.table
    through = table._run
    begun, go_on = trio.Event(), trio.Event()

    async def held(argv: Sequence[str], stdin: str) -> str:
        begun.set()
        with trio.fail_after(5):
            await go_on.wait()
        return await through(argv, stdin)

    wanted = plan(coming, [siblings], bridges=world.bridges)
    for before in (None, plan(bridges=world.bridges)):
        world.restart()
        table = world.table
        if before is not None:
            await table.apply(before)
        begun, go_on = trio.Event(), trio.Event()
        table._run = held
        async with trio.open_nursery() as nursery:
            nursery.start_soon(table.apply, wanted)
            with trio.fail_after(5):
                await begun.wait()
            table.revoke([coming[0].place])
            go_on.set()
        get = await trio.to_thread.run_sync(world.get, "c", at("t", 4))
        assert get.startswith("t ")
        assert not there(world, "10.101.1.4 . tcp")
        table._run = through
        # The next plan counts again, in either direction.
        await table.apply(plan([], [siblings], bridges=world.bridges))
        await table.apply(wanted)
        get = await trio.to_thread.run_sync(world.get, "c", at("t", 4))
        assert get.startswith("s ")


@pytest.mark.parametrize("unknown", [False, True], ids=["this-kernel", "before-6.3"])
def test_what_is_not_there_does_not_stop_the_others(
    world: World, unknown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if unknown:  # a message that no kernel knows, as an older one does not know ours
        monkeypatch.setattr("discod.rescue.elements._DESTROYSETELEM", 10 << 8 | 120)
    world.apply(thousand(300))
    with closing(inside(world.host.path, ElementsSocket)) as direct:
        some = [place(str(ip_address("10.101.9.0") + i), 80) for i in range(0, 600, 2)]
        direct.delete(list(everywhere(some)))
        assert not there(world, "10.101.9.0 . tcp")
        assert not there(world, "10.101.9.42 . tcp")
        assert there(world, "10.101.9.43 . tcp")
        direct.delete(list(everywhere(some)))
        trio.run(world.table.remove)
        direct.delete(list(everywhere(some)))


async def test_cancelled_under_way_is_made_good(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4))
    table = world.table
    through = table._run
    await table.apply(plan(bridges=world.bridges))

    async def done_and_hangs(argv: Sequence[str], stdin: str) -> str:
        await through(argv, stdin)
        await trio.sleep_forever()
        return ""

    table._run = done_and_hangs
    wanted = plan([stale(place(at("t", 4)), siblings)], [siblings], bridges=world.bridges)
    with trio.move_on_after(0.5):
        await table.apply(wanted)
    assert there(world, "10.101.1.4 . tcp")
    table.revoke([place(at("t", 4))])
    assert not there(world, "10.101.1.4 . tcp")
    table._run = through
    await table.apply(wanted)
    assert await table.intact()


async def test_a_strangers_hand_is_noticed_and_made_good(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4))
    wanted = plan([stale(place(DEAD[4], 80), siblings)], [siblings], bridges=world.bridges)
    assert await world.table.intact()  # nothing was asked for yet
    for hand in (
        "flush ruleset",
        "delete table bridge discod_rescue",
        "delete table inet discod_rescue\nadd table inet discod_rescue",
    ):
        await world.table.apply(wanted)
        assert await world.table.intact()
        world.nft(hand)
        assert not await world.table.intact()
        await world.table.apply(wanted)
        assert await world.table.intact()
    # An element that was taken away: the change does not fit, and all is replaced.
    world.nft(f"delete element inet discod_rescue dead4 {{ {DEAD[4]} . tcp . 80 }}")
    await world.table.apply(plan(bridges=world.bridges))
    assert DEAD[4] not in world.ruleset()


async def test_without_tables_for_bridges_the_rest_is_there(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    through = world.table._run

    async def flat(argv: Sequence[str], stdin: str) -> str:
        if "table bridge" in stdin:
            raise CommandFailed("nft -f -: status 1: Operation not supported")
        return await through(argv, stdin)

    table = Table(flat, world.table._connect)
    siblings = pool(4, "tcp", at("s", 4))
    dead = stale(place(DEAD[4], 80), siblings)
    for turn in range(3):
        wanted = plan([dead], [replace(siblings, affinity=bool(turn % 2))], bridges=world.bridges)
        await table.apply(wanted)
        assert "table bridge" not in world.ruleset()
        get = await trio.to_thread.run_sync(world.get, "o", DEAD[4], 80)
        assert get.startswith("s ")
        world.nft("flush ruleset")
        assert not await table.intact()
    assert [r.message for r in caplog.records].count(
        "no table for bridges; clients on the same bridge are not rescued"
    ) == 1
    table.close()


async def test_nft_that_refuses_is_said(world: World) -> None:
    async def refuses(argv: Sequence[str], stdin: str) -> str:
        raise CommandFailed("nft: no such file")

    table = Table(refuses, world.table._connect)
    with pytest.raises(CommandFailed):
        await table.apply(thousand(1))
    with pytest.raises(CommandFailed):
        await table.usage()
    assert not await table.intact()
    table.close()


def test_a_full_count_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    siblings = pool(4, "tcp", at("s", 4))
    nobody = pool(4, "tcp", service="gone")
    some = [stale(place(DEAD[4], port), siblings) for port in (80, 81, 82)]
    some += [stale(place(DEAD[4], port), nobody) for port in (90, 91, 92)]
    through = world.table._run

    async def small(argv: Sequence[str], stdin: str) -> str:
        return await through(argv, stdin.replace("size 8192", "size 1"))

    world.table._run = small
    world.apply(plan(some, [siblings, nobody], bridges=world.bridges))
    for port in (80, 81, 82, 80):
        assert world.get("c", DEAD[4], port).startswith("s ")
    for port in (90, 91, 92):
        with pytest.raises(ConnectionRefusedError):
            world.get("c", DEAD[4], port)
    assert len(world.usage()) == 2


def test_use_on_a_bridge_is_seen_while_a_connection_lasts(world: World) -> None:
    siblings = pool(4, "tcp", at("s", 4))
    dead = stale(place(DEAD[4], 80), siblings)
    world.apply(plan([dead], [siblings], bridges=world.bridges))
    assert trio.run(world.table.busy) == frozenset()
    with closing(world.connect("c", DEAD[4], 80)) as one:
        assert one.recv(100)
        assert trio.run(world.table.busy) == {dead.place}
    assert world.usage() == {(at("c", 4), DEAD[4], "rescued"): 1}


def test_counts_outlast_changes(world: World) -> None:
    siblings = pool(6, "udp", at("s", 6))
    dead = stale(place(DEAD[6], 80, "udp"), siblings)
    more = stale(place(DEAD[6], 81, "udp"), siblings)
    world.apply(plan([dead], [siblings], bridges=world.bridges))
    for _ in range(3):
        assert world.get("c", DEAD[6], 80, "udp").startswith("s ")
    world.apply(plan([dead, more], [siblings], bridges=world.bridges))
    world.apply(plan([more], [siblings], bridges=world.bridges))
    assert world.usage() == {(at("c", 6), DEAD[6], "rescued"): 3}

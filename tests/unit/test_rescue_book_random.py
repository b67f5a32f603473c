"""discod.rescue.book through random histories: what always holds; the way does not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from discod.model.endpoint import Endpoint, Reason
from discod.model.rescue import Plan
from discod.rescue.book import Book, Step
from tests.rescue_world import ON, World, endpoint, moved_to, place, unit

VIP = (ip_address("198.51.100.1"),)
ONES = (
    endpoint("web", "a", "10.101.1.2", vip=VIP),
    endpoint("web", "b", "10.101.2.2", host="beta", vip=VIP, affinity=True),
    endpoint("web", "p", "192.0.2.1", 32768, vip=VIP),
    endpoint("db", "d", "10.101.1.2"),
    endpoint("db", "e", "10.101.2.2", host="beta", rescue=False),
    endpoint("api", "x", "2001:db8:1::2", host="beta", container=""),
    endpoint("api", "y", "2001:db8:1::2", 80, protocol="udp"),
)
FIRST = (0, 1, 2, 5, 6)
"""Up in the beginning."""
UNITS = (
    unit("a", "10.101.1.2", mac=b"123456"),
    unit("d", "10.101.1.2", mac=b"123456"),
    unit("p", "10.101.1.9", published={"192.0.2.1:32768": "10.101.1.9:80"}),
    unit("q", "10.101.1.8", published={"192.0.2.1:32768": "10.101.1.8:80"}),
    unit("r", "10.101.1.9"),
)
LIVED = tuple(reason for reason in Reason if reason not in (Reason.STARTING, Reason.SILENT))
Op = Callable[[World], Step | None]


def up(index: int) -> Op:
    """Where nobody else is, and not of a host that is silent."""

    def op(world: World) -> Step | None:
        one = replace(ONES[index], since=world.now)
        stored = map(world.state._records.get, (other.id for other in ONES if other.id != one.id))
        taken = any(isinstance(e, Endpoint) and e.place == one.place for e in stored)
        return None if taken or one.host in world.state._silent else world.up(one)

    return op


def down(index: int, reason: Reason) -> Op:
    """Of one that is, or was, up; its statement may change."""

    def op(world: World) -> Step | None:
        one = known(world).get(index)
        return None if one is None else world.down(one, reason=reason)

    return op


def vanish(index: int) -> Op:
    return lambda world: world.vanish(ONES[index])


def known(world: World) -> dict[int, Endpoint]:
    """As each was when it was last up, or is."""
    found = {}
    catalog = world.state.catalog
    for index, one in enumerate(ONES):
        said = catalog.withdrawn.get(one.id) or catalog.lost.get(one.id)
        now = catalog.endpoint(one.id) or (said.endpoint if said else None)
        if now is not None and now.place == one.place:
            found[index] = now
    return found


def silence(world: World) -> Step:
    return world.silence("beta")


def unsilence(world: World) -> Step:
    return world.unsilence("beta")


def units(chosen: frozenset[int]) -> Op:
    return lambda world: world.units(*(UNITS[i] for i in sorted(chosen)))


INDEX = st.integers(0, len(ONES) - 1)
CATALOG = st.one_of(
    st.builds(up, INDEX),
    st.builds(down, INDEX, st.sampled_from(LIVED)),
    st.builds(vanish, INDEX),
    st.sampled_from([silence, unsilence]),
)
ANYTHING = st.one_of(
    CATALOG,
    st.builds(units, st.frozensets(st.integers(0, len(UNITS) - 1))),
    st.builds(down, INDEX, st.just(Reason.STARTING)),
    st.builds(
        lambda i, port: (
            lambda world: world.up(
                moved_to(replace(ONES[i], since=world.now), str(ONES[i].address), port)
            )
        ),
        INDEX,
        st.sampled_from([81, 32769]),
    ),
    st.sampled_from([lambda world: world.claimed("10.101.1.2")]),
    st.sampled_from([lambda world: world.book.used(list(world.plan.stale), world.now)]),
    st.sampled_from([lambda world: world.book.update(world.state.catalog, None, world.now)]),
)


def shown(plan: Plan) -> tuple[object, ...]:
    """What does not depend on times."""
    stale = {at: (one.endpoint, one.pool, one.backend, one.mac) for at, one in plan.stale.items()}
    return stale, dict(plan.vips), dict(plan.pools), plan.refuse


@settings(max_examples=80, deadline=None)
@given(st.lists(CATALOG, max_size=25))
def test_the_way_to_a_catalog_does_not_matter(ops: list[Op]) -> None:
    world = World(*(ONES[i] for i in FIRST))
    for op in ops:
        world.now += 1
        op(world)
    fresh = world.afresh()
    assert shown(world.plan) == shown(fresh.plan)
    assert all(world.plan.stale[at].cut >= one.cut for at, one in fresh.plan.stale.items())


@settings(max_examples=100, deadline=None)
@given(st.lists(ANYTHING, max_size=25))
def test_what_holds_always(ops: list[Op]) -> None:
    world = World(*(ONES[i] for i in FIRST))
    for op in ops:
        world.now += 1
        before = world.plan
        step = op(world)
        if step is None:
            continue
        assert step.plan is world.plan
        check_use(world, step.plan)
        check_pools(world, step.plan)
        left = before.stale.keys() - step.plan.stale.keys()
        assert left <= set(step.revoked), "no time passed, so only use can end one"
        assert not set(step.revoked) & step.plan.stale.keys()
        check_cut(before, step)


def check_use(world: World, plan: Plan) -> None:
    catalog = world.state.catalog
    live = {one.place for one in catalog.endpoints()}
    running = world.book._local.units.values()
    for at, stale in plan.stale.items():
        assert at not in live
        dead = world.book._deads.get(at)
        assert dead is not None and dead.endpoint.rescue
        others = [one for one in running if one.container != dead.endpoint.container]
        for one in others:
            assert at.address not in one.addresses
            assert at not in one.published
            assert stale.backend is None or stale.backend.address not in one.addresses
        assert stale.backend not in live


def check_pools(world: World, plan: Plan) -> None:
    named = {one.pool for one in plan.stale.values()} | set(plan.vips.values())
    assert set(plan.pools) == named
    book = Book(ON, "alpha")
    book.reset(world.state.catalog, world.now)
    if world.book._local.known:
        book.units(world.book._local.units, world.book._local.bridges, world.now)
    for id_ in plan.pools.keys() & book.plan.pools.keys():
        assert plan.pools[id_] == book.plan.pools[id_]
    live = {(one.address, one.port) for one in world.state.catalog.endpoints()}
    inside = {(at.address, at.port) for _, at in world.book._local.published.values()}
    for pool in plan.pools.values():
        assert set(pool.slots) <= live | inside


def check_cut(before: Plan, step: Step) -> None:
    """Each stale place that is cut was told once, when it became so."""
    for at, stale in step.plan.stale.items():
        was = before.stale.get(at)
        begins = stale.cut and not (was is not None and was.cut and was.endpoint == stale.endpoint)
        if begins:
            assert at in step.cut
            assert stale.backend is None or stale.backend in step.cut
        elif was is not None:
            assert at not in step.cut


def test_the_places_of_these_histories_overlap() -> None:
    """Else they would say little."""
    assert ONES[0].place == ONES[3].place == place("10.101.1.2:80")
    assert ONES[1].place == ONES[4].place

"""discod.model.brake and the Catalog: what the store lost at once is kept, what ended is not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model import schema
from discod.model.brake import Brake, Why
from discod.model.catalog import CatalogState, Change, What
from discod.model.endpoint import Endpoint, EndpointId, Host, Producer, Reason, Withdrawal
from discod.model.hint import Down
from discod.model.schema import Keyspace
from discod.model.settings import BrakeSettings

KEYS = Keyspace()
WALL = 1764000000.0
ON = BrakeSettings()


def endpoint(host: str, n: int, port: int = 80) -> Endpoint:
    address = ip_address(f"10.0.{ord(host[0])}.{n}")
    return Endpoint(
        "web", f"{host}-{n}", address, port, host=host, container="c", producer=Producer.DOCKER
    )


def put(one: Endpoint, revision: int) -> tuple[str, bytes, int]:
    return KEYS.record(one.id), schema.encode_endpoint(one), revision


def gone(one: Endpoint, revision: int) -> tuple[str, None, int]:
    return KEYS.record(one.id), None, revision


def said(one: Endpoint, revision: int) -> tuple[str, bytes, int]:
    value = schema.encode_withdrawal(Withdrawal(one, Reason.EXITED, "", WALL))
    return KEYS.withdrawn(one.host, one.id), value, revision


def of(host: str, count: int) -> list[Endpoint]:
    return [endpoint(host, n) for n in range(1, count + 1)]


class Cluster:
    """A Catalog of several hosts with a clock that the test moves."""

    def __init__(self, settings: BrakeSettings = ON, here: str = "", **hosts: int) -> None:
        self.brake = Brake(settings, here, lambda: self.held)
        self.held = 0
        self.state = CatalogState(KEYS, here, self.brake)
        self.time = 100.0
        self.revision = 10
        self.all = {name: of(name, count) for name, count in hosts.items()}
        records = [put(one, 10) for ones in self.all.values() for one in ones]
        self.state.reset(records, 10, WALL, self.time)
        self.changes: list[Change] = []

    def lose(self, *ones: Endpoint, after: float = 0.0) -> Change:
        return self.see(*(gone(one, self.revision + 1) for one in ones), after=after)

    def see(self, *events: tuple[str, bytes | None, int], after: float = 0.0) -> Change:
        self.time += after
        self.revision += 1
        return self.state.apply(events, self.revision, WALL, self.time)

    @property
    def up(self) -> set[str]:
        return {one.instance for one in self.state.catalog.endpoints()}

    @property
    def suspects(self) -> set[str]:
        return {id_.instance for id_ in self.state.catalog.suspects}

    @property
    def lost(self) -> set[str]:
        return {id_.instance for id_ in self.state.catalog.lost}


def names(*ones: Endpoint) -> set[str]:
    return {one.instance for one in ones}


# When it engages ------------------------------------------------------------------------------


def test_a_mass_loss_is_kept_and_nothing_moves_in_dns() -> None:
    cluster = Cluster(a=4, b=4, c=4)
    a, b, c = cluster.all.values()
    change = cluster.lose(*a, *b, *c)
    assert change.services == frozenset()
    assert [entry.what for entry in change.entries] == [What.SUSPECT] * 12
    assert cluster.up == cluster.suspects == names(*a, *b, *c)
    assert not cluster.lost


def test_the_negative_control_switched_off_all_is_lost() -> None:
    cluster = Cluster(replace(ON, enabled=False), a=4, b=4, c=4)
    change = cluster.lose(*(one for ones in cluster.all.values() for one in ones))
    assert change.services == {"web"}
    assert (cluster.up, cluster.suspects) == (set(), set())
    assert len(cluster.lost) == 12


@pytest.mark.parametrize(
    ("sizes", "losses", "engaged"),
    [
        ({"a": 8, "b": 2}, {"a": 8}, False),  # a single host's lease is a statement
        ({"a": 8, "b": 2}, {"a": 8, "b": 1}, True),
        ({"a": 2, "b": 2}, {"a": 2, "b": 2}, False),  # fewer than `least`
        ({"a": 3, "b": 2}, {"a": 3, "b": 2}, True),
        ({"a": 10, "b": 10}, {"a": 3, "b": 3}, False),  # not *more* than the share
        ({"a": 10, "b": 10}, {"a": 4, "b": 3}, True),
    ],
)
def test_thresholds(sizes: dict[str, int], losses: dict[str, int], engaged: bool) -> None:
    cluster = Cluster(ON, "", **sizes)
    lost = [one for host, count in losses.items() for one in cluster.all[host][:count]]
    cluster.lose(*lost)
    assert cluster.suspects == (names(*lost) if engaged else set())
    assert cluster.lost == (set() if engaged else names(*lost))


def test_what_went_first_comes_back_when_the_rest_follows() -> None:
    cluster = Cluster(a=4, b=4, c=4)
    a, b, _ = cluster.all.values()
    assert cluster.lose(*a).services == {"web"}
    assert cluster.up.isdisjoint(names(*a))
    change = cluster.lose(*b, after=1.0)
    assert change.services == {"web"}, "those of a are in DNS again"
    assert [entry.what for entry in change.entries] == [What.SUSPECT] * 8
    assert cluster.suspects == names(*a, *b) < cluster.up
    assert not cluster.lost


def test_two_losses_further_apart_than_the_window_are_two_hosts_leaving() -> None:
    cluster = Cluster(a=4, b=4, c=4)
    a, b, _ = cluster.all.values()
    cluster.lose(*a)
    cluster.lose(*b, after=ON.window + 1)
    assert (cluster.suspects, cluster.lost) == (set(), names(*a, *b))


def test_withdrawals_however_many_are_believed() -> None:
    cluster = Cluster(a=4, b=4, c=4)
    every = [one for ones in cluster.all.values() for one in ones]
    cluster.see(*(event for one in every for event in (gone(one, 11), said(one, 11))))
    assert (cluster.up, cluster.suspects, cluster.lost) == (set(), set(), set())


def test_what_was_withdrawn_or_came_back_does_not_count() -> None:
    cluster = Cluster(a=4, b=4, c=4)
    a, b, _ = cluster.all.values()
    cluster.lose(*a)
    cluster.see(*(put(one, 12) for one in a))
    cluster.lose(*b)
    assert (cluster.suspects, cluster.lost) == (set(), names(*b))


def test_what_this_host_holds_itself_counts_and_its_own_are_no_suspects() -> None:
    two = Cluster(here="a", a=4, b=4)
    two.held = 4
    two.lose(*two.all["b"])
    assert two.suspects == names(*two.all["b"])
    mixed = Cluster(here="a", a=4, b=4)
    mixed.lose(*mixed.all["a"], *mixed.all["b"])
    assert mixed.suspects == names(*mixed.all["b"])
    assert mixed.lost == names(*mixed.all["a"])


def test_a_snapshot_that_lacks_them_is_a_loss_too() -> None:
    cluster = Cluster(a=4, b=4)
    cluster.state.reset([], 20, WALL, 101.0)
    assert cluster.suspects == names(*cluster.all["a"], *cluster.all["b"])


def test_a_store_that_was_set_back_is_not_believed_at_all() -> None:
    cluster = Cluster(a=1, b=3)
    kept = [put(one, 2) for one in cluster.all["a"]]
    cluster.state.reset(kept, 3, WALL, 101.0)  # one host, three endpoints
    assert cluster.suspects == names(*cluster.all["b"])
    assert len(cluster.up) == 4
    on = Cluster(a=1, b=3)
    on.state.reset([put(one, 2) for one in on.all["a"]], 30, WALL, 101.0)
    assert on.lost == names(*on.all["b"]), "the control: history goes on"


def test_growth_within_the_window_counts_as_known() -> None:
    cluster = Cluster(a=1)
    more = [*of("b", 20), *of("c", 20)]
    cluster.see(*(put(one, 11) for one in more), after=1.0)
    cluster.lose(*more[:4], *more[20:24], after=1.0)
    assert not cluster.suspects, "8 of 41"


# How a suspect ends -----------------------------------------------------------------------------


@pytest.fixture
def engaged() -> Cluster:
    cluster = Cluster(a=4, b=4, c=4)
    cluster.lose(*cluster.all["a"], *cluster.all["b"])
    return cluster


def test_the_store_has_it_again(engaged: Cluster) -> None:
    one = engaged.all["a"][0]
    change = engaged.see(put(one, 12))
    assert change.services == frozenset(), "nothing moves in DNS"
    assert [entry.what for entry in change.entries] == [What.ANNOUNCED]
    assert len(engaged.suspects) == 7
    assert engaged.brake.ended == {Why.RETURNED: 1}
    moved = replace(engaged.all["a"][1], weight=7)
    assert engaged.see(put(moved, 13)).services == {"web"}
    assert engaged.state.catalog.endpoint(moved.id) == moved


def test_its_host_withdraws_it(engaged: Cluster) -> None:
    one = engaged.all["a"][0]
    change = engaged.see(said(one, 12))
    assert [entry.what for entry in change.entries] == [What.WITHDRAWN]
    assert one.instance not in engaged.up | engaged.lost
    assert engaged.brake.ended == {Why.WITHDRAWN: 1}


@pytest.mark.parametrize(("host", "ends"), [("a", True), ("b", False)])
def test_its_host_hints_that_it_ended(engaged: Cluster, host: str, ends: bool) -> None:
    one = engaged.all["a"][0]
    engaged.state.hint([Down(one.id, 10, Reason.CRASHED, "", WALL)], host, WALL)
    assert (one.instance not in engaged.up) == ends
    engaged.state.unhint([one.id], WALL)
    assert (one.instance not in engaged.up) == ends, "for good"


def test_it_fails_its_probes_in_a_row(engaged: Cluster) -> None:
    id_ = engaged.all["a"][0].id

    def probe(*, ok: bool) -> Change:
        return engaged.state.probed(id_, WALL, ok=ok, detail="probe failed: refused")

    assert probe(ok=False).entries == ()
    assert probe(ok=True).entries == ()
    assert probe(ok=False).entries == ()
    assert id_.instance in engaged.up
    change = probe(ok=False)
    assert [(e.what, e.detail) for e in change.entries] == [
        (What.LOST, "kept as a suspect, then dropped: probe failed: refused")
    ]
    assert change.services == {"web"}
    assert id_.instance in engaged.lost - engaged.up
    assert probe(ok=True).entries == (), "it is no suspect any more"


def test_what_was_dropped_is_not_taken_back_by_the_next_loss(engaged: Cluster) -> None:
    id_ = engaged.all["a"][0].id
    for _ in range(ON.fall):
        engaged.state.probed(id_, WALL, ok=False, detail="")
    engaged.lose(*engaged.all["c"], after=1.0)
    assert id_.instance not in engaged.up
    assert names(*engaged.all["c"]) < engaged.suspects


def test_it_was_held_for_long_enough(engaged: Cluster) -> None:
    assert engaged.state.expire(WALL, 100.0 + ON.hold - 1).entries == ()
    change = engaged.state.expire(WALL, 100.0 + ON.hold)
    assert [entry.what for entry in change.entries] == [What.LOST] * 8
    assert not engaged.suspects
    assert engaged.brake.ended == {Why.EXPIRED: 8}


def test_switched_off_it_lets_go(engaged: Cluster) -> None:
    engaged.brake.settings = replace(ON, enabled=False)
    engaged.state.expire(WALL, engaged.time)
    assert engaged.up == names(*engaged.all["c"])


def test_udp_and_what_has_no_port_cannot_be_probed() -> None:
    cluster = Cluster(a=1, b=1)
    more = [
        replace(endpoint("a", 7), protocol="udp"),
        endpoint("b", 7, port=0),
        endpoint("b", 8),
        endpoint("b", 9),
    ]
    cluster.see(*(put(one, 11) for one in more))
    cluster.lose(*more, *cluster.all["a"], *cluster.all["b"])
    found = {id_.instance: one.probed for id_, one in cluster.state.catalog.suspects.items()}
    assert found == {
        "a-7": False, "b-7": False, "b-8": True, "b-9": True, "a-1": True, "b-1": True
    }  # fmt: skip


def test_an_end_known_before_the_loss_is_an_end(engaged: Cluster) -> None:
    cluster = Cluster(here="a", a=4, b=4, c=4)
    mine, theirs = cluster.all["a"][0], cluster.all["b"][0]
    cluster.state.suppress([Withdrawal(mine, Reason.CRASHED, "", WALL)], WALL)
    cluster.state.hint([Down(theirs.id, 10, Reason.CRASHED, "", WALL)], "b", WALL)
    cluster.lose(*cluster.all["a"], *cluster.all["b"], *cluster.all["c"])
    assert cluster.up == cluster.suspects
    assert not cluster.suspects & names(mine, theirs)


# Silence ----------------------------------------------------------------------------------------


def test_a_silent_host_is_hidden_with_its_aliases_until_it_answers() -> None:
    cluster = Cluster(here="a", a=2, b=2)
    change = cluster.state.silence("b", "no reply for 1 s", WALL)
    assert change.services == {"web"}
    assert {(e.what, e.reason, e.detail) for e in change.entries} == {
        (What.WITHDRAWN, Reason.SILENT, "host b does not answer: no reply for 1 s")
    }
    assert cluster.up == names(*cluster.all["a"])
    assert set(cluster.state.hidden()) == {one.id for one in cluster.all["b"]}
    new = endpoint("b", 9)
    assert cluster.see(put(new, 11)).entries == (), "new ones are hidden too"
    assert cluster.state.silence("b", "again", WALL).entries == ()
    cluster.state.unsilence("b", WALL)
    assert cluster.up == names(*cluster.all["a"], *cluster.all["b"], new)
    assert not cluster.state.catalog.withdrawn
    assert cluster.state.hidden() == {}


@pytest.mark.parametrize("name", ["a", "", "x"])
def test_silence_is_not_about_this_host_nor_about_nobody(name: str) -> None:
    cluster = Cluster(here="a", a=2, b=2)
    assert cluster.state.silence(name, "", WALL).entries == ()
    assert len(cluster.up) == 4


def test_a_silent_host_whose_lease_ends_is_lost() -> None:
    cluster = Cluster(here="a", a=6, b=2)
    cluster.state.silence("b", "", WALL)
    assert cluster.lose(*cluster.all["b"]).entries == (), "DNS had it out already"
    assert cluster.lost == names(*cluster.all["b"])
    cluster.state.unsilence("b", WALL)
    assert cluster.up == names(*cluster.all["a"])


def test_suspects_of_a_silent_host_are_hidden(engaged: Cluster) -> None:
    engaged.state.silence("b", "", WALL)
    assert engaged.up == names(*engaged.all["a"], *engaged.all["c"])
    engaged.state.unsilence("b", WALL)
    assert engaged.up == names(*engaged.all["a"], *engaged.all["b"], *engaged.all["c"])


# Any history ------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lose", "put", "withdraw", "fail", "expire", "silence", "speak", "reset"]),
        st.sampled_from("abc"),
        st.integers(1, 4),
        st.sampled_from([0.0, 1.0, 40.0]),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_happens_the_catalog_is_records_and_suspects(
    steps: list[tuple[str, str, int, float]],
) -> None:
    cluster = Cluster(a=4, b=4, c=4)
    stored: dict[EndpointId, Endpoint] = {
        one.id: one for ones in cluster.all.values() for one in ones
    }
    silent: set[str] = set()
    for what, host, n, after in steps:
        one = endpoint(host, n)
        if what == "lose":
            cluster.lose(one, after=after)
            stored.pop(one.id, None)
        elif what == "put":
            cluster.see(put(one, cluster.revision + 1), after=after)
            stored[one.id] = one
        elif what == "withdraw":
            revision = cluster.revision + 1
            cluster.see(gone(one, revision), said(one, revision), after=after)
            cluster.see((KEYS.withdrawn(host, one.id), None, revision + 1))
            stored.pop(one.id, None)
            assert one.id not in cluster.state.catalog.suspects
        elif what == "fail":
            for _ in range(ON.fall):
                cluster.state.probed(one.id, WALL, ok=False, detail="")
            assert one.id not in cluster.state.catalog.suspects
        elif what == "expire":
            cluster.state.expire(WALL, cluster.time)
        elif what == "silence":
            cluster.state.silence(host, "", WALL)
            silent.add(host)
        elif what == "speak":
            cluster.state.unsilence(host, WALL)
            silent.discard(host)
        else:
            cluster.revision += 1
            items = [put(each, each.revision) for each in stored.values()]
            cluster.state.reset(items, cluster.revision, WALL, cluster.time)
        catalog = cluster.state.catalog
        kept = {id_: one.endpoint for id_, one in catalog.suspects.items()}
        assert not kept.keys() & stored.keys(), "what the store has is no suspect"
        assert not kept.keys() & catalog.lost.keys()
        expected = {i: e for i, e in {**stored, **kept}.items() if e.host not in silent}
        assert {one.id: one for one in catalog.endpoints()} == expected
    cluster.state.expire(WALL, cluster.time + ON.hold)
    assert not cluster.state.catalog.suspects, "it always lets go"


def test_hosts_are_not_suspects() -> None:
    cluster = Cluster(a=4, b=4)
    key = KEYS.host("a")
    cluster.see((key, schema.encode_host(Host("a", ())), 11))
    cluster.see(*(gone(one, 12) for ones in cluster.all.values() for one in ones), (key, None, 12))
    assert not cluster.state.catalog.hosts
    assert len(cluster.up) == 8

"""What workers are told, read by a model of a worker; no process, no socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Alias, Endpoint, Host
from discod.model.schema import encode_endpoint
from discod.model.settings import DnsSettings
from resolver.hot import protocol
from resolver.hot.protocol import (
    Config,
    Kind,
    Row,
    Services,
    aliased,
    frames,
    pack,
    read_config,
    read_services,
    unpack,
    unpack_hosts,
)
from resolver.hot.sync import Feed, News
from tests.resolving import (
    HOSTS,
    KEYS,
    NAMED,
    OWN,
    PUBLISHED,
    WEB,
    endpoint,
    items,
    made,
    state_of,
)

CONFIG = Config(DnsSettings(), OWN, (b"s" * 16,))


def kept(endpoint: Endpoint) -> Row:
    """What a worker is told of an endpoint."""
    return Row(*(getattr(endpoint, name) for name in Row._fields))


def contents(catalog: Catalog) -> dict[str, Any]:
    return {
        name: (
            {i: kept(e) for i, e in catalog.services.get(name, {}).items()},
            {i: replace(a, host="", since=0.0) for i, a in catalog.aliases.get(name, {}).items()},
        )
        for name in {*catalog.services, *catalog.aliases}
    }


class Model:
    """A worker as the protocol says it is."""

    def __init__(self, news: News) -> None:
        self.woken = 0
        self.feed = news.feed(self.wake)
        self.configs: list[Config] = []
        self.steps: list[Services] = []
        self.services: dict[str, Any] = {}
        self.hosts: Mapping[str, Host] = {}
        self.going = False

    def wake(self) -> None:
        self.woken += 1

    def hear(self, octets: int = 65536) -> bool:
        """Take the next frames; whether there were any."""
        buffer = bytearray(self.feed.frames(octets))
        if not buffer:
            return False
        for kind, payload in frames(buffer):
            assert self.configs or kind == Kind.CONFIG, "the configuration comes first"
            match kind:
                case Kind.CONFIG:
                    self.configs.append(read_config(payload))
                case Kind.SERVICES:
                    self.step(read_services(payload))
                case Kind.GO:
                    assert not self.going, "once"
                    self.going = True
        assert not buffer, "whole frames"
        return True

    def step(self, step: Services) -> None:
        assert step.number == len(self.steps) + 1
        self.steps.append(step)
        if step.reset:
            self.services.clear()
        for name, packed in step.services:
            if packed is None:
                self.services.pop(name, None)
            else:
                self.services[name] = unpack(name, packed)
        if step.hosts is not None:
            self.hosts = unpack_hosts(step.hosts)

    def drain(self, octets: int = 65536) -> None:
        for _ in range(10_000):
            if not self.hear(octets):
                return
        raise AssertionError("there is no end to it")

    def check(self, news: News) -> None:
        """It knows what there is to know."""
        assert self.services == contents(news.catalog)
        assert self.hosts == {
            name: Host(name, host.addresses, zone=host.zone)
            for name, host in news.catalog.hosts.items()
        }
        assert self.configs[-1] == news.config
        last = self.steps[-1]
        assert (last.revision, last.ready, last.stale, last.fronted) == (
            news.catalog.revision,
            news.ready,
            news.stale,
            news.fronted,
        )
        assert self.feed.number == last.number


def news_of(catalog: Catalog, *, ready: bool = True) -> News:
    news = News(CONFIG)
    news.update(catalog, None)
    news.set_stale(False, ready)
    return news


def change_of(*services: str, hosts: bool = False) -> Change:
    return Change(frozenset(services), hosts, ())


def test_a_new_worker_is_told_everything_and_then_to_go() -> None:
    news = news_of(NAMED["all"])
    model = Model(news)
    assert model.hear()
    model.check(news)
    assert model.going
    assert [step.reset for step in model.steps] == [True]
    assert not model.hear()
    assert model.woken == 0


def test_it_goes_with_the_first_snapshot_and_not_before() -> None:
    news = News(CONFIG)
    model = Model(news)
    model.drain()
    assert model.configs == [CONFIG] and not model.going
    assert [(s.ready, s.services) for s in model.steps] == [(False, ())]
    news.update(NAMED["all"], change_of(*NAMED["all"].services, hosts=True))
    assert model.woken == 1
    model.drain(1)
    assert not model.going
    news.set_stale(False, True)
    assert model.woken == 2
    model.drain(1)
    assert model.going
    model.check(news)


def test_readiness_and_revision_come_with_the_last_batch() -> None:
    news = news_of(NAMED["all"])
    model = Model(news)
    while model.hear(1):
        whole = not any(s in model.feed for s in NAMED["all"].services)
        assert model.going == model.steps[-1].ready == whole
        assert model.steps[-1].revision == (NAMED["all"].revision if whole else 0)
    assert len(model.steps) == len(NAMED["all"].services) > 1
    model.check(news)


def test_batches_are_of_the_size_asked_for() -> None:
    many = {
        f"s{i}": {"i": endpoint(f"s{i}", "i", str(ip_address("10.0.0.0") + i))} for i in range(2000)
    }
    news = news_of(Catalog("discod.internal", 5, MappingProxyType(many)))
    model = Model(news)
    sizes = []
    while data := model.feed.frames(8192):
        sizes.append(len(data))
    assert len(sizes) > 20
    assert all(0.5 * 8192 < size < 1.2 * 8192 for size in sizes[1:-1]), sizes


def test_many_changes_of_one_service_are_told_once() -> None:
    state = state_of(items(WEB))
    news = news_of(state.catalog)
    model = Model(news)
    model.drain()
    for i in range(100):
        changed = replace(WEB[0], port=1000 + i)
        event = (KEYS.record(WEB[0].id), encode_endpoint(changed), 10 + i)
        change = state.apply([event], 10 + i, 0.0)
        news.update(state.catalog, change)
    assert model.woken == 100
    model.drain()
    model.check(news)
    assert [[name for name, _ in step.services] for step in model.steps[1:]] == [["web"]]
    assert model.services["web"][0][WEB[0].instance].port == 1099


def test_a_service_that_is_gone_is_told_as_gone() -> None:
    news = news_of(NAMED["all"])
    model = Model(news)
    model.drain()
    news.update(NAMED["web"], change_of("api", "legacy", "node"))
    model.drain()
    model.check(news)
    assert ("api", None) in model.steps[-1].services
    assert model.steps[-1].hosts is None, "they are as they were"


def test_what_has_gone_before_it_was_told_is_not_told() -> None:
    news = news_of(NAMED["all"])
    model = Model(news)
    news.update(NAMED["web"], change_of("api", "legacy", "node"))
    model.drain()
    model.check(news)
    assert [name for name, _ in model.steps[0].services] == ["web"]


def test_hosts_are_told_when_they_change() -> None:
    news = news_of(NAMED["web"])
    model = Model(news)
    model.drain()
    zoned = {h.name: replace(h, zone="r1", hint_key="s" * 64) for h in HOSTS}
    news.update(replace(NAMED["web"], revision=8, hosts=zoned), change_of(hosts=True))
    model.drain()
    model.check(news)
    assert model.steps[-1].services == ()
    assert {h.zone for h in model.hosts.values()} == {"r1"}


def test_aliases_are_services() -> None:
    alias = Alias("www", "beta-www", "web.discod.internal", host="beta", ttl=3)
    aliases = MappingProxyType({"www": MappingProxyType({"beta-www": alias})})
    news = news_of(replace(NAMED["web"], aliases=aliases))
    model = Model(news)
    model.drain()
    model.check(news)
    assert model.services["www"] == ({}, {"beta-www": replace(alias, host="")})
    news.update(NAMED["web"], change_of("www"))
    model.drain()
    model.check(news)


def test_a_catalog_of_which_the_change_is_unknown_hides_no_name_meanwhile() -> None:
    news = news_of(NAMED["all"])
    model = Model(news)
    model.drain()
    told = len(model.steps)
    news.update(NAMED["web"], None)
    while model.hear(1):
        assert "web" in model.services
    model.check(news)
    assert not any(step.reset for step in model.steps[told:])


def test_the_store_goes_and_comes_back() -> None:
    news = news_of(NAMED["web"])
    model = Model(news)
    model.drain()
    for stale in (True, True, False):
        news.set_stale(stale, True)
    assert model.woken == 2
    model.drain()
    model.check(news)
    assert len(model.steps) == 2


def test_whether_services_own_addresses_stand_is_told_without_the_services() -> None:
    vip = (ip_address("10.96.0.7"),)
    owning = [replace(e, vip=vip) for e in WEB]
    news = news_of(made([*owning, *PUBLISHED]))
    model = Model(news)
    model.drain()
    assert not model.steps[-1].fronted, "it has to be known first"
    for fronted in (True, True, False):
        news.set_fronted(fronted)
        model.drain(1)
        assert (model.steps[-1].fronted, model.steps[-1].number) == (fronted, model.feed.number)
    assert model.woken == 2
    assert [(s.fronted, s.services, s.hosts) for s in model.steps[-2:]] == [
        (True, (), None),
        (False, (), None),
    ]
    news.set_fronted(True)
    later = Model(news)
    while later.hear(1):
        assert later.steps[-1].fronted
    assert later.services["web"][0][WEB[0].instance].vip == vip


def test_settings_are_told_when_they_change() -> None:
    news = news_of(NAMED["web"])
    model = Model(news)
    model.drain()
    news.configure(CONFIG)
    assert not model.hear()
    news.configure(replace(CONFIG, settings=DnsSettings(udp_size=4096)))
    assert model.woken == 1
    model.drain()
    assert [c.settings.udp_size for c in model.configs] == [1232, 4096]
    assert len(model.steps) == 1


def test_a_revision_without_a_change_is_told() -> None:
    news = news_of(NAMED["web"])
    model = Model(news)
    model.drain()
    news.update(replace(NAMED["web"], revision=99), change_of())
    model.drain()
    model.check(news)
    assert model.steps[-1].services == ()


def test_a_service_is_packed_once_for_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = []

    def counting(endpoints: Any, aliases: Any) -> bytes:
        packed.append(protocol.pack(endpoints, aliases))
        return packed[-1]

    monkeypatch.setattr("resolver.hot.sync.pack", counting)
    news = news_of(NAMED["all"])
    models = [Model(news) for _ in range(3)]
    for model in models:
        model.drain(1)
        model.check(news)
    assert len(packed) == len(NAMED["all"].services)
    assert news._packed == {}
    news.update(NAMED["all"], change_of("web"))
    models[0].drain()
    news.update(
        NAMED["published"], change_of("web", "legacy", "node")
    )  # what was packed is out of date
    models[1].drain()
    assert "web" not in models[1].services
    news.leave(models[2].feed)
    assert news._packed == {}
    models[0].drain()
    models[0].check(news)


SERVICES = ("a", "b", "c", "d")
STEP = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(SERVICES), st.integers(0, 2), st.integers(1, 9)),
    st.tuples(st.just("drop"), st.sampled_from(SERVICES), st.integers(0, 2)),
    st.tuples(st.just("forget"), st.booleans()),
    st.tuples(st.just("host"), st.booleans()),
    st.tuples(st.just("stale"), st.booleans(), st.booleans()),
    st.tuples(st.just("fronted"), st.booleans()),
    st.tuples(st.just("hear"), st.integers(0, 1), st.integers(1, 400)),
    st.tuples(st.just("replace"), st.integers(0, 1)),
    st.tuples(st.just("size"), st.integers(512, 515)),
)


@given(st.lists(STEP, max_size=60))
def test_any_history_ends_in_the_present(history: list[tuple[Any, ...]]) -> None:
    state = state_of(items())
    news = News(CONFIG)
    news.update(state.catalog, None)
    models = [Model(news), Model(news)]
    revision = 10
    for what, *how in history:
        revision += 1
        change: Change | None = None
        match what:
            case "put":
                service, i, port = how
                put = endpoint(service, f"i{i}", f"10.0.0.{i}", port)
                event = (KEYS.record(put.id), encode_endpoint(put), revision)
                change = state.apply([event], revision, 0.0)
            case "drop":
                service, i = how
                gone = endpoint(service, f"i{i}", "10.0.0.1")
                change = state.apply([(KEYS.record(gone.id), None, revision)], revision, 0.0)
            case "host":
                (there,) = how
                records = items(state.catalog.endpoints(), HOSTS if there else ())
                change = state.reset(records, revision, 0.0)
            case "forget":
                if how[0]:
                    state = state_of(items(), revision)
            case "stale":
                news.set_stale(*how)
                continue
            case "fronted":
                news.set_fronted(*how)
                continue
            case "hear":
                models[how[0]].hear(how[1])
                continue
            case "replace":
                news.leave(models[how[0]].feed)
                models[how[0]] = Model(news)
                continue
            case "size":
                news.configure(replace(CONFIG, settings=DnsSettings(udp_size=how[0])))
                continue
        news.update(state.catalog, change)
    news.set_stale(False, True)
    for model in models:
        model.drain(100)
        model.check(news)
        assert model.going
    assert news._packed == {}


def test_addresses_of_a_service_are_told_and_take_nothing_of_others() -> None:
    vip = ip_address("10.96.0.7"), ip_address("2001:db8:96::7")
    told = [replace(WEB[0], vip=vip), replace(WEB[1], vip=vip[1:]), *WEB[2:]]
    rows, _ = unpack("web", pack(told))
    assert [row.vip for row in rows.values()] == [vip, vip[1:], (), ()]
    for row, of in zip(rows.values(), told, strict=True):
        assert tuple(row)[: len(Row._fields)] == tuple(kept(of))
        assert row.srv_target == of.srv_target
    plain = pack(WEB)
    assert len(plain) < len(pack(told))
    for row in unpack("web", plain)[0].values():
        assert (len(row), row.vip) == (len(Row._fields), ())
    lead = Alias("web", "x", "db.discod.internal")
    assert [aliased(pack(e, a)) for e in (WEB, told) for a in ((), (lead,))] == [False, True] * 2


def test_a_feed_is_bounded_by_the_number_of_services() -> None:
    news = news_of(NAMED["all"])
    model = Model(news)
    feed: Feed = model.feed
    for _ in range(1000):
        news.update(NAMED["all"], change_of("web", "api"))
    assert sum(name in feed for name in NAMED["all"].services) == len(NAMED["all"].services)
    assert len(feed._services) == len(NAMED["all"].services)

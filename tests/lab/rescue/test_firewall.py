"""The packet filter without its daemon: it goes on, is taken over, and nothing stays in the end."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from tests.lab.daemon import Config, until
from tests.lab.engine import Box
from tests.lab.rescue.clients import Task, crowd
from tests.lab.rescue.site import ON, PORT, Site, drop_servers, settled
from tests.lab.rescue.table import Table
from tests.lab.rescue.test_reuse import Cramped
from tests.lab.rig import Host

pytestmark = pytest.mark.lab

PUT_BACK = 45.0
"""Seconds until tables that somebody took away are there again, at most."""
RECONCILED = 5.0
"""Seconds from the daemon's start until an address in use is no longer taken as stale."""
KILLS = 4
LEASE = 6
"""Seconds; longer than a killed daemon stays away."""


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Site, dict[str, str]]]:
    """Two hosts, and their rules before discod first started."""
    config: Config = {"log": {"level": "info"}}
    with Cramped(2, memory=True, config=config, discod=False, lease_ttl=LEASE) as lab:
        made = Site(lab)
        made.populate()
        before = {host.name: made.ruleset(host) for host in made.hosts}
        assert not any(made.has_table(host) for host in made.hosts)
        made.become(ON)
        settled(lab)
        yield made, before


@pytest.fixture(autouse=True)
def cleared(pair: tuple[Site, dict[str, str]]) -> Iterator[None]:
    """No servers after each test, and every daemon runs."""
    yield
    for host in pair[0].hosts:
        if not host.discod.running:
            host.discod.start()
    drop_servers(pair[0])


def answers(site: Site, where: str, address: str) -> set[str]:
    """Who answers a few requests now; empty: nobody."""
    todo = {where: [Task("tcp", address, PORT), Task("udp-new", address, PORT)]}
    with crowd({where: site.place(where)}, todo, settle=0.1) as clients:
        return {name for track in clients.end() for name in track.names()}


def leaves(site: Site, service: str, box: Box) -> None:
    """Wait until no host's DNS has a server."""
    for host in site.hosts:
        until(
            lambda h=host: h.discod.running and box.ipv4 not in h.addresses(service),  # type: ignore[misc]
            what=f"{box.name} is out of DNS on {host.name}",
        )


def rescued(site: Site, where: str, dead: Box, sibling: Box) -> None:
    """Wait until a client of a dead server gets to its sibling: DNS knows sooner."""
    until(
        lambda: answers(site, where, dead.ipv4) == {sibling.name},
        what=f"{dead.name} rescued from {where}",
    )


def test_killed_in_the_middle(pair: tuple[Site, dict[str, str]], seen: Table) -> None:
    """SIGKILL at any moment of a change: what is there is whole, and what the next start makes."""
    site, _ = pair
    a, _ = site.hosts
    rng = random.Random(6)
    kept = 0
    for n in range(KILLS):
        boxes = site.serve("web")
        more = site.start(a, "web", linger=0)
        site.lab.everywhere(
            "web", [x for box in (*boxes.values(), more) for x in (box.ipv4, box.ipv6)]
        )
        assert answers(site, "container a", boxes["a"].ipv4) == {boxes["a"].name}
        a.engine.crash(boxes["a"])
        a.engine.crash(more)
        # The last time it had time enough.
        time.sleep(rng.uniform(0.0, 0.06) if n < KILLS - 1 else 1.0)
        a.discod.kill()
        rules = a.space.sh("nft", "list", "ruleset")
        entry = f"{boxes['a'].ipv4} . tcp . {PORT} : goto"
        if entry in rules:
            kept += 1
            # It works without its daemon, for all but clients on the same bridge that never talked
            # to the dead: who has no neighbour entry is answered by the daemon alone.
            for where in ("container a", "host a"):
                assert answers(site, where, boxes["a"].ipv4) == {boxes["b"].name}, where
        a.discod.start()
        for box in (boxes["a"], more):
            for where in ("container a", "host a"):
                until(
                    lambda w=where, x=box: answers(site, w, x.ipv4) == {boxes["b"].name},  # type: ignore[misc]  # noqa: B023
                    what=f"{box.name} rescued from {where} after round {n}",
                )
        drop_servers(site)
    seen.note(f"killed {KILLS} times during a change: {kept} times the entry was there already")
    assert kept


def take(site: Site, host: Host, service: str, address: str) -> Box:
    """A container of a service that has a given address."""
    others: list[Box] = []
    for _ in range(10):
        box = site.start(host, service)
        if box.ipv4 == address:
            host.engine.drop(*others)
            return box
        others.append(box)
    raise AssertionError(f"nobody gets {address}")


def test_an_address_taken_meanwhile_is_not_stale(
    pair: tuple[Site, dict[str, str]], seen: Table
) -> None:
    site, _ = pair
    a, b = site.hosts
    boxes = site.serve("web")
    old = boxes["a"]
    a.engine.crash(old)
    leaves(site, "web", old)
    rescued(site, "container a", old, boxes["b"])
    a.discod.kill()
    a.engine.remove(old.id)
    # Of the same service: an address that two had is refused to who means the one before.
    new = take(site, a, "web", old.ipv4)
    at = time.monotonic()
    a.discod.start()
    for where in ("container a", "host a", "container b", "host b"):
        until(
            lambda w=where: answers(site, w, old.ipv4) == {new.name},  # type: ignore[misc]
            deadline=RECONCILED,
            what=f"{new.name} answers {where}",
        )
    seen.note(f"address taken while discod was dead: its own after {time.monotonic() - at:.1f} s")
    b.engine.drop(boxes["b"])


def test_cleanup_leaves_nothing(pair: tuple[Site, dict[str, str]]) -> None:
    """The rules are as they were before the first start."""
    site, before = pair
    boxes = site.serve("web")
    a, _ = site.hosts
    a.engine.crash(boxes["a"])
    leaves(site, "web", boxes["a"])
    assert site.has_table(a)
    refused = a.discod.cli("rescue", "cleanup", "--config", str(a.discod.file))
    assert refused.returncode, "beside a running daemon it would be undone at once"
    drop_servers(site)
    for host in site.hosts:
        assert host.discod.terminate() == 0
        done = host.discod.cli("rescue", "cleanup", "--config", str(host.discod.file))
        assert done.returncode == 0, done.stderr
        assert site.ruleset(host) == before[host.name]
        again = host.discod.cli("rescue", "cleanup", "--config", str(host.discod.file))
        assert again.returncode == 0, again.stderr


def test_tables_taken_away_come_back(pair: tuple[Site, dict[str, str]], seen: Table) -> None:
    """The last of this module: it takes Docker's rules away too."""
    site, _ = pair
    a, b = site.hosts
    boxes = site.serve("web")
    site.lab["a"].engine.crash(boxes["a"])
    leaves(site, "web", boxes["a"])
    for where in ("container a", "host b"):
        rescued(site, where, boxes["a"], boxes["b"])
    at = time.monotonic()
    for family in ("inet", "bridge"):
        a.space.sh("nft", "delete", "table", family, "discod_rescue")
    # All of it, as some start scripts of firewalls do.
    kept = b.space.sh("nft", "list", "ruleset")
    b.space.sh("nft", "flush", "ruleset")
    assert "discod_rescue" in kept
    for host in site.hosts:
        until(lambda h=host: site.has_table(h), deadline=PUT_BACK, what=f"tables on {host.name}")  # type: ignore[misc]
    seen.note(f"tables taken away were back after {time.monotonic() - at:.1f} s")
    for where in ("container a", "host b"):
        rescued(site, where, boxes["a"], boxes["b"])

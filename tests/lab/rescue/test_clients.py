"""Who ignores the TTL, who does not want rescue, and what happens where nobody is left."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.lab.daemon import Config, until
from tests.lab.engine import Box
from tests.lab.rescue.clients import crowd
from tests.lab.rescue.site import ON, PORT, Site, tasks
from tests.lab.rig import Host

pytestmark = pytest.mark.lab

PATIENT: Config = {"rescue": {"enabled": True, "refuse": False}}
AT_ONCE = 0.3
"""Seconds until a refusal, at most."""


def gone(site: Site, service: str, box: Box) -> None:
    """Wait until no host's DNS has a server."""
    for host in site.hosts:
        until(lambda h=host: box.ipv4 not in h.addresses(service), what=f"{box.name} is gone")  # type: ignore[misc]


def offenders(host: Host) -> list[dict[str, Any]]:
    """What `discod rescue status --json` says of clients."""
    done = host.discod.cli("rescue", "status", "--json")
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout)["clients"])


def said(host: Host, service: str = "named") -> set[tuple[str, str, str, str]]:
    """The offenders of one service: client, address, service, protocol."""
    return {
        (row["client"], row["address"], row["service"], row["protocol"])
        for row in offenders(host)
        if row["service"] == service
    }


def test_the_offenders_are_named_and_no_others(place: Site) -> None:
    place.become(ON)
    a, b, c = place.hosts
    boxes = place.serve("named")
    dead = boxes["a"]
    both, living = [dead.ipv4, dead.ipv6], [boxes["b"].ipv4, boxes["b"].ipv6]
    wheres = ["container b", "host c", "container a", "host b"]
    todo = {
        "container b": tasks(both, PORT),
        "host c": tasks([dead.ipv4], PORT, ["tcp"]),
        # These use what lives: no offence.
        "container a": tasks(living, PORT),
        "host b": tasks(living, PORT),
    }
    with crowd(place.places(wheres), todo, rate=20) as clients:
        a.engine.crash(dead)
        gone(place, "named", dead)
        time.sleep(1.0)
        clients.end()
    client = place.clients["b"]
    wanted = {
        "b": {
            (x, y, "named", p)
            for x, y in ((client.ipv4, dead.ipv4), (client.ipv6, dead.ipv6))
            for p in ("tcp", "udp")
        },
        "c": {(c.leg.ipv4, dead.ipv4, "named", "tcp")},
    }
    for host in (b, c):
        until(
            lambda h=host: said(h) == wanted[h.name],  # type: ignore[misc]
            deadline=15,
            what=f"the offenders of {host.name}: {wanted[host.name]}",
        )
    # The owner of the dead one sees what came to it before the others' rules were in; no others.
    assert said(a) <= wanted["b"] | wanted["c"]
    rows = [row for row in offenders(b) if row["service"] == "named"]
    assert {row["name"] for row in rows} == {"client"}
    assert all(row["rescued"] > 0 and row["port"] == PORT for row in rows), rows
    assert all(abs(row["last"] - time.time()) < 60 for row in rows)
    status = b.discod.api("/v1/rescue/status")
    (service,) = [row for row in status["services"] if row["service"] == "named"]
    assert service["rescued"] >= sum(row["rescued"] for row in rows)
    assert service["clients"] == 2  # its IPv4 address and its IPv6 address


def test_a_service_can_stay_out(place: Site) -> None:
    """Stateful: a client of the dead one must not get another."""
    place.become(ON)
    a, b, _ = place.hosts
    boxes = place.serve("pinned", [a, b], rescue="false")
    control = place.serve("stateless", [a, b])
    for service, made in (("pinned", boxes), ("stateless", control)):
        a.engine.crash(made["a"])
        gone(place, service, made["a"])
    wheres = ["container a", "container b", "host a"]
    for made, service in ((boxes, "pinned"), (control, "stateless")):
        todo = dict.fromkeys(wheres, tasks([made["a"].ipv4, made["a"].ipv6], PORT))
        with crowd(place.places(wheres), todo, rate=20, settle=0.5) as clients:
            tracks = clients.end()
        for track in tracks:
            assert bool(track.names()) == (service == "stateless"), (track.client, track.names())
    for host in place.hosts:
        entries = host.discod.api("/v1/rescue/entries")["entries"]
        assert "pinned" not in {row["service"] for row in entries}


@pytest.mark.parametrize("refuse", [True, False], ids=["refuse", "hang"])
def test_nobody_is_left(place: Site, refuse: bool) -> None:
    place.become(ON if refuse else PATIENT)
    a, *_ = place.hosts
    box = place.serve("lonely", [a], linger=0)["a"]
    a.engine.crash(box)
    gone(place, "lonely", box)
    time.sleep(0.5)  # what the dying container's own kernel side refuses is over
    wheres = ["container a", "container b", "host a", "host b"]
    todo = dict.fromkeys(wheres, tasks([box.ipv4, box.ipv6], PORT))
    with crowd(place.places(wheres), todo, rate=20, settle=1.0) as clients:
        tracks = clients.end()
    for track in tracks:
        who = (track.client, str(track.task))
        assert not track.names(), who
        outcomes = {one.outcome for one in track.requests}
        if refuse:
            # What a host's own filter refuses of a process of its own fails in send(2) already.
            words = {"!ECONNREFUSED", "!EPERM"} if "host" in track.client else {"!ECONNREFUSED"}
            assert outcomes & words, (*who, outcomes)
            told = [one for one in track.requests if one.outcome in words]
            # The kernel sends a host few ICMP errors a second (icmp_ratelimit), resets at will.
            assert told == list(track.requests) or track.task.kind == "udp", (*who, outcomes)
            worst = max(one.end - one.start for one in told)
            assert worst < AT_ONCE + track.late, (*who, worst)
        else:
            assert not outcomes & {"!ECONNREFUSED", "!EPERM"}, (*who, outcomes)

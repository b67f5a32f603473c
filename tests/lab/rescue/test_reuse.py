"""Addresses that are used again: nobody gets another service than the one that it resolved."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from tests.lab.daemon import Config, environment
from tests.lab.engine import Engine, each
from tests.lab.rescue.reuse import Life, Seen, judge
from tests.lab.rescue.site import ON, PORT, Site, settled
from tests.lab.rescue.table import Table
from tests.lab.rig import Host, Lab

LIVES = int(os.environ.get("RESCUE_LIVES", "40"))
"""Containers started and killed."""
SEED = int(os.environ.get("RESCUE_SEED", "6"))
RATE = 40
SERVICES = ("sa", "sb", "sc")
AT_A_TIME = 3


class Cramped(Lab):
    """Each host has eight addresses for containers."""

    def _start_engine(self, host: Host) -> None:
        host.engine = Engine(
            host.engine.root, prefix=host.space.prefix, bip=host.leg.bip, cidr6=host.leg.pods6,
            extra=(f"--fixed-cidr=10.101.{host.leg.n}.8/29",),
        )  # fmt: skip
        super()._start_engine(host)


@pytest.fixture(scope="module")
def cramped() -> Iterator[Site]:
    """Two hosts with few addresses each, with rescue."""
    base: Config = {"log": {"level": "info"}}
    with Cramped(2, memory=True, config=base, discod=False) as lab:
        made = Site(lab)
        made.populate()
        made.become(ON)
        settled(lab)
        yield made


class Churn:
    """Containers of random services on one host, from their start to their end, `LIVES` of them."""

    def __init__(self, site: Site, host: Host) -> None:
        self.site, self.host = site, host
        self.lives: dict[str, Life] = {}
        self._turns = itertools.count()
        self._lock = threading.Lock()

    def worker(self, seed: int) -> None:
        """One after the other, until all are through."""
        rng = random.Random(seed)
        while next(self._turns) < LIVES:
            began = time.monotonic()
            box = self.site.start(self.host, rng.choice(SERVICES), linger=0)
            started = time.monotonic()
            time.sleep(rng.uniform(0.1, 1.2))
            ended = time.monotonic()
            way = rng.choice(("crash", "stop", "remove"))
            if way == "crash":
                self.host.engine.crash(box)
            elif way == "stop":
                self.host.engine.halt(box, timeout=1)
            with self._lock:
                self.lives[box.name] = Life(
                    box.name, box.name.split("-")[0], (box.ipv4, box.ipv6), began, started, ended
                )
            self.host.engine.remove(box.id)


class Askers:
    """Clients at several places; all requests once they have ended."""

    def __init__(self, site: Site, wheres: Sequence[str]) -> None:
        self._processes = []
        for n, where in enumerate(wheres):
            server = site.lab[where.rsplit(" ", 1)[1]].leg.ipv4
            task = {"server": server, "services": SERVICES, "port": PORT, "rate": RATE, "seed": n}
            # Into a file: a pipe that nobody reads would hold them up.
            out = (site.lab.root / f"asker{n}").open("w+b")
            self._processes.append(
                (
                    subprocess.Popen(
                        [*site.place(where), sys.executable, "-m", "tests.lab.rescue.fresh",
                         json.dumps(task)],
                        stdin=subprocess.PIPE, stdout=out, env=environment(),
                    ),
                    out,
                )
            )  # fmt: skip

    def end(self) -> list[Seen]:
        """End them; all that they saw."""
        seen = []
        for process, out in self._processes:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0
            out.seek(0)
            rows = out.read().decode().splitlines()
            assert rows[0] == "ready"
            seen += [Seen(*json.loads(row)) for row in rows[1:]]
        return seen

    def kill(self) -> None:
        """End them whatever state they are in."""
        for process, out in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait(5)
            if process.stdin is not None:
                process.stdin.close()
            out.close()


@pytest.mark.lab
def test_no_other_service_answers(cramped: Site, seen: Table) -> None:
    a, b = cramped.hosts
    stable = each(lambda service: cramped.start(b, service), SERVICES)
    for service, box in zip(SERVICES, stable, strict=True):
        cramped.lab.everywhere(service, [box.ipv4, box.ipv6])
    churn = Churn(cramped, a)
    began = time.monotonic()
    askers = Askers(cramped, ["container a", "container b", "host a", "host b"])
    try:
        each(churn.worker, [SEED + n for n in range(AT_A_TIME)])
        time.sleep(0.5)
        requests = askers.end()
    finally:
        askers.kill()
    for box in stable:
        service = box.name.split("-")[0]
        churn.lives[box.name] = Life(
            box.name, service, (box.ipv4, box.ipv6), began, began, time.monotonic()
        )  # fmt: skip
    found = judge(requests, churn.lives)
    addresses = {life.addresses[0] for life in churn.lives.values()} - {x.ipv4 for x in stable}
    seen.note(
        f"address reuse: {LIVES} containers on {len(addresses)} addresses, {found.requests} "
        f"requests: {found.rescued} answered by a sibling, {found.inherited} by a sibling of the "
        f"last owner, {found.owned} by the new owner of the"
        f" address, {found.failed} by nobody; {len(found.violations)} violations, "
        f"{len(found.astray)} astray, {len(found.dated)} dated"
    )
    # There was something to get wrong.
    assert len(addresses) <= 7
    assert found.rescued > LIVES
    assert found.owned > LIVES / 10
    assert not found.violations, found.violations[:5]
    # Who resolved something older than what was there last is refused, not sent to its siblings.
    assert not found.inherited
    assert not found.dated, found.dated[:5]
    assert not found.astray, [(one, churn.lives.get(one.outcome)) for one in found.astray[:5]]


LIFE = {
    "x": Life("x", "sa", ("10.0.0.1",), 9.0, 10.0, 20.0),
    "y": Life("y", "sb", ("10.0.0.2",), 9.0, 10.0, 20.0),
    "z": Life("z", "sa", ("10.0.0.3",), 9.0, 10.0, 20.0),
}


@pytest.mark.parametrize(
    ("service", "address", "outcome", "kinds"),
    [
        ("sa", "10.0.0.1", "x", ()),
        ("sa", "10.0.0.9", "x", ()),
        ("sa", "10.0.0.2", "y", ("dated",)),
        ("sa", "10.0.0.9", "y", ("violations",)),
        ("sa", "10.0.0.1", "y", ("violations", "astray")),
        ("sa", "10.0.0.1", "z", ("astray",)),
        ("sa", "10.0.0.1", "!timeout", ("astray",)),
        ("sa", "10.0.0.9", "!timeout", ()),
    ],
)
def test_the_judge(service: str, address: str, outcome: str, kinds: tuple[str, ...]) -> None:
    """The control: what is wrong is found, and only that."""
    found = judge([Seen(15.0, 15.0, 15.1, True, service, address, "tcp", outcome)], LIFE)
    wrong = {kind for kind in ("violations", "astray", "dated") if getattr(found, kind)}
    assert wrong == set(kinds)

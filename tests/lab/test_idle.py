"""While nothing happens, nothing is written; `make bench-idle` has the figures."""

from __future__ import annotations

import json
import time

import pytest

from tests.lab.engine import each
from tests.lab.rig import Lab, offer

pytestmark = pytest.mark.lab


def revision(lab: Lab) -> int:
    """The store's revision: every write raises it, keeping a lease does not."""
    return int(json.loads(lab.etcdctl("get", "/none", "-w", "json"))["header"]["revision"])


def test_an_idle_host_writes_nothing() -> None:
    with Lab(1, config={"announce": {"resync": "1s"}}) as lab:
        host = lab.hosts[0]
        boxes = each(
            lambda n: host.engine.box(f"idle{n}", offer("idle"), "sleep", "3600"), range(10)
        )
        lab.everywhere("idle", [a for box in boxes for a in (box.ipv4, box.ipv6)])
        time.sleep(1)  # a real one: what is left to settle has no sign
        before = revision(lab)
        time.sleep(5)  # several resyncs and, with a lease of 3 s, several renewals
        assert revision(lab) == before
        assert len(host.catalog()) == 20

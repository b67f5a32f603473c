"""Two installations under one host name."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Host
from discod.twin import TwinWatch

HOSTS = Change(frozenset(), hosts=True, entries=())
OURS = Host("alpha", (ip_address("192.0.2.1"),), machine="a1")


def catalog(*hosts: Host) -> Catalog:
    return Catalog("discod.internal", hosts={host.name: host for host in hosts})


def test_another_machine_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    twin = TwinWatch("alpha", "a1")
    for _ in range(2):
        twin.update(catalog(replace(OURS, machine="b2")), HOSTS)
    assert twin.error == "another installation (machine b2) uses the host name alpha"
    assert len(caplog.records) == 1
    twin.update(catalog(OURS), HOSTS)
    assert not twin.error, "and it is over when the record is ours again"


@pytest.mark.parametrize("hosts", [(), (OURS,), (Host("beta", OURS.addresses, machine="b2"),)])
def test_no_other(hosts: tuple[Host, ...]) -> None:
    twin = TwinWatch("alpha", "a1")
    twin.update(catalog(*hosts), HOSTS)
    assert not twin.error


def test_only_hosts_are_looked_at() -> None:
    twin = TwinWatch("alpha", "a1")
    twin.update(catalog(replace(OURS, machine="b2")), replace(HOSTS, hosts=False))
    assert not twin.error

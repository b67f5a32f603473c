"""What is written into the packet filter, and kernel settings that are given back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from calico_bgp import docker_rules, nat_rules
from calico_bgp.firewall import Firewall
from calico_bgp.host import HostSide
from calico_bgp.ports import Delivery
from calico_bgp.sysctls import Sysctls
from discod.kernel.commands import CommandFailed
from discod.model.bgp_settings import BgpSettings

ROUTED = [ip_network("10.101.1.0/24"), ip_network("10.101.2.0/24")]
DELIVERY = Delivery(ip_address("10.77.0.1"), (ip_address("10.101.1.2"), ip_address("10.101.1.3")))
DOCKER = """*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -o br-0123 -j DOCKER
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-USER -j RETURN
COMMIT
"""


class Iptables:
    """Remembers what was restored, and shows it as iptables-save does."""

    def __init__(self, saved: str) -> None:
        self.saved = saved
        self.ran: list[tuple[list[str], str]] = []

    async def __call__(self, argv: Sequence[str], stdin: str) -> str:
        self.ran.append((list(argv), stdin))
        if argv[0].endswith("-save"):
            return self.saved
        if argv[0].endswith("-restore"):
            self._take(stdin)
        elif argv[0] == "nft" and "list" in argv:
            raise CommandFailed("no such table")
        return ""

    def _take(self, stdin: str) -> None:
        lines = self.saved.splitlines()
        for line in stdin.splitlines():
            if line.startswith(":"):
                chain = line.split()[0][1:]
                lines = [x for x in lines if not x.startswith((f":{chain} ", f"-A {chain} "))]
                lines.insert(1, line)
            elif line.startswith("-I "):
                into = line.split()[1]
                at = next(i for i, x in enumerate(lines) if x.startswith(f"-A {into} "))
                lines.insert(at, "-A " + line[3:])
            elif line.startswith("-D "):
                lines.remove("-A " + line[3:])
            elif line.startswith("-F "):
                lines = [x for x in lines if not x.startswith(f"-A {line[3:]} ")]
            elif line.startswith("-X "):
                lines = [x for x in lines if not x.startswith(f":{line[3:]} ")]
            elif line.startswith("-A "):
                lines.insert(len(lines) - 1, line)
        self.saved = "\n".join(lines) + "\n"


async def test_exceptions_are_made_once_repaired_and_taken_back() -> None:
    tables = Iptables(DOCKER)
    firewall = Firewall(tables)
    assert await firewall.forward(4, ROUTED, [DELIVERY]) == (True, True)
    assert firewall.bridges == ("br-0123", "docker0")
    made = tables.saved
    assert await firewall.forward(4, ROUTED, [DELIVERY]) == (True, False)
    assert docker_rules.jumps(made)
    # Somebody puts a rule of their own before the jump, removes one of ours, doubles the jump.
    for broken in (
        made.replace(
            "-A DOCKER-USER -j DISCOD", "-A DOCKER-USER -j DROP\n-A DOCKER-USER -j DISCOD"
        ),
        made.replace("-A DISCOD-TO -d 10.101.2.0/24 -j ACCEPT\n", ""),
        made.replace("-A DOCKER-USER -j DISCOD\n", "-A DOCKER-USER -j DISCOD\n" * 2),
        made.replace("-A DOCKER-USER -j DISCOD\n", ""),
    ):
        assert broken != made
        tables.saved = broken
        assert await firewall.forward(4, ROUTED, [DELIVERY]) == (True, True)
        assert docker_rules.jumps(tables.saved)
        assert "-A DISCOD-TO -d 10.101.2.0/24 -j ACCEPT" in tables.saved
    tables.saved = made
    await firewall.remove()
    assert sorted(tables.saved.splitlines()) == sorted(DOCKER.splitlines())


async def test_without_docker_nothing_is_written() -> None:
    tables = Iptables("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
    assert await Firewall(tables).forward(4, ROUTED, []) == (False, False)
    assert [argv[0] for argv, _ in tables.ran] == ["iptables-save"]


def test_a_family_without_a_chain_for_users_is_excepted_in_forward() -> None:
    saved = DOCKER.replace(":DOCKER-USER - [0:0]\n", "").replace("-A DOCKER-USER -j RETURN\n", "")
    assert docker_rules.parent(saved) == "FORWARD"
    assert "-I FORWARD -j DISCOD" in docker_rules.restore([], saved)


def test_between_bridges_of_this_host_dockers_isolation_stays() -> None:
    lines = docker_rules.rules(ROUTED, [], ["docker0", "br-0123"])
    order = [lines.index(f"-A DISCOD -i {b} -g DISCOD-OWN") for b in ("br-0123", "docker0")]
    assert max(order) < lines.index("-A DISCOD -j DISCOD-FROM")
    returns = [lines.index(f"-A DISCOD-OWN -o {b} -j RETURN") for b in ("br-0123", "docker0")]
    assert max(returns) < lines.index("-A DISCOD-OWN -j DISCOD-FROM")


def test_the_table_of_translations() -> None:
    text = nat_rules.table(4, ROUTED, [DELIVERY])
    assert "snat to ip saddr" in text
    assert (
        "ip daddr 10.77.0.1 dnat to numgen random mod 2 map { 0 : 10.101.1.2, 1 : 10.101.1.3 }"
        in text
    )
    assert "ip saddr 10.101.1.2 ip daddr 10.77.0.1 dnat to 10.101.1.3" in text
    assert text.count("dnat to") == 6
    # Nothing wanted: nothing there, whatever was before.
    assert nat_rules.table(6, ROUTED, [DELIVERY]) == nat_rules.remove(6)


async def test_a_host_side_that_is_off_runs_nothing_and_shows_nothing(tmp_path: Path) -> None:
    async def execute(argv: Sequence[str], _stdin: str) -> str:
        raise CommandFailed(f"{argv[0]}: No such file or directory")

    host = HostSide(
        BgpSettings(asn=64512, host=False), tmp_path, rng=random.Random(1), execute=execute
    )
    assert await host.once()
    assert host.status() == []


def tree(root: Path, **values: str) -> Path:
    for name, value in values.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
    return root


def test_settings_are_remembered_before_they_are_changed_and_given_back(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "net",
        ipv4__ip_forward="0",
        ipv6__conf__all__forwarding="0",
        ipv6__conf__eth0__accept_ra="1",
        ipv6__conf__eth0__forwarding="0",
        ipv6__conf__eth1__accept_ra="0",
        ipv6__conf__eth1__forwarding="0",
    )
    sysctls = Sysctls(tmp_path / "state", root)
    wanted = sysctls.wanted(["eth0"], [], proxy=False)
    assert list(wanted) == [
        "ipv6/conf/eth0/accept_ra",
        "ipv6/conf/all/forwarding",
        "ipv4/ip_forward",
    ]
    assert len(sysctls.apply(wanted)) == 3
    assert sysctls.apply(sysctls.wanted(["eth0"], [], proxy=False)) == []
    assert sysctls.read("ipv6/conf/eth0/accept_ra") == "2"
    # A later run, which somebody else has come before: what was at first is what comes back.
    (root / "ipv4/ip_forward").write_text("0\n")
    again = Sysctls(tmp_path / "state", root)
    assert again.apply(wanted) == ["ipv4/ip_forward"]
    (root / "ipv6/conf/all/forwarding").write_text("2\n")  # others' by now
    assert again.restore() == ["ipv4/ip_forward", "ipv6/conf/eth0/accept_ra"]
    assert again.read("ipv6/conf/all/forwarding") == "2"
    assert again.restore() == []


def test_a_broken_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bgp-sysctls.json").write_text("[1")
    with pytest.raises(ValueError, match=r"bgp-sysctls\.json"):
        Sysctls(tmp_path).restore()

"""Exceptions from Docker's FORWARD DROP, as lines of iptables.

Rule: Docker's own drop is final, whatever another table accepts, so the exceptions are in the chain
that Docker leaves to its users (DOCKER-USER): one jump to a chain of ours. Between two bridges of
this host nothing is excepted: Docker's isolation of its networks stays. Pure.

    DOCKER-USER   -j DISCOD
    DISCOD        --ctorigdst ANYCAST -j ACCEPT, -i BRIDGE -g DISCOD-OWN, -j DISCOD-FROM
    DISCOD-OWN    -o BRIDGE -j RETURN, -j DISCOD-FROM
    DISCOD-FROM   -s ROUTED -j DISCOD-TO
    DISCOD-TO     -d ROUTED -j ACCEPT
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from calico_bgp.prefix import Address, Network

USER: Final = "DOCKER-USER"
CHAIN, OWN, FROM, TO = "DISCOD", "DISCOD-OWN", "DISCOD-FROM", "DISCOD-TO"
CHAINS: Final = (CHAIN, OWN, FROM, TO)

_BRIDGE: Final = re.compile(
    r"^-A \S+ (?:-o (\S+) -j DOCKER|-i (\S+) ! -o \2 -j DOCKER-ISOLATION-STAGE-2)$", re.M
)


def bridges(saved: str) -> list[str]:
    """Docker's bridges, by Docker's own rules in the output of ``iptables-save -t filter``."""
    return sorted({a or b for a, b in _BRIDGE.findall(saved)})


def rules(networks: Iterable[Network], anycast: Iterable[Address], on: Iterable[str]) -> list[str]:
    """The lines of our chains, in order, as iptables-save writes them."""
    lines = []
    for address in sorted(anycast):
        # Both directions of what was delivered to a container in the address's stead.
        match = f"-m conntrack --ctstate DNAT --ctorigdst {address}/{address.max_prefixlen}"
        lines.append(f"-A {CHAIN} {match} -j ACCEPT")
    on = sorted(on)
    lines += [f"-A {CHAIN} -i {bridge} -g {OWN}" for bridge in on]
    lines.append(f"-A {CHAIN} -j {FROM}")
    lines += [f"-A {OWN} -o {bridge} -j RETURN" for bridge in on]
    lines.append(f"-A {OWN} -j {FROM}")
    whole = sorted(networks, key=lambda net: (int(net.network_address), net.prefixlen))
    lines += [f"-A {FROM} {_matched('-s', net)}-j {TO}" for net in whole]
    lines += [f"-A {TO} {_matched('-d', net)}-j ACCEPT" for net in whole]
    return lines


def _matched(option: str, network: Network) -> str:
    return f"{option} {network} " if network.prefixlen else ""


def present(saved: str) -> list[str]:
    """Our lines in the output of iptables-save, in order, the jump left out."""
    return [line for line in saved.splitlines() if re.match(r"-A DISCOD(-OWN|-FROM|-TO)? ", line)]


def parent(saved: str) -> str:
    """The chain that our jump belongs into; empty: Docker has no rules of this family.

    Docker 20.10 drops IPv6 without a DOCKER-USER chain of that family; there it is FORWARD itself,
    whose policy is what drops.
    """
    if f":{USER} " in saved:
        return USER
    return "FORWARD" if ":DOCKER " in saved else ""


def jumps(saved: str) -> bool:
    """Whether the jump is there, once, and where it has to be."""
    into = parent(saved)
    if _jumps(saved) != [into]:
        return False
    if into != USER:
        return True  # Docker puts its isolation of networks before it, which may stay there
    return next(x for x in saved.splitlines() if x.startswith(f"-A {USER} ")) == _jump(USER)


def _jump(into: str) -> str:
    return f"-A {into} -j {CHAIN}"


def _jumps(saved: str) -> list[str]:
    """The chains that jump to ours, as often as they do."""
    lines = saved.splitlines()
    return [into for into in (USER, "FORWARD") for line in lines if line == _jump(into)]


def restore(wanted: Iterable[str], saved: str) -> str:
    """The input of ``iptables-restore --noflush`` that makes it so, in one step."""
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in CHAINS)]
    lines += [f"-D {into} -j {CHAIN}" for into in _jumps(saved)]
    lines += [f"-I {parent(saved)} -j {CHAIN}", *wanted, "COMMIT", ""]
    return "\n".join(lines)


def remove(saved: str) -> str:
    """The input that takes all of it away; empty: nothing is there."""
    chains = [chain for chain in CHAINS if f":{chain} " in saved]
    if not chains:
        return ""
    lines = ["*filter", *(f"-D {into} -j {CHAIN}" for into in _jumps(saved))]
    lines += [f"-F {chain}" for chain in chains]
    lines += [f"-X {chain}" for chain in chains]
    return "\n".join([*lines, "COMMIT", ""])

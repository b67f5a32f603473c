"""Address translation of ours, as the text of an nft table: sources kept, anycast delivered.

Rule: a function of what is wanted; the whole table is replaced in one transaction. Connections that
are known to the kernel keep what they were given, so replacing it disturbs nobody. Pure.

Sources: Docker's MASQUERADE comes later in the same hook (priority srcnat, 100), and an `accept`
before it would not end it. A translation of the source to itself does: the kernel translates a
connection once. So it does not matter in which order Docker inserts its rules, or when it starts.

Anycast: the address is translated to one container's, at random for each connection, before
Docker's published ports are looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from calico_bgp.ports import Delivery
from calico_bgp.prefix import Address, Network

TABLE: Final = "discod_bgp"
FAMILIES: Final = {4: "ip", 6: "ip6"}


def table(version: int, routed: Iterable[Network], deliveries: Iterable[Delivery]) -> str:
    """The input of ``nft -f -`` that makes the table of one family exactly this."""
    family = FAMILIES[version]
    networks = sorted({net for net in routed if net.version == version}, key=_order)
    given = [d for d in deliveries if d.address.version == version and d.targets]
    lines = [f"add table {family} {TABLE}", f"delete table {family} {TABLE}"]
    if not networks and not given:
        return "\n".join([*lines, ""])
    kind = "ipv4_addr" if version == 4 else "ipv6_addr"
    lines.append(f"table {family} {TABLE} {{")
    source = []
    if networks:
        elements = ", ".join(map(str, networks))
        lines += [
            "set routed {",
            f"type {kind}; flags interval; auto-merge; elements = {{ {elements} }}",
            "}",
        ]
        # What was published by Docker needs its masquerade on the way back to the same container.
        source.append(
            f"ct status & dnat == 0 {family} saddr @routed {family} daddr @routed "
            f"snat to {family} saddr"
        )
    if given:
        targets = sorted({target for delivery in given for target in delivery.targets})
        # A container that is given its own service's address must not see itself as the sender.
        pairs = ", ".join(f"{target} . {target}" for target in targets)
        source.append(f"ct status dnat {family} saddr . {family} daddr {{ {pairs} }} masquerade")
        rules = [rule for delivery in given for rule in _delivered(family, delivery)]
        for hook, priority in (("prerouting", -110), ("output", -110)):
            lines += [
                f"chain {hook} {{",
                f"type nat hook {hook} priority {priority}; policy accept",
                *rules,
                "}",
            ]
    lines += [
        "chain postrouting {",
        "type nat hook postrouting priority 90; policy accept",
        *source,
        "}",
        "}",
        "",
    ]
    return "\n".join(lines)


def _delivered(family: str, delivery: Delivery) -> list[str]:
    """The rules for one address.

    A target is given another one than itself: a bridge does not send a frame back through the port
    that it came by (unless hairpin mode is on), where bridged packets pass iptables, as Docker has
    it.
    """
    where = f"{family} daddr {delivery.address}"
    rules = [
        f"{family} saddr {own} {where} {_dnat(others)}"
        for own in delivery.targets
        if (others := [target for target in delivery.targets if target != own])
    ]
    return [*rules, f"{where} {_dnat(delivery.targets)}"]


def _dnat(targets: Sequence[Address]) -> str:
    if len(targets) == 1:
        return f"dnat to {targets[0]}"
    spread = ", ".join(f"{i} : {target}" for i, target in enumerate(targets))
    return f"dnat to numgen random mod {len(targets)} map {{ {spread} }}"


def _order(network: Network) -> tuple[int, int]:
    return int(network.network_address), network.prefixlen


def remove(version: int) -> str:
    """The input of ``nft -f -`` that takes the table away, if it is there."""
    family = FAMILIES[version]
    return f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n"

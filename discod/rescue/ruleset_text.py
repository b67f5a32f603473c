"""The fixed part of rescue's nftables tables, as text for ``nft -f -``; and the rules of pools.

Rule: what a chain does is here, what is in the sets is not. Names of sets end in their family, 4 or
6. Pure.

The order of a packet in ``inet discod_rescue`` (``nft(8)``; Docker's NAT is at -100 and 100):

    -150  cut     established TCP to a place that is gone: reset
    -110  nat     first packet of a connection: to a sibling (a pool's chain), or refused
     -90  vip     what is still for a service address now: no port of it, rejected
      90  post    source of translated connections whose answers would else not come back

Counting is in a rule of its own each time: where its set is full, the packet goes on to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

TABLE: Final = "discod_rescue"
REFUSE: Final = "refuse"
"""Chain for connections that no sibling can take."""

COUNTED: Final = 8192
"""Pairs of client and place in one counting set; beyond it clients are not counted."""
COUNTED_FOR: Final = "10m"
"""How long an unused count stays."""
TAKEN: Final = 16384
"""Connections on one bridge to a place that still stands, at a time; beyond it new ones are not
rescued until it is gone."""
TAKEN_FOR: Final = "1h"
BUSY_FOR: Final = "5m"
"""How long after the last frame of anybody a place counts as used."""

IP: Final = {4: "ip", 6: "ip6"}
_TYPE: Final = {4: "ipv4_addr", 6: "ipv6_addr"}
_NAME: Final = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")
_SEED: Final = "0xd15c0d"
"""Of the hash of client addresses: the same on every host and in every rule, so that a client stays
with its endpoint."""


def key(version: int) -> str:
    """The expression that makes a place of a packet's destination."""
    return f"{IP[version]} daddr . meta l4proto . th dport"


def _both(lines: str) -> str:
    return "".join(
        lines.replace("#IP", IP[version]).replace("#TYPE", _TYPE[version])
        .replace("#KEY", key(version)).replace("#V", str(version))
        for version in (4, 6)
    )  # fmt: skip


def _counting(name: str) -> str:
    return _both(
        f"  set {name}#V {{ type #TYPE . #TYPE . inet_proto . inet_service; size {COUNTED};"
        f" flags dynamic,timeout; timeout {COUNTED_FOR}; counter; }}\n"
    )


def count(name: str, version: int) -> str:
    """The statement that counts a packet's client and place."""
    return f"update @{name}{version} {{ {IP[version]} saddr . {key(version)} }}"


def _count_both(name: str) -> str:
    return "".join(f"    {count(name, version)}\n" for version in (4, 6))


_REJECT: Final = """\
    meta l4proto tcp reject with tcp reset
    reject with icmpx type port-unreachable
"""
_ESTABLISHED: Final = "tcp flags & (syn | rst) == 0 goto cut"
# The first packet of what conntrack does not know may be from the middle of a connection.
_NAT: Final = "    tcp flags & (fin | syn | rst | ack) != syn return\n" + _both(
    "    #KEY vmap @dead#V\n"
)
_VIP: Final = _both("    #IP daddr @vip#V goto unknown\n")

_INET: Final = (
    f"table inet {TABLE} {{\n"
    + _both(
        "  map dead#V { type #TYPE . inet_proto . inet_service : verdict; }\n"
        "  set ours#V { type #TYPE . inet_proto . inet_service; }\n"
        "  set gone#V { type #TYPE . inet_proto . inet_service; }\n"
        "  set vip#V { type #TYPE; }\n"
    )
    + "".join(map(_counting, ("rescued", "reset", "refused")))
    + f"  chain {REFUSE} {{\n{_count_both('refused')}{_REJECT}  }}\n"
    + f"  chain end {{\n{_count_both('reset')}    reject with tcp reset\n  }}\n"
    # A translated connection ends with the place that answers it, not with the one it was for.
    + "  chain cut_translated {\n"
    + _both(
        "    meta l4proto tcp ct reply #IP saddr . meta l4proto . ct reply proto-src @gone#V"
        " goto end\n"
    )
    + "  }\n"
    + "  chain cut {\n    ct direction reply return\n    ct status dnat goto cut_translated\n"
    + _both("    #KEY @gone#V goto end\n")
    + "  }\n"
    + f"  chain unknown {{\n{_REJECT}  }}\n"
    + "  chain translated {}\n"
    + f"""\
  chain cut_in {{
    type filter hook prerouting priority -150; policy accept;
    {_ESTABLISHED}
  }}
  chain cut_out {{
    type filter hook output priority -150; policy accept;
    {_ESTABLISHED}
  }}
  chain nat_in {{
    type nat hook prerouting priority -110; policy accept;
{_NAT}  }}
  chain nat_out {{
    type nat hook output priority -110; policy accept;
{_NAT}  }}
  chain vip_in {{
    type filter hook prerouting priority -90; policy accept;
{_VIP}  }}
  chain vip_out {{
    type filter hook output priority -90; policy accept;
{_VIP}  }}
  chain post {{
    type nat hook postrouting priority 90; policy accept;
"""
    # nft 1.0 knows the type of ct's ports only behind the comparison with one protocol.
    + "".join(
        _both(
            f"    meta l4proto {protocol} ct status dnat ct original #IP daddr . meta l4proto ."
            " ct original proto-dst @ours#V goto translated\n"
        )
        for protocol in ("tcp", "udp")
    )
    + "  }\n}\n"
)

# Frames to a container that is gone never reach the host by themselves: they are given the
# bridge's own address. Of a TCP place that still stands, only what began here is taken.
_DIVERT: Final = "ether daddr set #KEY map @link#V meta pkttype set host update @busy#V { #KEY }\n"
_FLOW: Final = "#IP saddr . tcp sport . #IP daddr . tcp dport"
BRIDGE: Final = (
    f"table bridge {TABLE} {{\n"
    + _both(
        "  map link#V { type #TYPE . inet_proto . inet_service : ether_addr; }\n"
        "  set soft#V { type #TYPE . inet_proto . inet_service; }\n"
        f"  set busy#V {{ type #TYPE . inet_proto . inet_service; size {COUNTED};"
        f" flags dynamic,timeout; timeout {BUSY_FOR}; }}\n"
        f"  set taken#V {{ type #TYPE . inet_service . #TYPE . inet_service; size {TAKEN};"
        f" flags dynamic,timeout; timeout {TAKEN_FOR}; }}\n"
        "  chain soft#V {\n"
        f"    tcp flags & (fin | syn | rst | ack) == syn update @taken#V {{ {_FLOW} }}\n"
        f"    {_FLOW} @taken#V goto kept#V\n"
        "  }\n"
        "  chain kept#V {\n"
        f"    {_DIVERT}"
        f"    update @taken#V {{ {_FLOW} }}\n"
        "  }\n"
    )
    # What was sent to the bridge, of whatever network, is routed by itself.
    + "  chain in {\n    type filter hook prerouting priority -300; policy accept;\n"
    + "    meta pkttype host accept\n"
    + _both("    #KEY @soft#V goto soft#V\n" + f"    {_DIVERT}")
    + "  }\n}\n"
)
"""The whole table for bridges."""


def inet(names: Iterable[str]) -> str:
    """The whole table but for its pools and elements; `names` of bridges as for `translated`."""
    return _INET + translated(names)


def drop(family: str) -> str:
    """Remove a table, whether it is there or not."""
    return f"add table {family} {TABLE}\ndelete table {family} {TABLE}\n"


def translated(names: Iterable[str]) -> str:
    """What the source of a connection becomes that we translated, as a new content of the chain.

    The host's own address, where the answer has to come back to this host to be translated back:
    the source is of this host, the connection leaves where it came in (the sibling would answer the
    client directly), or it is from outside. Else it stays, and Docker's own rules decide.
    """
    quoted = [f'"{name}"' for name in sorted(names) if _NAME.fullmatch(name)]
    rules = ['oifname "lo" return', "fib saddr type local masquerade"]
    if quoted:
        pairs = ", ".join(f"{name} . {name}" for name in quoted)
        rules.append(f"iifname . oifname {{ {pairs} }} masquerade")
        rules.append(f"iifname != {{ {', '.join(quoted)} }} masquerade")
    else:
        rules.append("masquerade")
    chain = f"inet {TABLE} translated"
    return f"flush chain {chain}\n" + "".join(f"add rule {chain} {rule}\n" for rule in rules)


def spread(chain: str, slots: str, version: int, protocol: str, n: int, affinity: bool) -> str:
    """The rules of a pool's chain, which is there and empty.

    Connections to a service address are not counted: to use one is right.
    """
    ip = IP[version]
    choice = f"jhash {ip} saddr mod {n} seed {_SEED}" if affinity else f"numgen random mod {n}"
    return (
        f"add rule inet {TABLE} {chain} {ip} daddr != @vip{version} {count('rescued', version)}\n"
        f"add rule inet {TABLE} {chain} meta l4proto {protocol}"
        f" dnat {ip} to {choice} map @{slots}\n"
    )


def slots(name: str, version: int, protocol: str) -> str:
    """A new map of slots of a pool."""
    data = f"{IP[version]} daddr . {protocol} dport"
    return f"add map inet {TABLE} {name} {{ typeof numgen random mod 2 : {data}; }}\n"

"""Route reflection (RFC 4456): which learned routes are told to which internal peers, and how.

Rule: only best paths of internal peers, from or to a client, never back to where they came from;
next hop, path, preference and MED stay as they are (section 10). Pure.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from calico_bgp.attributes import NO_ADVERTISE, Attributes
from calico_bgp.decision import Path
from calico_bgp.prefix import Address


def reflects(path: Path, source_is_client: bool, target: Address, target_is_client: bool) -> bool:
    """Whether the path is told to the internal peer `target` (section 6)."""
    if path.external or path.peer == target:
        return False
    if NO_ADVERTISE in path.attributes.communities:  # RFC 1997
        return False
    return source_is_client or target_is_client


def reflected(path: Path, cluster_id: IPv4Address) -> Attributes:
    """As it is told: with who announced it first, and our cluster before the others (section 8)."""
    a = path.attributes
    return a._replace(
        originator_id=a.originator_id or path.router_id,
        cluster_list=(cluster_id, *a.cluster_list),
        link_local=None,
    )

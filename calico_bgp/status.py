"""Peers and learned routes as people see them."""

from __future__ import annotations

from calico_bgp import as_path
from calico_bgp.decision import Path
from calico_bgp.peering import Peering
from calico_bgp.ports import Hops, PeerStatus, RouteStatus
from calico_bgp.prefix import Prefix


def peer_status(peering: Peering) -> PeerStatus:
    """One peer."""
    plan, session, journal = peering.plan, peering.session, peering.journal
    established = None if session is None else session.established
    agreed = plan.peer.families if established is None else established.families
    advertised = 0
    if session is not None and established is not None:
        advertised = sum([prefix.family in agreed for prefix in session.advertised])
    return PeerStatus(
        name=plan.name,
        address=str(plan.address),
        asn=plan.peer.peer_asn,
        mesh=plan.mesh,
        external=plan.peer.external,
        state="Idle" if session is None else session.state.value,
        since=journal.since,
        families=tuple(map(str, agreed)),
        hold_time=plan.peer.hold_time if established is None else established.hold_time,
        received=0 if session is None else len(session.rib.accepted),
        advertised=advertised,
        retained=session is not None and established is None and bool(session.rib.stale),
        established=peering.counts.established,
        last_error=journal.last_error,
        last_error_at=journal.last_error_at,
    )


def route_status(
    prefix: Prefix, paths: tuple[Path, ...], hops: Hops, installed: bool
) -> RouteStatus:
    """One route."""
    return RouteStatus(
        prefix=str(prefix),
        next_hops=tuple(
            f"{hop.gateway}%{hop.interface}" if hop.interface else str(hop.gateway) for hop in hops
        ),
        peers=tuple(str(path.peer) for path in paths),
        as_path=as_path.shown(paths[0].attributes.as_path),
        installed=installed,
    )

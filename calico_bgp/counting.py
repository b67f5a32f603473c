"""The metrics of BGP, brought up to date whenever they are read.

Rule: parts count for themselves; what a counter grew by since the last look is added here.
"""

from __future__ import annotations

from calico_bgp.parts import Parts
from calico_bgp.prefix import Prefix
from discod.metrics import Metrics


class Counting:
    """Of one service."""

    def __init__(self, metrics: Metrics, parts: Parts) -> None:
        self._metrics = metrics
        self._parts = parts
        self._counted: dict[tuple[str, str], int] = {}
        self._peers_seen: set[str] = set()
        self._failed: frozenset[Prefix] = frozenset()

    def look(self, announced: int) -> None:
        """Bring all up to date; `announced`: prefixes that this host announces now."""
        m, parts = self._metrics, self._parts
        m.bgp_announced_prefixes.set(announced)
        if parts.kernel is not None:
            m.bgp_kernel_routes.set(parts.kernel.counts()["installed"])
            failed = frozenset(parts.kernel.faults())
            m.bgp_kernel_errors.inc(len(failed - self._failed))
            self._failed = failed
        peers = {peer.name: peer for peer in parts.speaker.peers()} if parts.speaker else {}
        for name in self._peers_seen - peers.keys():
            m.bgp_session_up.remove(name)
            m.bgp_received_prefixes.remove(name)
            m.bgp_advertised_prefixes.remove(name)
        self._peers_seen = set(peers)
        for name, peer in peers.items():
            m.bgp_session_up.labels(name).set(peer.state == "Established")
            m.bgp_received_prefixes.labels(name).set(peer.received)
            m.bgp_advertised_prefixes.labels(name).set(peer.advertised)
        names = {peer.address: peer.name for peer in peers.values()}
        for address, counts in (parts.speaker.counts() if parts.speaker else {}).items():
            name = names.get(str(address), str(address))
            for metric, labels, now in (
                (m.bgp_updates, ("received",), counts.updates_received),
                (m.bgp_updates, ("sent",), counts.updates_sent),
                (m.bgp_notifications, ("received",), counts.notifications_received),
                (m.bgp_notifications, ("sent",), counts.notifications_sent),
                (m.bgp_flaps, (), counts.lost),
            ):
                key = (name, f"{metric}{labels}")
                before = self._counted.get(key, 0)
                # Less than before: the peer was taken out and put in again.
                metric.labels(name, *labels).inc(now - before if now >= before else now)
                self._counted[key] = now

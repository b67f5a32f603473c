"""What of a changed configuration can be put in force while the daemon runs. Pure."""

from __future__ import annotations

from dataclasses import fields

from discod.model.bgp_settings import BgpSettings
from discod.model.settings import Settings

BGP_LIVE = frozenset(
    {"peers", "announce", "networks", "aggregates", "anycast", "anycast_allow", "routed", "drain"}
)
"""Of ``[bgp]``, what takes effect at once; sessions with peers that did not change stay."""


def needs_restart(before: Settings, after: Settings) -> tuple[str, ...]:
    """Names of the keys and tables whose change takes a restart."""
    fixed = (
        ("host", before.host, after.host),
        ("store", before.store, after.store),
        ("http", before.http, after.http),
        ("announce.docker", before.announce.docker, after.announce.docker),
        ("announce.hint_port", before.announce.hint_port, after.announce.hint_port),
        ("announce.withdrawal_ttl", before.announce.withdrawal_ttl, after.announce.withdrawal_ttl),
        ("liveness", before.liveness, after.liveness),
        ("dns.listen", before.dns.listen, after.dns.listen),
        ("dns.tls_listen", before.dns.tls_listen, after.dns.tls_listen),
        ("dns.domain", before.dns.domain, after.dns.domain),
        ("dns.workers", before.dns.workers, after.dns.workers),
        ("rescue.enabled", before.rescue.enabled, after.rescue.enabled),
        ("vip.pool", before.vip.pool, after.vip.pool),
    )
    found = [name for name, old, new in fixed if old != new]
    return (*found, *_bgp_restart(before.bgp, after.bgp))


def _bgp_restart(before: BgpSettings | None, after: BgpSettings | None) -> tuple[str, ...]:
    if before is None or after is None:
        return () if before is after else ("bgp",)
    names = [field.name for field in fields(BgpSettings) if field.name not in BGP_LIVE]
    return tuple(f"bgp.{name}" for name in names if getattr(before, name) != getattr(after, name))

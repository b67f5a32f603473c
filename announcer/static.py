"""Endpoints of producers that are no containers: ``[[service]]`` tables and announced commands.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from announcer.health import CheckState
from announcer.offer import Offer
from announcer.verdict import Verdict
from discod.model.endpoint import Address, Endpoint, Producer, Reason
from discod.model.names import instance_label
from discod.model.settings import ServiceSettings
from discod.model.vip import VipWish, granted, show_vip


def offers_of(
    service: ServiceSettings,
    *,
    host: str,
    addresses: tuple[Address, ...],
    producer: Producer,
    since: float,
    vips: Mapping[str, tuple[Address, ...]] = MappingProxyType({}),
) -> tuple[Offer, ...]:
    """One offer for each address; the IPv6 ones name an IPv4 one as their target, if there is one.

    Args:
        service: What is offered.
        host: This host's name.
        addresses: This host's, where the service names none.
        producer: Who offers it.
        since: Unix seconds.
        vips: Service -> its own addresses, as far as they are allocated.
    """
    wish = None
    if service.vip:
        wish = VipWish(service.name, service.vip, "vip", show_vip(service.vip))
    offers: list[Offer] = []
    counted = {4: 0, 6: 0}
    target = ""
    for address in sorted(service.addresses or addresses, key=lambda a: a.version):
        nth = counted[address.version] = counted[address.version] + 1
        unit = service.name if nth == 1 else f"{service.name}-{nth}"
        label = instance_label(
            host, unit, service.port, protocol=service.protocol, family=address.version
        )
        if address.version == 4 and not target:
            target = label
        offers.append(
            Offer(
                Endpoint(
                    service=service.name,
                    instance=label,
                    address=address,
                    port=service.port,
                    protocol=service.protocol,
                    port_name=service.port_name or str(service.port),
                    tags=service.tags,
                    weight=service.weight,
                    priority=service.priority,
                    attributes=service.attributes,
                    host=host,
                    producer=producer,
                    since=since,
                    target=target if address.version == 6 and nth == 1 else "",
                    ttl=service.ttl,
                    alpn=service.alpn,
                    prefer=service.prefer,
                    rescue=service.rescue,
                    vip=granted(wish, vips),
                    affinity=service.affinity,
                ),
                service.check,
                wish,
            )
        )
    return tuple(offers)


def judge(check: CheckState | None, drained: str | None) -> Verdict:
    """Whether an endpoint without a container behind it belongs into DNS."""
    if drained is not None:
        return Verdict(up=False, reason=Reason.DRAINED, detail=drained)
    if check is None or check.up:
        return Verdict(up=True, reason=None, detail="")
    reason = Reason.STARTING if check.up is None else Reason.UNHEALTHY
    return Verdict(up=False, reason=reason, detail=check.detail)

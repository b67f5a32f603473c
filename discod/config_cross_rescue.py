"""Contradictions within ``[rescue]`` and ``[vip]``, and between them and their neighbours.

Rule: as in `discod.config_cross`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from discod.config_fault import Path
from discod.config_finding import Finding
from discod.model.bgp_settings import BgpSettings
from discod.model.endpoint import Address
from discod.model.settings import Network, ServiceSettings, Settings
from discod.model.vip import show_vip

Services = Mapping[int, ServiceSettings]
"""Those without fault, by their index in the file."""

_POOL: Path = ("vip", "pool")


def rescue_contradictions(
    settings: Settings, services: Services, bgp: BgpSettings | None
) -> Iterator[Finding]:
    """Everything of rescue and of service addresses that does not go together.

    Args:
        settings: The file without its services and its ``[bgp]``.
        services: Those without fault.
        bgp: ``[bgp]``, where there is one.
    """
    if settings.rescue.takeover:
        at: Path = ("rescue", "takeover")
        if not settings.rescue.enabled:
            yield Finding(at, True, "expected also rescue.enabled = true", (("rescue", "enabled"),))
        if bgp is None:
            expected = "expected also [bgp], over which the addresses are announced"
            yield Finding(at, True, expected, (("bgp",),))
    yield from _pools(settings, services, bgp)
    yield from _wishes(settings.vip.pool, services)


def _pools(settings: Settings, services: Services, bgp: BgpSettings | None) -> Iterator[Finding]:
    pool = settings.vip.pool
    used = list(_used(settings, services, bgp))
    networks: list[tuple[Path, str, Network]] = []
    if bgp is not None:
        networks = [
            (("bgp", key), f"bgp.{key}", network)
            for key, found in (("networks", bgp.networks), ("aggregates", bgp.aggregates))
            for network in found
        ]
    for index, network in enumerate(pool):
        at: Path = (*_POOL, index)
        for number, earlier in enumerate(pool[:index]):
            if _overlap(network, earlier):
                expected = f"expected a network apart from [{number}] {earlier}"
                yield Finding(at, str(network), expected, (_POOL,))
        for path, key, other in networks:
            if _overlap(network, other):
                expected = f"expected a network apart from {key} ({other}), which containers have"
                yield Finding(at, str(network), expected, (path,))
                break
        for path, key, address in used:
            if network.version == address.version and address in network:
                expected = f"expected a network without {address}, which is in use ({key})"
                yield Finding(at, str(network), expected, (path,))
                break


def _used(
    settings: Settings, services: Services, bgp: BgpSettings | None
) -> Iterator[tuple[Path, str, Address]]:
    """Addresses of this host that the file names."""
    for address in settings.host.addresses:
        yield ("host", "addresses"), "host.addresses", address
    for section, key, found in (
        ("dns", "listen", settings.dns.listen),
        ("dns", "tls_listen", settings.dns.tls_listen),
        ("http", "listen", settings.http.listen),
    ):
        for listen in found:
            if not listen.address.is_unspecified:
                yield (section, key), f"{section}.{key}", listen.address
    for index, service in services.items():
        for address in service.addresses:
            yield ("service", index, "address"), f"service[{index}].address", address
    if bgp is not None:
        for address in (*bgp.source, *(one.address for one in bgp.listen)):
            if not address.is_unspecified:
                yield ("bgp",), "bgp.source or bgp.listen", address


def _overlap(one: Network, other: Network) -> bool:
    # Not `overlaps`: it cannot compare two families.
    return one.version == other.version and (
        one.network_address in other or other.network_address in one
    )


def _wishes(pool: Sequence[Network], services: Services) -> Iterator[Finding]:
    owners: dict[Address, int] = {}
    words: dict[str, int] = {}
    for index, service in services.items():
        if not service.vip:
            continue
        at: Path = ("service", index, "vip")
        shown = show_vip(service.vip)
        if not pool:
            yield Finding(at, shown, "expected also vip.pool, to take it from", (_POOL,))
            continue
        first = words.setdefault(service.name, index)
        if services[first].vip != service.vip:
            expected = f"expected what service[{first}] has: one service has the same on all ports"
            yield Finding(at, shown, expected, (("service", first, "vip"),))
            continue
        for address in () if isinstance(service.vip, str) else service.vip:
            if not any(n.version == address.version and address in n for n in pool):
                networks = ", ".join(map(str, pool))[:200]
                expected = f"expected addresses inside vip.pool ({networks}), not {address}"
                yield Finding(at, shown, expected, (_POOL,))
            owner = owners.setdefault(address, index)
            if services[owner].name != service.name:
                expected = f"expected an address that service[{owner}] does not have"
                yield Finding(at, shown, expected, (("service", owner, "vip"),))

"""Addresses that a service has of its own: what is asked for, and which are given out.

Rule: at most one of a family a service, and no address to two services. Once given out they stay,
whatever becomes of the endpoints; only a release takes them back. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal, NamedTuple

from discod.model.endpoint import Address

Network = IPv4Network | IPv6Network

AUTO: Final = "auto"
VipWord = Literal["auto"] | tuple[Address, ...]
"""What is asked for: ``auto``, fixed addresses of which none shares its family, or none."""

VIP_RULE = "auto, none, or unicast addresses, at most one IPv4 and one IPv6"
"""What an asker may say, in words."""

SEARCH_MAX = 1 << 17
"""Addresses looked at for a free one: all of a /16, whatever it is filled with."""


class VipWish(NamedTuple):
    """That somebody here asks for addresses of a service."""

    service: str
    word: VipWord
    """Not none."""
    subject: str
    """The label or key that says so, for messages."""
    value: str
    """As written."""


@dataclass(frozen=True, slots=True)
class VipRecord:
    """The addresses of one service, as stored."""

    service: str
    addresses: tuple[Address, ...]
    """IPv4 first."""
    requested: Literal["auto", "fixed"] = "auto"
    since: float = 0.0
    """When the first of them was given out, Unix seconds."""
    revision: int = field(default=0, compare=False)
    """Of the store, when it was last written; 0 when not from the store."""


class Refused(Exception):
    """A wish that cannot be fulfilled; says what was expected."""


def as_vip(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """The addresses with IPv4 first; without those that a service cannot have of its own."""
    found: dict[int, Address] = {}
    for one in addresses:
        usable = not (
            one.is_multicast
            or one.is_unspecified
            or one.is_loopback
            or one.is_link_local
            or (one.version == 6 and one.ipv4_mapped is not None)
        )
        if usable:
            found.setdefault(one.version, one)
    return tuple(found[version] for version in sorted(found))


def show_vip(word: VipWord) -> str:
    """A wish as labels have it."""
    if isinstance(word, str):
        return word
    return ",".join(map(str, word)) or "none"


def granted(wish: VipWish | None, held: Mapping[str, tuple[Address, ...]]) -> tuple[Address, ...]:
    """The addresses of its service that whoever has this wish may stand behind.

    None where it asked for fixed ones that the service has not: its clients would not find it.
    """
    if wish is None:
        return ()
    has = held.get(wish.service, ())
    if isinstance(wish.word, str) or all(one in has for one in wish.word):
        return has
    return ()


def satisfied(wish: VipWish, has: Sequence[Address], pool: Sequence[Network]) -> bool:
    """Whether nothing has to be given out for a wish."""
    if isinstance(wish.word, str):
        return {one.version for one in has} >= {network.version for network in pool} and bool(has)
    return all(one in has for one in wish.word)


def choose(
    wish: VipWish,
    has: Sequence[Address],
    owners: Mapping[Address, str],
    pool: Sequence[Network],
    *,
    avoid: Collection[Address] = (),
    before: Sequence[Address] = (),
) -> tuple[Address, ...]:
    """All addresses that the service is to have for this wish, those it `has` among them.

    A free one is found from a hash of the service's name on, so that hosts that choose at once
    choose differently, and a store that lost everything gets nearly the same again.

    Args:
        wish: Who asks for what.
        has: Its present addresses.
        owners: Who has which address.
        pool: Where they are taken from.
        avoid: What is not chosen though nobody has it.
        before: What it had when that was last known; chosen first if free.

    Raises:
        Refused: the pool is empty or used up, or a fixed address is outside of it, somebody
            else's, or another one than the service has.
    """
    if not pool:
        raise Refused("expected also a pool to take it from, and vip.pool of this host is empty")
    if not isinstance(wish.word, str):
        return _fixed(wish.service, wish.word, has, owners, pool)
    found = {one.version: one for one in has}
    taken = {*owners, *avoid}
    missing = sorted({network.version for network in pool} - found.keys())
    for version in missing:
        networks = [network for network in pool if network.version == version]
        again = [
            one
            for one in before
            if one.version == version and one not in taken and _inside(one, networks)
        ]
        free = again[0] if again else _free(wish.service, networks, taken)
        if free is None:
            shown = ", ".join(map(str, networks))[:200]
            raise Refused(f"expected a free IPv{version} address in vip.pool ({shown}): all taken")
        found[version] = free
    return tuple(found[version] for version in sorted(found))


def _fixed(
    service: str,
    asked: Sequence[Address],
    has: Sequence[Address],
    owners: Mapping[Address, str],
    pool: Sequence[Network],
) -> tuple[Address, ...]:
    found = {one.version: one for one in has}
    for one in asked:
        present = found.setdefault(one.version, one)
        if present != one:
            raise Refused(
                f"expected {present}, which service {service} has until it is released"
                " (discod vip release)"
            )
        if one in has:
            continue
        owner = owners.get(one, service)
        if owner != service:
            raise Refused(f"expected another address: service {owner} has {one}")
        if not _inside(one, pool):
            shown = ", ".join(map(str, pool))[:200]
            raise Refused(f"expected an address inside vip.pool ({shown}), not {one}")
    return tuple(found[version] for version in sorted(found))


def _inside(address: Address, pool: Iterable[Network]) -> bool:
    return any(network.version == address.version and address in network for network in pool)


def _free(service: str, networks: Sequence[Network], taken: Collection[Address]) -> Address | None:
    """The first free address from the hash of the name on; None: there is none."""
    # Of subnets with more than two addresses the first and, of IPv4, the last mean something.
    spans = []
    for network in networks:
        inner = network.num_addresses > 2
        low = int(network.network_address) + inner
        high = int(network.broadcast_address) - (inner and network.version == 4)
        spans.append((low, high - low + 1))
    size = sum(length for _, length in spans)
    at = int.from_bytes(blake2b(service.encode(), digest_size=16).digest()) % size
    for step in range(min(size, SEARCH_MAX)):
        offset = (at + step) % size
        for low, length in spans:
            if offset < length:
                # By its octets: a small number alone would be taken for IPv4.
                width = 4 if networks[0].version == 4 else 16
                address = ip_address((low + offset).to_bytes(width))
                if address not in taken:
                    return address
                break
            offset -= length
    return None


class VipTable:
    """What the store says of them: services with their addresses, and addresses with their owners.

    An address counts only while both say the same, so that no two services ever have one, whoever
    wrote what.
    """

    def __init__(self) -> None:
        self.services: dict[str, VipRecord] = {}
        self.owners: dict[Address, str] = {}

    def put_service(self, service: str, record: VipRecord | None) -> None:
        """Set what a service has; None: it has none."""
        if record is None:
            self.services.pop(service, None)
        else:
            self.services[service] = record

    def put_owner(self, address: Address, service: str | None) -> None:
        """Set who has an address; None: nobody."""
        if service is None:
            self.owners.pop(address, None)
        else:
            self.owners[address] = service

    def of(self, service: str) -> tuple[Address, ...]:
        """The addresses of one service, IPv4 first."""
        record = self.services.get(service)
        if record is None:
            return ()
        return tuple(a for a in record.addresses if self.owners.get(a) == service)

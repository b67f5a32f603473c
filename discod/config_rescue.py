"""Kinds of value of ``[rescue]`` and ``[vip]``, and of the service keys that belong to them.

Rule: as in `discod.config_values`. Pure.
"""

from __future__ import annotations

from discod.config_values import ADDRESS, NETWORK, Mismatch, Rule, choice, list_of
from discod.model.settings import Network
from discod.model.vip import AUTO, VipWord, as_vip

POOL_MIN = 8
"""Shortest prefix of a pool: more than that is nobody's to give out."""


def _pool(value: object) -> Network:
    found = NETWORK.parse(value)
    if found.prefixlen < POOL_MIN:
        raise Mismatch(f"/{POOL_MIN} or longer")
    if found.is_multicast or found.is_loopback or found.is_link_local or found.is_unspecified:
        raise Mismatch("of unicast addresses")
    return found


POOL: Rule[tuple[Network, ...]] = list_of(Rule(NETWORK.text, _pool))

_ADDRESSES = list_of(ADDRESS, least=1)


def _vip(value: object) -> VipWord:
    if value == AUTO:
        return AUTO
    if value == "none":
        return ()
    if not isinstance(value, list):
        # Parsed alone, so that what is wrong with it names the words too.
        value = [str(ADDRESS.parse(value))]
    listed = _ADDRESSES(value)
    found = as_vip(listed)
    if len(found) != len(listed):
        raise Mismatch
    return found


VIP_WORD: Rule[VipWord] = Rule(
    '"auto", "none", or a list of unicast addresses, at most one IPv4 and one IPv6', _vip
)

_AFFINITY = choice("none", "client")
AFFINITY: Rule[bool] = Rule(_AFFINITY.text, lambda v: _AFFINITY.parse(v) == "client")

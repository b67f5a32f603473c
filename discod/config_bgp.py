"""The keys of ``[bgp]`` and ``[[bgp.peer]]``: the rule of each, and the attribute it fills.

Rule: as in `discod.config_fields`; the table's presence switches BGP on, so it is not among the
sections that are always there. `docs/config.md` and `example.toml` are compared by tests. Pure.
"""

from __future__ import annotations

from typing import Any

from discod.config_bgp_values import (
    ANYCAST,
    ASN,
    COMMUNITY,
    FAMILY,
    HOLD_TIME,
    IPV4_ID,
    PREFIX_RULES,
    PROTOCOL,
    SOURCE,
    TABLE,
    U32,
)
from discod.config_fields import FILE, SHORT, Field, Section
from discod.config_values import (
    ADDRESS,
    BOOLEAN,
    LISTEN,
    NETWORK,
    Rule,
    choice,
    duration,
    integer,
    list_of,
)
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings

PREFIXES_MAX = 10_000_000
GRACEFUL_MAX = 4095
"""Seconds; the Restart Time has 12 bits (RFC 4724, section 3)."""

_PORT = integer(1, 65535)
_PREFIXES = integer(0, PREFIXES_MAX)

BGP = Section(
    "bgp",
    BgpSettings,
    (
        Field("asn", ASN, required=True),
        Field("router_id", IPV4_ID),
        Field("backend", choice("native", "kernel")),
        Field("listen", list_of(LISTEN)),
        Field("port", _PORT),
        Field("source", list_of(ADDRESS)),
        Field("mesh", BOOLEAN),
        Field("mesh_password_file", FILE),
        Field("mesh_hold_time", HOLD_TIME),
        Field("mesh_imports", PREFIX_RULES),
        Field("mesh_max_prefixes", _PREFIXES),
        Field("reflector", BOOLEAN),
        Field("cluster_id", IPV4_ID),
        Field("announce", choice("healthy", "running", "none")),
        Field("networks", list_of(NETWORK)),
        Field("aggregates", list_of(NETWORK)),
        Field("anycast", ANYCAST),
        Field("anycast_allow", list_of(NETWORK)),
        Field("install", BOOLEAN),
        Field("table", TABLE),
        Field("protocol", PROTOCOL),
        Field("metric", integer(1, 4294967295)),
        Field("multipath", integer(1, 64)),
        Field("graceful_restart", duration(0, GRACEFUL_MAX)),
        Field("stale", duration(0, 86_400)),
        Field("host", BOOLEAN),
        Field("proxy_arp", BOOLEAN),
        Field("routed", list_of(NETWORK)),
        Field("drain", duration(0, 300)),
    ),
)

PEER = Section(
    "peer",
    BgpPeerSettings,
    (
        Field("address", ADDRESS, required=True),
        Field("asn", ASN, required=True),
        Field("port", _PORT),
        Field("name", SHORT),
        Field("password_file", FILE),
        Field("hold_time", HOLD_TIME),
        Field("ttl", integer(0, 255)),
        Field("gtsm", integer(0, 254)),
        Field("passive", BOOLEAN),
        Field("source", SOURCE),
        Field("families", list_of(FAMILY, least=1)),
        Field("imports", PREFIX_RULES),
        Field("exports", PREFIX_RULES),
        Field("communities", list_of(COMMUNITY)),
        Field("local_pref", U32),
        Field("import_local_pref", U32),
        Field("med", U32),
        Field("prepend", integer(0, 16)),
        Field("next_hop_keep", BOOLEAN),
        Field("max_prefixes", _PREFIXES),
        Field("max_prefixes_restart", duration(0, 86_400)),
        Field("graceful_restart", BOOLEAN),
        Field("reflector_client", BOOLEAN),
    ),
)

PEERS = "peer"
"""The key of the tables ``[[bgp.peer]]`` in ``[bgp]``."""

PEERS_RULE: Rule[Any] = Rule("tables, each headed [[bgp.peer]]", lambda value: value)

"""Every key of the configuration file: its rule, and the attribute of the settings it fills.

Rule: a key exists when it stands in one of these tables, and nowhere else. `docs/config.md` and
`example.toml` are compared with them by tests. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from discod.config_names import ALIASES, ALPN, ROUTES
from discod.config_rescue import AFFINITY, POOL, VIP_WORD
from discod.config_service import ATTRIBUTES, CHECK, FALL, INTERVAL, RISE, TIMEOUT
from discod.config_values import (
    ADDRESS,
    BOOLEAN,
    ETCD_PORT,
    LISTEN,
    NETWORK,
    UPSTREAM,
    Mismatch,
    Rule,
    choice,
    duration,
    integer,
    judged,
    list_of,
    optional,
    text,
    url,
)
from discod.model.names import LABEL_RULE, is_domain, is_label, is_port_name, service_fault
from discod.model.rescue_settings import RescueSettings, VipSettings
from discod.model.settings import (
    AnnounceSettings,
    BrakeSettings,
    CheckSettings,
    DnsSettings,
    HostSettings,
    HttpSettings,
    LivenessSettings,
    LogSettings,
    StoreSettings,
    TransferSettings,
)

RUNTIME_DIR_MAX = 90
"""A socket's path has at most 107 octets (unix(7)); the rest is for the file's name."""

DOMAIN_MAX = 120
"""``_<port name>._tcp.<service>.<domain>`` with the longest labels has 253 characters then."""


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a table."""

    key: str
    rule: Rule[Any]
    attribute: str = ""
    """Of the settings; empty: the key itself."""
    required: bool = False

    @property
    def target(self) -> str:
        """The attribute of the settings that it fills."""
        return self.attribute or self.key


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file."""

    name: str
    settings: type[Any]
    fields: tuple[Field, ...]

    @property
    def by_key(self) -> Mapping[str, Field]:
        """Its fields by key."""
        return {field.key: field for field in self.fields}


def _is_path(value: str) -> bool:
    return value.startswith("/") and value.isprintable()


def _domain_fault(value: str) -> str | None:
    if value.endswith("."):
        return "without the final dot"
    if value != value.lower():
        return "in lower case"
    if f".{value}".endswith((".in-addr.arpa", ".ip6.arpa")):
        return "not a reverse zone: those are dns.reverse_zones"
    if not is_domain(value):
        return f"each label: {LABEL_RULE}"
    return None if len(value) <= DOMAIN_MAX else f"it has {len(value)} characters"


_PREFIX = re.compile(r"(?:/[A-Za-z0-9_.-]+)+\Z")


def _prefix_fault(value: str) -> str | None:
    if value == "/discod" or value.startswith("/discod/"):
        return "/discod holds hosts and withdrawals"
    return None if _PREFIX.match(value) else ""


def _memory_or_urls(value: object) -> tuple[str, ...]:
    if value == "memory":
        return ()
    if not isinstance(value, str | list):
        raise Mismatch
    return list_of(url(("http", "https"), ETCD_PORT), least=1)(value)


def _engine(value: str) -> bool:
    if value.startswith("unix://"):
        return _is_path(value.removeprefix("unix://"))
    return re.match(r"tcp://[^\s/@]+:[0-9]{1,5}\Z", value) is not None


FILE = optional(text("an absolute path", _is_path), "none")
_OWN_DIR = "/{}/discod as root, else a directory of the user"
_GLOB = text(
    "globs of service names (a-z, 0-9, -, *, ?, [ ])",
    lambda v: re.match(r"[a-z0-9*?\[\]!-]{1,128}\Z", v) is not None,
)
_NETWORK_NAME = text(
    "names of Docker networks", lambda v: re.match(r"[A-Za-z0-9][\w.-]*\Z", v) is not None
)
SHORT = text(
    "printable ASCII of at most 64 characters",
    lambda v: v.isascii() and v.isprintable() and len(v) <= 64,
)
_LABEL = text(f"a DNS label: {LABEL_RULE}", is_label)


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise Mismatch
    return float(value)


_SHARE: Rule[float] = Rule("a number from 0 to 1", _share)

HOST = Section(
    "host",
    HostSettings,
    (
        Field("name", optional(_LABEL, "the system's host name")),
        Field("addresses", list_of(ADDRESS)),
        Field(
            "runtime_dir",
            optional(
                text(
                    f"an absolute path of at most {RUNTIME_DIR_MAX} octets",
                    lambda v: _is_path(v) and len(v.encode()) <= RUNTIME_DIR_MAX,
                ),
                _OWN_DIR.format("run"),
            ),
        ),
        Field("zone", optional(_LABEL, "none")),
        Field(
            "state_dir",
            optional(text("an absolute path", _is_path), _OWN_DIR.format("var/lib")),
        ),
    ),
)

STORE = Section(
    "store",
    StoreSettings,
    (
        Field(
            "endpoints",
            Rule(
                '"memory", or a list of http://HOST:PORT or https://HOST:PORT (default port 2379)',
                _memory_or_urls,
            ),
        ),
        Field(
            "prefix",
            judged('a key prefix like "/skydns", without a slash at its end', _prefix_fault),
        ),
        Field("ca", FILE),
        Field("cert", FILE),
        Field("key", FILE),
        Field("username", text("a printable string", str.isprintable)),
        Field("password_file", FILE),
        # etcd's floor is about 2 s: its election timeout, doubled (server/lease, MinLeaseTTL).
        Field("lease_ttl", duration(2, 3600)),
        Field("timeout", duration(0.1, 60)),
    ),
)

ANNOUNCE = Section(
    "announce",
    AnnounceSettings,
    (
        Field("docker", optional(text("unix:///PATH or tcp://HOST:PORT", _engine), "no Docker")),
        Field("address", choice("auto", "published", "container")),
        Field("networks", list_of(_NETWORK_NAME)),
        Field("require_label", BOOLEAN),
        Field("allow", list_of(_GLOB)),
        Field("deny", list_of(_GLOB)),
        Field("drain", duration(0, 3600)),
        Field("stop_grace", duration(1, 86400)),
        Field("resync", duration(0.1, 3600)),
        Field("withdrawal_ttl", duration(10, 86400)),
        Field("aliases", ALIASES),
        Field("hint_port", integer(0, 65535)),
    ),
)

CHECKS = Section(
    "checks",
    CheckSettings,
    (
        Field("interval", INTERVAL),
        Field("timeout", TIMEOUT),
        Field("rise", RISE),
        Field("fall", FALL),
    ),
)

BRAKE = Section(
    "brake",
    BrakeSettings,
    (
        Field("enabled", BOOLEAN),
        Field("share", _SHARE),
        Field("window", duration(1, 3600)),
        Field("least", integer(1, 1_000_000)),
        Field("hold", duration(1, 86_400)),
        Field("rate", integer(1, 10_000)),
        Field("fall", FALL),
    ),
)

LIVENESS = Section(
    "liveness",
    LivenessSettings,
    (
        Field("enabled", BOOLEAN),
        Field("period", duration(0.05, 10)),
        Field("port", integer(1, 65535)),
    ),
)

DNS = Section(
    "dns",
    DnsSettings,
    (
        Field("listen", list_of(LISTEN)),
        Field(
            "domain",
            judged(f"a domain in lower case of at most {DOMAIN_MAX} characters", _domain_fault),
        ),
        Field("allow", list_of(NETWORK, least=1)),
        Field("forward", BOOLEAN),
        Field("upstreams", list_of(UPSTREAM)),
        Field("resolv_conf", text("an absolute path", _is_path)),
        Field("forward_timeout", duration(0.1, 30)),
        Field("reverse_zones", list_of(NETWORK)),
        Field("udp_size", integer(512, 4096)),
        Field("tcp_idle", duration(1, 600)),
        Field("tcp_connections", integer(1, 65535)),
        Field("workers", integer(0, 64)),
        Field("prefer", choice("none", "local", "zone")),
        Field("answer_limit", integer(0, 65535)),
        Field("consul_names", BOOLEAN),
        Field("flatten", BOOLEAN),
        Field("server_id", SHORT),
        Field("server_version", SHORT),
        Field("cookies", BOOLEAN),
        Field("cookie_secret_file", FILE),
        Field("rate_limit", integer(0, 1_000_000)),
        Field("rate_slip", integer(0, 100)),
        Field("tls_listen", list_of(LISTEN)),
        Field("tls_cert", FILE),
        Field("tls_key", FILE),
        Field("forward_allow", list_of(NETWORK)),
        Field("forward_policy", choice("order", "fastest")),
        Field("forward_client_max", integer(1, 256)),
        Field("routes", ROUTES),
        Field("cache_size", integer(0, 1_000_000)),
        Field("serve_stale", duration(0, 604_800)),
        Field("private_reverse", BOOLEAN),
        Field("randomize_case", BOOLEAN),
    ),
)

TRANSFER = Section(
    "transfer",
    TransferSettings,
    (
        Field("allow", list_of(NETWORK)),
        Field("keys", FILE),
        Field("notify", list_of(UPSTREAM)),
        Field("journal", integer(0, 1_000_000)),
    ),
)

HTTP = Section(
    "http",
    HttpSettings,
    (Field("listen", list_of(LISTEN)), Field("socket", BOOLEAN)),
)

RESCUE = Section(
    "rescue",
    RescueSettings,
    (
        Field("enabled", BOOLEAN),
        Field("hold", duration(1, 86_400)),
        Field("max_hold", duration(1, 604_800)),
        Field("max_entries", integer(1, 65_536)),
        Field("refuse", BOOLEAN),
        Field("takeover", BOOLEAN),
    ),
)

VIP = Section("vip", VipSettings, (Field("pool", POOL),))

LOG = Section(
    "log",
    LogSettings,
    (Field("level", choice("debug", "info", "warning", "error")),),
)

SECTIONS = {
    s.name: s
    for s in (
        HOST,
        STORE,
        ANNOUNCE,
        CHECKS,
        BRAKE,
        LIVENESS,
        DNS,
        TRANSFER,
        RESCUE,
        VIP,
        HTTP,
        LOG,
    )
}

SERVICE_FIELDS = (
    Field("name", judged("a service name", service_fault), required=True),
    Field("port", integer(1, 65535), required=True),
    Field("address", list_of(ADDRESS), "addresses"),
    Field("protocol", choice("tcp", "udp")),
    Field("port_name", optional(text("a DNS label of at most 62", is_port_name), "no port name")),
    Field("tags", list_of(_LABEL)),
    Field("weight", integer(0, 65535)),
    # In a SkyDNS record 0 stands for the default of 10, so it cannot be told apart.
    Field("priority", integer(1, 65535)),
    Field("attributes", ATTRIBUTES),
    Field("ttl", integer(0, 604_800)),
    Field("alpn", list_of(ALPN)),
    Field("prefer", choice("none", "local", "zone")),
    Field("rescue", BOOLEAN),
    Field("vip", VIP_WORD),
    Field("affinity", AFFINITY),
    Field("check", CHECK),
)

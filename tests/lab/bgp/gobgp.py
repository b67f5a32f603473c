"""GoBGP (https://github.com/osrg/gobgp), driven by `gobgp`.

Routes go in by its gRPC interface: one command line each would take 17 ms. Of its messages there
are only the fields that are needed, written by hand (api/gobgp.proto of GoBGP 3).
"""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from typing import Any

import grpc

from calico_bgp.as_path import AS_SEQUENCE, Segment
from calico_bgp.attributes import (
    MP_REACH_NLRI,
    OPTIONAL,
    Attributes,
    write_attribute,
    write_attributes,
)
from calico_bgp.prefix import IPV4, IPV6, Address, Prefix, of_network
from calico_bgp.update import write_reach
from tests.lab.bgp.router import COMMAND, Neighbor, Router, Routes, Seen, Told, normal

_STATES = ("Unknown", "Idle", "Connect", "Active", "OpenSent", "OpenConfirm", "Established")
SOME = 500
"""Routes in one message."""


class Gobgp(Router):
    """Announces what is in its global table, with itself as the next hop."""

    program = "gobgp"

    def start(self) -> None:
        """Start it."""
        (self.folder / "conf.toml").write_text(self._config())
        (self.folder / "api").unlink(missing_ok=True)  # of one that was killed
        self.run(
            "gobgpd", "-f", str(self.folder / "conf.toml"), "--api-hosts", self._api,
            "--pprof-disable", "-p", "-l", "debug", *["-r"] * self.again,
        )  # fmt: skip
        self._answers("gobgp", "--target", self._api, "global", "-j")
        if self.announced:
            self._apply(self.announced, {})

    def command(self, *words: str) -> str:
        """The output of `gobgp`."""
        return self.tool("gobgp", "--target", self._api, *words)

    def session(self, peer: str) -> str:
        """From ``neighbor``."""
        shown = json.loads(self.command("neighbor", peer, "-j"))
        return _STATES[shown.get("state", {}).get("session_state", 0)]

    def count(self, peer: str, version: int = 4) -> int:
        """From ``neighbor adj-in``'s summary."""
        shown = json.loads(self.command("neighbor", peer, "-j"))
        afi = 1 if version == 4 else 2
        for family in shown.get("afi_safis", []):
            state = family.get("state", {})
            if state.get("family", {}).get("afi") == afi:
                return int(state.get("received", 0))
        return 0

    def routes(self, peer: str, version: int = 4) -> dict[str, Seen]:
        """From ``neighbor adj-in``."""
        out = self.command("neighbor", peer, "adj-in", "-a", f"ipv{version}", "-j")
        shown = json.loads(out) if out.strip().startswith("{") else {}
        return {normal(prefix): _seen(paths[0]["attrs"]) for prefix, paths in shown.items()}

    @property
    def _api(self) -> str:
        return f"unix://{self.folder}/api"

    def _apply(self, added: Routes, removed: Routes) -> None:
        paths = [self._path(*one, gone=True) for one in removed.items()]
        paths += [self._path(*one) for one in added.items()]
        requests = (b"".join(paths[at : at + SOME]) for at in range(0, len(paths), SOME))
        with grpc.insecure_channel(self._api) as channel:
            call = channel.stream_unary("/apipb.GobgpApi/AddPathStream")
            call(requests, timeout=COMMAND)

    def _path(self, text: str, told: Told, *, gone: bool = False) -> bytes:
        """The field `paths` of an AddPathStreamRequest."""
        prefix = of_network(ip_network(text))
        hop = ip_address(self._hop(4 if prefix.family == IPV4 else 6))
        family = _number(1, prefix.family.afi) + _number(2, prefix.family.safi)
        fields = _number(5, gone) + _octets(9, family) + _octets(20, prefix.nlri)
        for attribute in _attributes(told, hop, prefix):
            fields += _octets(21, attribute)
        return _octets(3, fields)

    def _hop(self, version: int) -> str:
        return self.site.ipv4 if version == 4 else self.site.ipv6

    def _config(self) -> str:
        lines = [
            "[global.config]",
            f"  as = {self.asn}",
            f'  router-id = "{self.site.router_id}"',
            f'  local-address-list = ["{self.site.ipv4}", "{self.site.ipv6}"]',
        ]
        for one in self.neighbors:
            lines += _neighbor(one)
        return "\n".join([*lines, ""])


def _neighbor(one: Neighbor) -> list[str]:
    graceful = str(one.graceful_restart).lower()
    lines = [
        "[[neighbors]]",
        "  [neighbors.config]",
        f'    neighbor-address = "{one.address}"',
        f"    peer-as = {one.asn}",
        *[f'    auth-password = "{one.password}"'] * bool(one.password),
        "  [neighbors.transport.config]",
        f"    passive-mode = {str(one.passive).lower()}",
        "  [neighbors.timers.config]",
        f"    hold-time = {one.hold_time}",
        f"    keepalive-interval = {max(one.hold_time // 3, 1)}",
        "    connect-retry = 1",
        "    idle-hold-time-after-reset = 1",
        "  [neighbors.graceful-restart.config]",
        f"    enabled = {graceful}",
        f"    restart-time = {one.restart_time}",
    ]
    for version in one.families:
        lines += [
            "  [[neighbors.afi-safis]]",
            "    [neighbors.afi-safis.config]",
            f'      afi-safi-name = "ipv{version}-unicast"',
            "    [neighbors.afi-safis.mp-graceful-restart.config]",
            f"      enabled = {graceful}",
        ]
        if one.max_prefixes:
            lines += [
                "    [neighbors.afi-safis.prefix-limit.config]",
                f"      max-prefixes = {one.max_prefixes}",
            ]
    return lines


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*made, value))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _octets(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _attributes(told: Told, hop: Address, prefix: Prefix) -> list[bytes]:
    """The attributes one by one, as UPDATEs have them."""
    large = tuple(sorted(_triple(one) for one in told.large))
    pairs = (one.split(":") for one in told.communities)
    communities = tuple(sorted(int(high) << 16 | int(low) for high, low in pairs))
    made = Attributes(
        as_path=(Segment(AS_SEQUENCE, told.path),) if told.path else (),
        next_hop=hop,
        med=told.med,
        communities=communities,
        large_communities=large,
    )
    field = write_attributes(made, prefix.family, wide=True)
    parts = []
    while field:  # all of them are short ones
        size = 3 + field[2]
        parts.append(field[:size])
        field = field[size:]
    if prefix.family == IPV6:
        parts.append(
            write_attribute(MP_REACH_NLRI, write_reach(made, IPV6) + prefix.nlri, OPTIONAL)
        )
    return parts


def _triple(text: str) -> tuple[int, int, int]:
    a, b, c = (int(word) for word in text.split(":"))
    return a, b, c


def _seen(attributes: list[dict[str, Any]]) -> Seen:
    fields: dict[str, Any] = {}
    for one in attributes:
        match one["type"]:
            case 2:
                fields["path"] = tuple(asn for part in one["as_paths"] for asn in part["asns"])
            case 3 | 14:
                fields["next_hop"] = one["nexthop"]
            case 4:
                fields["med"] = one["metric"]
            case 5:
                fields["local_pref"] = one["value"]
            case 8:
                texts = (f"{value >> 16}:{value & 0xFFFF}" for value in one["communities"])
                fields["communities"] = frozenset(texts)
            case 32:
                fields["large"] = frozenset(
                    f"{v['ASN']}:{v['LocalData1']}:{v['LocalData2']}" for v in one["value"]
                )
    return Seen(**fields)

"""Judged by others: ISC's EDNS compliance questions, Zonemaster and DNSViz.

Two discods on one etcd serve a zone that a small root and a parent delegate to them, all within the
lab's namespaces: the tools are given the lab's root and ask nothing beyond. BIND, Knot and NSD
serve a zone of the same shape beside them, as the measure of what is usual.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.lab import nameservers
from tests.lab.daemon import until
from tests.lab.rig import Host, Lab

pytestmark = pytest.mark.lab

ZONE = "svc.example"
ROOT_SERVERS = {"ns1.root-servers.example": "192.0.2.3", "ns2.root-servers.example": "192.0.2.13"}
TAIL = """[[service]]
name = "web"
port = 80
port_name = "http"
address = ["10.101.1.2", "2001:db8:1::2"]
"""
SOA = "@ IN SOA ns1.root-servers.example. hostmaster.example. 1 3600 600 864000 300\n"
_SERVERS = "".join(f"@ IN NS {name}.\n" for name in ROOT_SERVERS)
_GLUE = "".join(f"{name}. IN A {address}\n" for name, address in ROOT_SERVERS.items())
_OURS = "".join(
    f"{zone}.example. IN NS {host}.node.svc.example.\n"
    for zone in ("svc", "lame")
    for host in ("a", "b")
) + "".join(
    f"{host}.node.svc.example. IN {kind} {address}\n"
    for host, n in (("a", 1), ("b", 2))
    for kind, address in (("A", f"192.0.2.{n}"), ("AAAA", f"2001:db8::{n}"))
)
WORLD = {
    ".": "$TTL 300\n" + SOA + _SERVERS + _GLUE
    + "".join(f"example. IN NS {name}.\n" for name in ROOT_SERVERS),
    "example": "$TTL 300\n" + SOA + _SERVERS + _GLUE + _OURS,
}  # fmt: skip
"""The root and the parent. ``lame.example`` is delegated to us, who know nothing of it."""
SAME_SHAPE = (
    "$TTL 0\n$ORIGIN svc.example.\n"
    "@ IN SOA a.node.svc.example. hostmaster.svc.example. 7 60 10 86400 0\n"
    "@ IN NS a.node.svc.example.\n@ IN NS b.node.svc.example.\n"
    "a.node IN A 192.0.2.1\na.node IN AAAA 2001:db8::1\n"
    "b.node IN A 192.0.2.2\nb.node IN AAAA 2001:db8::2\n"
    "web IN A 10.101.1.2\nweb IN AAAA 2001:db8:1::2\n"
)
PORTS = {"bind": 5301, "knot": 5302, "nsd": 5303}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Hosts a and b serve the zone; c is the world above, and whoever asks."""
    config = {"dns": {"domain": ZONE, "allow": ["192.0.2.0/24", "2001:db8::/32", "127.0.0.0/8"]}}
    with Lab(3, config=config, discod=False, tail=TAIL) as made, ExitStack() as stack:
        for host in made.hosts[:2]:
            dns = {**host.discod.config["dns"], "forward": False}
            dns["listen"] = [f"{host.leg.ipv4}:53", f"[{host.leg.ipv6}]:53"]
            host.discod.config["dns"] = dns
            host.discod.write()
            host.discod.start()
        world = made["c"]
        world.space.ip("addr add 192.0.2.13/24 dev eth0")
        prefix = world.space.prefix
        stack.enter_context(
            nameservers.server("bind", made.root / "world", WORLD, "any", 53, prefix)
        )
        for kind, port in PORTS.items():
            stack.enter_context(
                nameservers.server(
                    kind, made.root / kind, {ZONE: SAME_SHAPE}, "192.0.2.3", port, prefix
                )
            )
        for host in made.hosts[:2]:
            until(
                lambda host=host: len(ask(world, host, f"{ZONE}", "NS")) == 2,  # type: ignore[misc]
                what="both name servers",
            )
            until(
                lambda host=host: len(ask(world, host, f"web.{ZONE}", "SRV")) == 2,  # type: ignore[misc]
                what="the service",
            )
        yield made


def ask(world: Host, host: Host, name: str, qtype: str) -> list[str]:
    out = world.space.sh("dig", f"@{host.leg.ipv4}", "+short", "+norec", "+tries=1", name, qtype)
    return out.split("\n")[:-1]


# RFC 8906, section 8 --------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One question of RFC 8906, and what the RFC expects."""

    section: str
    options: str
    qtype: str = "soa"
    status: str = "NOERROR"
    soa: bool = True
    """Whether the zone's SOA is the answer."""
    edns: bool = False
    """Whether OPT comes back; its version is 0 then."""
    flags: tuple[str, ...] = ("aa",)
    never: tuple[str, ...] = ()
    """What must not be in the output."""


PLAIN = "+noedns +noad +norec"
EDNS = "+nocookie +edns=0 +noad +norec"
EDNS1 = "+nocookie +edns=1 +noednsneg +noad +norec"
ROWS = (
    Row("8.1.1", PLAIN),
    Row("8.1.2", PLAIN, "type1000", soa=False),
    Row("8.1.3.1", f"{PLAIN} +cd"),
    Row("8.1.3.2", "+noedns +norec +ad"),
    Row("8.1.3.3", f"{PLAIN} +zflag", never=("MBZ",)),
    Row("8.1.3.4", "+noedns +noad +rec", flags=("aa", "rd")),
    Row("8.1.3 (AA)", f"{PLAIN} +aaflag"),
    Row("8.1.3 (TC)", f"{PLAIN} +tcflag"),
    Row("8.1.3 (RA)", f"{PLAIN} +raflag"),
    Row("8.1.4", f"{PLAIN} +opcode=15 +header-only", "", "NOTIMP", soa=False, flags=()),
    Row("8.1.4 (opcode and flags)", "+noedns +ignore +opcode=15 +header-only +tcflag +rec"
        " +raflag +cd +ad +aaflag +zflag", "", "NOTIMP", soa=False, flags=("rd",), never=("MBZ",)),
    Row("8.1.5", f"{PLAIN} +tcp"),
    Row("8.2.1", EDNS, edns=True),
    Row("8.2.2", EDNS1, status="BADVERS", soa=False, edns=True, flags=()),
    Row("8.2.3", f"{EDNS} +ednsopt=100", edns=True, never=("OPT=100",)),
    Row("8.2.4", f"{EDNS} +ednsflags=0x40", edns=True, never=("MBZ",)),
    Row("8.2.5", f"{EDNS1} +ednsflags=0x40", status="BADVERS", soa=False, edns=True, flags=(),
        never=("MBZ",)),
    Row("8.2.6", f"{EDNS1} +ednsopt=100", status="BADVERS", soa=False, edns=True, flags=(),
        never=("OPT=100",)),
    Row("8.2.7", "+nocookie +edns=0 +noad +norec +dnssec +ignore +bufsize=512", "dnskey", soa=False,
        edns=True),
    Row("8.2.8", f"{EDNS} +dnssec", edns=True),
    Row("8.2.9", f"{EDNS1} +dnssec", status="BADVERS", soa=False, edns=True, flags=()),
    Row("8.2.10", "+edns=0 +noad +norec +cookie +nsid +expire +subnet=0.0.0.0/0", edns=True),
    Row("8.2 (TCP)", f"{EDNS} +dnssec +bufsize=512 +tcp", "dnskey", soa=False, edns=True),
    Row("8.2 (NSID)", f"{EDNS} +nsid", edns=True),
    Row("8.2 (expire)", f"{EDNS} +expire", edns=True),
    Row("8.2 (subnet)", f"{EDNS} +subnet=0.0.0.0/0", edns=True),
    Row("8.2 (version 1, NSID)", f"{EDNS1} +nsid", status="BADVERS", soa=False, edns=True,
        flags=()),
    Row("8.2 (version 1, cookie)", "+edns=1 +noednsneg +noad +norec +cookie=0102030405060708",
        status="BADVERS", soa=False, edns=True, flags=()),
    Row("8.2 (cookie)", "+edns=0 +noad +norec +cookie=0102030405060708", edns=True),
    Row("8.2 (as BIND asks)", "+edns=0 +cookie=0102030405060708 +noad +norec +dnssec", edns=True),
    Row("8.2 (as dig asks)", "+edns=0 +cookie=0102030405060708 +ad +rec", edns=True,
        flags=("aa", "rd")),
)  # fmt: skip
"""Those in brackets are of ISC's tester (https://ednscomp.isc.org/) and fit that section."""

TYPES = (
    "A", "AAAA", "MD", "MF", "CNAME", "MB", "MG", "MR", "NULL", "WKS", "PTR", "HINFO", "MINFO",
    "MX", "TXT", "RP", "AFSDB", "X25", "ISDN", "RT", "NSAP", "NSAP-PTR", "SIG", "KEY", "PX",
    "GPOS", "LOC", "NXT", "SRV", "NAPTR", "KX", "CERT", "A6", "DNAME", "APL", "DS", "SSHFP",
    "IPSECKEY", "RRSIG", "NSEC", "DNSKEY", "DHCID", "NSEC3", "NSEC3PARAM", "TLSA", "SMIMEA",
    "HIP", "CDS", "CDNSKEY", "OPENPGPKEY", "SPF", "NID", "L32", "L64", "LP", "EUI48", "EUI64",
    "URI", "CAA", "AVC", "DOA", "DLV", "SVCB", "HTTPS", "CSYNC", "ZONEMD", "TYPE65280",
)  # fmt: skip


def dig(world: Host, address: str, port: int, options: str, qtype: str) -> str:
    argv = ["dig", "+qr", *options.split(), "+tries=2", "+time=2", "-p", str(port), f"@{address}"]
    out = world.space.sh(*argv, *([ZONE, qtype] if qtype else []), check=False)
    # What was sent is shown first, with its own flags: only the answer counts.
    return out.partition(";; Got answer:")[2]


def said(answer: str) -> dict[str, Any]:
    """What an answer says, as far as servers can be compared by it."""
    status = re.search(r"status: (\w+)", answer)
    flags = re.search(r"^;; flags: ([a-z ]*);", answer, re.M)
    version = re.search(r"EDNS: version: (\d+)", answer)
    return {
        "status": status[1] if status else "none",
        "flags": sorted(flags[1].split()) if flags else [],
        "answers": re.findall(r"ANSWER: (\d+)", answer)[:1],
        "edns": version[1] if version else None,
        "mbz": "MBZ" in answer,
        "unknown option": "OPT=100" in answer,
    }


DIFFERENT: dict[str, str] = {}
"""Rows in which we differ from BIND, Knot and NSD, who agree with one another: and why."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.section)
def test_rfc_8906(lab: Lab, row: Row) -> None:
    world, host = lab["c"], lab["a"]
    answer = dig(world, host.leg.ipv4, 53, row.options, row.qtype)
    found = said(answer)
    assert found["status"] == row.status, answer
    records = [line.split() for line in answer.splitlines() if line and line[0] != ";"]
    is_soa = any(words[0] == f"{ZONE}." and words[3] == "SOA" for words in records)
    assert (found["answers"] == ["1"] and is_soa) is row.soa, answer
    assert found["edns"] == ("0" if row.edns else None), answer
    for flag in ("aa", "rd"):
        assert (flag in found["flags"]) is (flag in row.flags), answer
    for flag in ("ad", "tc", "ra"):
        assert flag not in found["flags"], answer
    assert not [text for text in row.never if text in answer], answer

    others = [
        said(dig(world, "192.0.2.3", port, row.options, row.qtype)) for port in PORTS.values()
    ]
    agreed = all(other == others[0] for other in others)
    assert not agreed or found == others[0] or row.section in DIFFERENT, (
        f"we: {found}\nBIND, Knot and NSD: {others[0]}"
    )


def test_every_type_that_the_zone_has_not_is_nodata(lab: Lab) -> None:
    """ISC's list of types: each gets NOERROR, AA and the SOA, and none an answer."""
    world, host = lab["c"], lab["a"]
    file = lab.root / "types"
    file.write_text("".join(f"+noedns +noad +norec {ZONE} {qtype}\n" for qtype in TYPES))
    out = world.space.sh("dig", f"@{host.leg.ipv4}", "+tries=2", "+time=2", "-f", str(file))
    answers = out.split(";; Got answer:")[1:]
    assert len(answers) == len(TYPES)
    for qtype, answer in zip(TYPES, answers, strict=True):
        found = said(answer)
        assert (found["status"], found["answers"]) == ("NOERROR", ["0"]), (qtype, answer)
        assert "aa" in found["flags"] and "AUTHORITY: 1" in answer, (qtype, answer)


# Zonemaster -----------------------------------------------------------------------------------

ACCEPTED = {
    # The lab's addresses are documentation prefixes, and nobody serves their reverse zones.
    "NAMESERVER_IP_PRIVATE_NETWORK",
    "NAMESERVER_IP_WITHOUT_REVERSE",
    # Unsigned, as docs/dns.md says.
    "NOT_SIGNED",
    "NEITHER_DNSKEY_NOR_DS",
    # No mail is taken for this domain.
    "RNAME_MAIL_DOMAIN_INVALID",
    "Z09_MISSING_MAIL_TARGET",
    # A zone that alters every second: its secondaries look often, and nothing is cached.
    "REFRESH_MINIMUM_VALUE_LOWER",
    "RETRY_MINIMUM_VALUE_LOWER",
    "EXPIRE_MINIMUM_VALUE_LOWER",
    "SOA_DEFAULT_TTL_MAXIMUM_VALUE_LOWER",
}
"""Findings above INFO that are the lab's or the design's doing."""
HINTS = "".join(
    f". 3600 IN NS {name}.\n{name}. 3600 IN A {address}\n" for name, address in ROOT_SERVERS.items()
)


def zonemaster(lab: Lab, zone: str) -> list[dict[str, Any]]:
    hints = lab.root / "hints"
    hints.write_text(HINTS)
    done = subprocess.run(
        [*lab["c"].space.prefix, "zonemaster-cli", "--hints", str(hints), "--level", "INFO",
         "--json", "--no-progress", zone],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return list(found if isinstance(found, list) else found["results"])


def test_zonemaster(lab: Lab) -> None:
    found = zonemaster(lab, ZONE)
    tags = {entry["tag"] for entry in found}
    bad = [entry for entry in found if entry["level"] not in ("INFO", "DEBUG")]
    left = [entry for entry in bad if entry["tag"] not in ACCEPTED]
    assert not left, json.dumps(left, indent=1)
    # It has really looked: these are what it praises.
    assert {
        "ARE_AUTHORITATIVE", "EDNS0_SUPPORT", "NAMES_MATCH", "ADDRESSES_MATCH", "ONE_SOA_SERIAL",
        "ONE_NS_SET", "NO_RECURSOR", "NO_UPWARD_REFERRAL", "QNAME_CASE_SENSITIVE",
        "CASE_QUERIES_RESULTS_OK", "SAME_SOURCE_IP", "AXFR_FAILURE",
    } <= tags  # fmt: skip


def test_zonemaster_sees_what_is_wrong(lab: Lab) -> None:
    """The control: a zone that is delegated to us and that we do not serve."""
    levels = {entry["level"] for entry in zonemaster(lab, "lame.example")}
    assert levels & {"ERROR", "CRITICAL"}


# DNSViz ---------------------------------------------------------------------------------------


def dnsviz(lab: Lab, *names: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What it has looked at, and what it finds to be wrong or strange."""
    servers = ",".join(f"{name}={address}" for name, address in ROOT_SERVERS.items())
    probe = str(lab.root / "probe.json")
    prefix = lab["c"].space.prefix
    run = {"capture_output": True, "text": True, "timeout": 120, "check": False}
    done = subprocess.run(
        [*prefix, "dnsviz", "probe", "-A", "-a", ".", "-x", f".:{servers}", "-o", probe, *names],
        **run,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, done.stderr
    said = []
    for level in ("info", "warning"):
        done = subprocess.run(["dnsviz", "grok", "-l", level, "-r", probe], **run)  # type: ignore[call-overload]
        assert done.returncode in (0, 22), done.stderr
        said.append(json.loads(done.stdout) if done.stdout.strip() else {})
    return said[0], said[1]


def test_dnsviz(lab: Lab) -> None:
    seen, faults = dnsviz(lab, ZONE, f"web.{ZONE}", f"_http._tcp.web.{ZONE}", f"nope.{ZONE}")
    assert f"{ZONE}." in seen and seen[f"{ZONE}."]["status"] == "NOERROR"
    servers = json.dumps(seen[f"{ZONE}."])
    for host in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"):
        assert host in servers, f"{host} was not asked"
    ours = {name: said for name, said in faults.items() if name.endswith(f"{ZONE}.")}
    assert not ours, json.dumps(ours, indent=1)


def test_dnsviz_sees_what_is_wrong(lab: Lab) -> None:
    _, faults = dnsviz(lab, "lame.example")
    assert "lame.example." in faults

"""What dig and kdig make of the resolver, and dnsmasq as its upstream."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import trio

from discod.model.settings import DnsSettings, ListenAddress
from resolver.tls import tls_context
from tests.resolving import NAMED
from tests.unit.test_server import Rig, served, settings

pytestmark = pytest.mark.lab

D = "discod.internal"


async def run(tool: str, rig: Rig, *args: str) -> str:
    """The whole output of a client that asks the resolver."""
    at = ["@127.0.0.1", "-p", str(rig.port), "+time=3", "+tries=1"]
    if tool == "kdig":
        at = ["@127.0.0.1", "-p", str(rig.port), "+time=3", "+retry=0"]
    with trio.fail_after(20):
        done = await trio.run_process([tool, *at, *args], capture_stdout=True)
    return done.stdout.decode()


async def short(tool: str, rig: Rig, *args: str) -> list[str]:
    """The RDATA of the answers, sorted."""
    return sorted(filter(None, (await run(tool, rig, "+short", *args)).split("\n")))


def status(output: str) -> tuple[str, set[str]]:
    """Rcode and flags, from the output of either client."""
    rcode = re.search(r"status: (\w+)", output)
    flags = re.search(r"[Ff]lags: ([a-z ]+);", output)
    assert rcode and flags, output
    return rcode[1], set(flags[1].split())


TOOLS = pytest.mark.parametrize("tool", ["dig", "kdig"])


@TOOLS
@pytest.mark.parametrize(
    ("name", "qtype", "expected"),
    [
        (f"web.{D}", "A", ["10.101.1.2", "10.101.2.2"]),
        (f"web.{D}", "AAAA", ["2001:db8:1::2"]),
        (f"web.{D}", "TXT", ['"env=prod"']),
        (
            f"_http._tcp.web.{D}",
            "SRV",
            [f"10 100 80 alpha-c1-80.web.{D}.", f"10 50 80 beta-c2-80.web.{D}."],
        ),
        (f"v2.web.{D}", "A", ["10.101.2.2"]),
        (f"alpha-c1-80.web.{D}", "AAAA", ["2001:db8:1::2"]),
        (f"alpha.node.{D}", "A", ["192.0.2.1"]),
        (D, "NS", [f"alpha.node.{D}.", f"beta.node.{D}."]),
        (D, "SOA", [f"alpha.node.{D}. hostmaster.{D}. 7 60 10 86400 0"]),
        ("2.1.101.10.in-addr.arpa", "PTR", [f"alpha-c1-80.web.{D}."]),
        (
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            "PTR",
            [f"alpha-c1-80-v6.web.{D}."],
        ),
    ],
)
async def test_answers(tool: str, name: str, qtype: str, expected: list[str]) -> None:
    async with served(settings()) as rig:
        assert await short(tool, rig, name, qtype) == expected
        assert await short(tool, rig, "+tcp", name, qtype) == expected


@TOOLS
@pytest.mark.parametrize(
    ("args", "rcode", "flags"),
    [
        ([f"web.{D}", "A"], "NOERROR", {"qr", "aa", "rd", "ra"}),
        ([f"web.{D}", "MX"], "NOERROR", {"qr", "aa", "rd", "ra"}),
        ([f"nope.{D}", "A"], "NXDOMAIN", {"qr", "aa", "rd", "ra"}),
        (["+norec", f"web.{D}", "A"], "NOERROR", {"qr", "aa", "ra"}),
        (["+norec", "example.com", "A"], "REFUSED", {"qr", "ra"}),
        (["version.bind", "CH", "TXT"], "REFUSED", {"qr", "rd", "ra"}),
        (["+noedns", f"web.{D}", "ANY"], "NOERROR", {"qr", "aa", "rd", "ra"}),
    ],
)
async def test_status(tool: str, args: list[str], rcode: str, flags: set[str]) -> None:
    async with served(settings(forward=True, resolv_conf="/nonexistent")) as rig:
        output = await run(tool, rig, *args)
    assert status(output) == (rcode, flags)


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
async def test_other_opcodes(opcode: int) -> None:
    async with served(settings()) as rig:
        assert status(await run("dig", rig, f"+opcode={opcode}", f"web.{D}"))[0] == "NOTIMP"


async def test_edns_as_dig_probes_it() -> None:
    """The questions of https://ednscomp.isc.org/, each with its expected answer."""
    async with served(settings()) as rig:
        soa = [D, "SOA"]
        plain = await run("dig", rig, "+noedns", "+noad", *soa)
        assert "EDNS" not in plain and status(plain)[0] == "NOERROR"
        assert "EDNS: version: 0, flags:; udp: 1232" in await run("dig", rig, "+edns=0", *soa)
        other = await run("dig", rig, "+edns=1", "+noednsneg", "+nocookie", *soa)
        assert status(other)[0] == "BADVERS" and "EDNS: version: 0" in other
        assert "ANSWER: 0" in other
        odd = await run(
            "dig", rig, "+edns=0", "+ednsopt=100", "+nsid", "+subnet=192.0.2.0/24", *soa
        )
        assert status(odd)[0] == "NOERROR" and "OPT=100" not in odd and "NSID" not in odd
        flags = await run("dig", rig, "+edns=0", "+ednsflags=0x40", *soa)
        assert status(flags)[0] == "NOERROR" and "MBZ" not in flags
        assert "flags: do" in await run("dig", rig, "+dnssec", *soa)
        assert status(await run("dig", rig, "+header-only", "+nocookie"))[0] == "FORMERR"
        # With a cookie it asks for ours (RFC 7873, section 5.4).
        assert status(await run("dig", rig, "+header-only", "+cookie"))[0] == "NOERROR"


async def test_stale_and_unready_are_explained() -> None:
    async with served(settings()) as rig:
        rig.resolver.set_stale(stale=True, ready=True)
        assert "EDE: 3 (Stale Answer)" in await run("dig", rig, f"web.{D}")
        rig.resolver.set_stale(stale=True, ready=False)
        output = await run("dig", rig, f"web.{D}")
        assert status(output)[0] == "SERVFAIL" and "EDE: 14 (Not Ready)" in output
        rig.resolver.reload(replace(settings(), allow=(ip_network("192.0.2.0/24"),)))
        output = await run("dig", rig, f"web.{D}")
        assert status(output)[0] == "REFUSED" and "EDE: 18 (Prohibited)" in output


async def test_who_answers_is_told_where_it_is_configured() -> None:
    async with served(settings(server_id="ns-a", server_version="discod 1")) as rig:
        assert await short("dig", rig, "id.server", "CH", "TXT") == ['"ns-a"']
        assert await short("dig", rig, "hostname.bind", "CH", "TXT") == ['"ns-a"']
        assert await short("dig", rig, "version.bind", "CH", "TXT") == ['"discod 1"']
        assert '("ns-a")' in await run("dig", rig, "+nsid", f"web.{D}")
        assert '"ns-a"' in await run("kdig", rig, "+nsid", f"web.{D}")


async def test_cookies_as_dig_checks_them() -> None:
    made = settings()
    async with served(made) as rig:
        rig.resolver._responder.configure(made, (b"s" * 16,))
        first = await run("dig", rig, "+cookie=0123456789abcdef", f"web.{D}")
        told = re.search(r"COOKIE: (\w+) \(good\)", first)
        assert told and len(told[1]) == 48
        again = await run("dig", rig, f"+cookie={told[1]}", f"web.{D}")
        assert f"COOKIE: {told[1]} (good)" in again and status(again)[0] == "NOERROR"
        wrong = await run("dig", rig, f"+cookie={told[1][:-2]}00", f"web.{D}")
        assert f"COOKIE: {told[1][:30]}" in wrong and status(wrong)[0] == "NOERROR"
        # 11 octets: what dig calls malformed itself it still sends.
        short = await run("dig", rig, "+nocookie", "+ednsopt=10:0123456789abcdef012345", f"web.{D}")
        assert status(short)[0] == "FORMERR"
        alone = await run("dig", rig, "+header-only", "+cookie=0123456789abcdef")
        assert status(alone)[0] == "NOERROR" and "(good)" in alone and "QUERY: 0" in alone


async def test_keepalive_is_for_tcp() -> None:
    async with served(settings(tcp_idle=12.0)) as rig:
        over_tcp = await run("dig", rig, "+tcp", "+keepalive", f"web.{D}")
        assert "TCP KEEPALIVE: 12.0 secs" in over_tcp
        assert "KEEPALIVE" not in await run("dig", rig, "+ednsopt=11", f"web.{D}")


async def test_dns_over_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=ns", "-addext", "subjectAltName=DNS:ns.example"]
    with trio.fail_after(20):
        await trio.run_process(
            [*command.split(), *names, "-keyout", str(key), "-out", str(cert)], capture_stderr=True
        )
    async with served(settings()) as rig, trio.open_nursery() as nursery:
        rig.resolver.update(NAMED["big"], None)
        rig.resolver._tcp.tls = tls_context(cert, key)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(rig.resolver._tcp.serve_tls, listener)
        at = ["kdig", "@127.0.0.1", "-p", str(listener.socket.getsockname()[1])]
        at += [f"+tls-ca={cert}", "+tls-hostname=ns.example", "+time=5", "+retry=0"]
        with trio.fail_after(30):
            done = await trio.run_process([*at, "+short", f"big.{D}", "A"], capture_stdout=True)
            padded = await trio.run_process(
                [*at, "+padding=128", f"big.{D}", "SOA"], capture_stdout=True
            )
        assert len(done.stdout.split()) == 1000
        output = padded.stdout.decode()
        assert status(output)[0] == "NOERROR"
        assert "PADDING" in output and "(TLS" in output and "Received 468 B" in output
        assert rig.value("discod_dns_requests_total", zone=D, proto="tls", type="A") == 1
        nursery.cancel_scope.cancel()


@TOOLS
async def test_truncation_and_the_way_to_tcp(tool: str) -> None:
    async with served(settings()) as rig:
        rig.resolver.update(NAMED["big"], None)
        output = await run(tool, rig, "+ignore", f"big.{D}", "A")
        assert "tc" in status(output)[1]
        assert len(await short(tool, rig, f"big.{D}", "A")) == 1000


async def test_additional_addresses_and_case() -> None:
    async with served(settings()) as rig:
        output = await run(
            "dig", rig, "+noall", "+answer", "+additional", f"_hTTp._TCP.Web.{D}", "SRV"
        )
    lines = [line.split() for line in output.splitlines() if line and not line.startswith(";")]
    assert {line[0] for line in lines if line[3] == "SRV"} == {f"_hTTp._TCP.Web.{D}."}
    assert {(line[3], line[4]) for line in lines if line[3] != "SRV"} == {
        ("A", "10.101.1.2"),
        ("AAAA", "2001:db8:1::2"),
        ("A", "10.101.2.2"),
    }
    assert all(line[1] == "0" for line in lines)


async def test_many_questions_on_one_connection(tmp_path: Path) -> None:
    batch = tmp_path / "questions"
    batch.write_text(f"web.{D} A\n" * 50)
    async with served(settings()) as rig:
        output = await run("dig", rig, "+tcp", "+keepopen", "+short", "-f", str(batch))
    assert len(output.split()) == 100


# Forwarding -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def dnsmasq(folder: Path) -> AsyncIterator[ListenAddress]:
    """A dnsmasq that knows a few names, with one answer too large for UDP."""
    hosts = folder / "hosts"
    many = [f"10.66.{i >> 8}.{i & 255} many.example" for i in range(300)]
    hosts.write_text("\n".join(["10.66.9.9 one.example", *many]) + "\n")
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
    argv += ["--user=root", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv"]
    argv += ["--no-hosts", f"--addn-hosts={hosts}", "--local=/example/", "--edns-packet-max=1232"]
    argv += ["--txt-record=text.example,hello world"]
    for _ in range(10):  # somebody else may take the free port, for UDP or for TCP
        port = free_port()
        process = await trio.lowlevel.open_process(
            [*argv, f"--port={port}"], stderr=subprocess.DEVNULL
        )
        try:
            if await listening(process, port):
                yield ListenAddress(ip_address("127.0.0.1"), port)
                return
        finally:
            process.terminate()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await process.wait()
    raise AssertionError("dnsmasq does not start")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def listening(process: trio.Process, port: int) -> bool:
    """Wait until the process listens; False when it ends instead."""
    with trio.fail_after(10):
        while process.poll() is None:
            with contextlib.suppress(OSError):
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return True
            await trio.sleep(0.05)
    return False


def forwarding(*upstreams: ListenAddress) -> DnsSettings:
    return settings(forward=True, upstreams=upstreams, forward_timeout=1.0, private_reverse=False)


@TOOLS
async def test_forwarding_to_dnsmasq(tool: str, tmp_path: Path) -> None:
    async with dnsmasq(tmp_path) as upstream, served(forwarding(upstream)) as rig:
        assert await short(tool, rig, "one.example", "A") == ["10.66.9.9"]
        assert await short(tool, rig, "+tcp", "one.example", "A") == ["10.66.9.9"]
        assert await short(tool, rig, "text.example", "TXT") == ['"hello world"']
        assert await short(tool, rig, "9.9.66.10.in-addr.arpa", "PTR") == ["one.example."]
        assert status(await run(tool, rig, "none.example", "A"))[0] == "NXDOMAIN"
        assert len(await short(tool, rig, "many.example", "A")) == 300  # by way of TC, twice
        cut = await run(tool, rig, "+ignore", "many.example", "A")
        count = re.search(r"ANSWER: (\d+)", cut)
        assert "tc" in status(cut)[1] and count and int(count[1]) >= 30
        assert await short(tool, rig, f"web.{D}", "AAAA") == ["2001:db8:1::2"]  # ours stays ours


async def test_upstreams_that_are_down(tmp_path: Path) -> None:
    async with dnsmasq(tmp_path) as upstream:
        dead = ListenAddress(ip_address("127.0.0.1"), 1)
        async with served(forwarding(dead, upstream)) as rig:
            assert await short("dig", rig, "one.example", "A") == ["10.66.9.9"]
        async with served(forwarding(dead)) as rig:
            output = await run("dig", rig, "one.example")
            assert status(output)[0] == "SERVFAIL" and "EDE: 23 (Network Error)" in output

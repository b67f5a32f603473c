"""The forwarder before real name servers: dnsmasq, Unbound, BIND, Knot and NSD, on loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio

from discod.model.settings import DnsSettings, ListenAddress, Route
from resolver.forwarding.health import Upstream
from tests.forwarding import Rig, running
from tests.resolving import errors, packet
from tests.unit.test_forward import Front

pytestmark = pytest.mark.lab

ZONE = """$ORIGIN example.
$TTL 300
@ IN SOA ns.example. root.example. 1 3600 600 86400 120
@ IN NS ns.example.
ns IN A 192.0.2.53
one IN A 10.66.9.9
two IN A 10.66.9.1
two IN A 10.66.9.2
www IN CNAME one.example.
text IN TXT "hello world"
zero 0 IN A 10.66.9.7
_http._tcp IN SRV 1 2 80 one.example.
"""
MANY = 95
"""Addresses of one name: more than fit into 1,232 octets, and not more than BIND loads (100)."""

Start = Callable[[Path, int], list[str]]
"""(folder, port) -> argv of a name server with the zone, in the foreground."""


def zone() -> str:
    return ZONE + "".join(f"many IN A 10.67.0.{i}\n" for i in range(MANY))


def zone_file(folder: Path) -> Path:
    path = folder / "example.zone"
    path.write_text(zone())
    return path


def dnsmasq(folder: Path, port: int) -> list[str]:
    hosts = folder / "hosts"
    names = [("10.66.9.9", "one"), ("10.66.9.1", "two"), ("10.66.9.2", "two")]
    names += [(f"10.67.0.{i}", "many") for i in range(MANY)]
    hosts.write_text("".join(f"{address} {name}.example\n" for address, name in names))
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
    argv += ["--user=root", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv"]
    argv += ["--no-hosts", f"--addn-hosts={hosts}", "--local=/example/", f"--port={port}"]
    argv += ["--txt-record=text.example,hello world", "--cname=www.example,one.example"]
    argv += ["--local-ttl=300", "--srv-host=_http._tcp.example,one.example,80,1,2"]
    return argv


def unbound(folder: Path, port: int) -> list[str]:
    config = folder / "unbound.conf"
    data = []
    for line in zone().replace("\n@ ", "\nexample. ").splitlines()[2:]:
        name, rest = line.split(" ", 1)
        owner = name if name.endswith(".") else f"{name}.example."
        rest = rest if rest[0].isdigit() else f"300 {rest}"
        data.append(f"  local-data: '{owner} {rest}'\n")
    config.write_text(
        f"""server:
  interface: 127.0.0.1@{port}
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  logfile: "{folder}/log"
  do-not-query-localhost: no
  module-config: "iterator"
  local-zone: "example." static
{"".join(data)}remote-control:
  control-enable: no
"""
    )
    return ["unbound", "-d", "-c", str(config)]


def bind(folder: Path, port: int) -> list[str]:
    config = folder / "named.conf"
    config.write_text(
        f"""options {{
  directory "{folder}"; pid-file none; session-keyfile none; listen-on-v6 {{ none; }};
  listen-on port {port} {{ 127.0.0.1; }}; recursion no; allow-query {{ any; }};
  require-server-cookie yes; dnssec-validation no;
}};
controls {{ }};
zone "example" {{ type primary; file "{zone_file(folder)}"; }};
"""
    )
    return ["named", "-g", "-c", str(config), "-n", "1"]


def dnsmasq_to(at: int) -> Start:
    """A dnsmasq that asks somebody else on loopback for everything."""

    def start(folder: Path, port: int) -> list[str]:
        argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
        argv += ["--user=root", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-hosts"]
        return [*argv, "--no-resolv", f"--port={port}", f"--server=127.0.0.1#{at}"]

    return start


def unbound_to(at: int) -> Start:
    """An Unbound that asks somebody else on loopback for everything."""

    def start(folder: Path, port: int) -> list[str]:
        config = folder / "unbound.conf"
        config.write_text(
            f"""server:
  interface: 127.0.0.1@{port}
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
  use-syslog: no
  logfile: "{folder}/log"
  do-not-query-localhost: no
  module-config: "iterator"
remote-control:
  control-enable: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{at}
"""
        )
        return ["unbound", "-d", "-c", str(config)]

    return start


def knot(folder: Path, port: int) -> list[str]:
    config = folder / "knot.conf"
    config.write_text(
        f"""server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{folder}"
mod-cookies:
  - id: default
    badcookie-slip: 1
template:
  - id: default
    storage: "{folder}"
    global-module: mod-cookies/default
zone:
  - domain: example
    file: "{zone_file(folder)}"
    zonefile-load: whole
    journal-content: none
"""
    )
    return ["knotd", "-c", str(config)]


def nsd(folder: Path, port: int) -> list[str]:
    config = folder / "nsd.conf"
    config.write_text(
        f"""server:
  ip-address: 127.0.0.1@{port}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: ""
  zonelistfile: "{folder}/zone.list"
  xfrdfile: "{folder}/xfrd.state"
  logfile: "{folder}/log"
  server-count: 1
remote-control:
  control-enable: no
zone:
  name: example
  zonefile: "{zone_file(folder)}"
"""
    )
    return ["nsd", "-d", "-c", str(config)]


SERVERS: dict[str, tuple[str, Start]] = {
    "dnsmasq": ("dnsmasq", dnsmasq),
    "unbound": ("unbound", unbound),
    "bind": ("named", bind),
    "knot": ("knotd", knot),
    "nsd": ("nsd", nsd),
}
"""Name -> program, and how to start it."""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def listening(process: trio.Process, port: int) -> bool:
    """Wait until the process listens; False when it ends instead."""
    with trio.fail_after(20):
        while process.poll() is None:
            with contextlib.suppress(OSError):
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                return True
            await trio.sleep(0.05)
    return False


@contextlib.asynccontextmanager
async def upstream(
    name: str, folder: Path, start: Start | None = None
) -> AsyncIterator[ListenAddress]:
    """A real name server that knows ``example.``, or is started otherwise."""
    program, usual = SERVERS[name]
    start = start or usual
    if shutil.which(program) is None:
        pytest.skip(f"no {program} on this machine")
    for attempt in range(5):  # somebody else may take the free port, for UDP or for TCP
        place = folder / f"{name}{attempt}"
        place.mkdir()
        port = free_port()
        argv = start(place, port)
        with (place / "output").open("wb") as output:
            process = await trio.lowlevel.open_process(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            if await listening(process, port):
                yield ListenAddress(ip_address("127.0.0.1"), port)
                return
        finally:
            process.terminate()
            with trio.CancelScope(shield=True):
                with trio.move_on_after(10):
                    await process.wait()
                if process.returncode is None:
                    process.kill()
                    await process.wait()
    raise AssertionError(f"{name} does not start: {(place / 'output').read_text()[-2000:]}")


def settings(*servers: ListenAddress, **more: Any) -> DnsSettings:
    return DnsSettings(upstreams=servers, forward_timeout=5.0, **more)


def known(rig: Rig) -> Upstream:
    (only,) = rig.forwarder._pool._known.values()
    return only


async def values(rig: Rig, name: str, qtype: str = "A", limit: int = 1232) -> list[str]:
    response = await rig.ask(packet(name, qtype, size=1232), limit)
    return sorted(str(rr.rdata) for rr in response.rr)


@pytest.mark.parametrize("name", SERVERS)
async def test_forwarding_to(name: str, tmp_path: Path) -> None:
    async with upstream(name, tmp_path) as at, running(settings(at)) as rig:
        assert await values(rig, "one.example") == ["10.66.9.9"]
        assert await values(rig, "two.example") == ["10.66.9.1", "10.66.9.2"]
        assert await values(rig, "text.example", "TXT") == ['"hello world"']
        assert await values(rig, "_http._tcp.example", "SRV") == ["1 2 80 one.example."]
        alias = await rig.ask(packet("www.example", size=1232))
        # Unbound does not follow an alias in its own local data.
        expected = ["one.example."] if name == "unbound" else ["10.66.9.9", "one.example."]
        assert sorted(str(rr.rdata) for rr in alias.rr) == expected
        assert {str(rr.rname) for rr in alias.rr} <= {"www.example.", "one.example."}
        nothing = await rig.ask(packet("none.example", size=1232))
        assert nothing.header.rcode == 3
        nodata = await rig.ask(packet("one.example", "AAAA", size=1232))
        assert (nodata.header.rcode, nodata.rr) == (0, [])
        whole = await rig.ask(packet("many.example", size=1232), 65535)  # by way of TC
        assert (len(whole.rr), whole.header.tc) == (MANY, 0)
        cut = await rig.ask(packet("many.example", size=1232), 1232)
        assert cut.header.tc == 1 and 30 <= len(cut.rr) < MANY
        # All of them keep the case of a question; none was asked in lower case for long.
        assert known(rig).keeps_case(trio.current_time())
        assert known(rig).takes_edns(trio.current_time())
        assert set(rig.tries()) == {"ok"}


@pytest.mark.parametrize("name", SERVERS)
async def test_what_they_say_is_kept(name: str, tmp_path: Path) -> None:
    async with upstream(name, tmp_path) as at, running(settings(at)) as rig:
        for query in ("one.example", "oNe.eXample", "ONE.EXAMPLE"):
            response = await rig.ask(packet(query, size=1232))
            assert [str(rr.rname) for rr in response.rr] == [f"{query}."]
            assert 290 <= response.rr[0].ttl <= 300
        assert rig.looks() == {"miss": 1, "hit": 2}
        for _ in range(2):
            response = await rig.ask(packet("none.example", size=1232))
            assert response.header.rcode == 3
        # dnsmasq's own negative answers have no SOA: they are not to be kept (RFC 2308).
        if response.auth:
            assert response.auth[0].ttl <= 120  # the SOA's minimum
            assert rig.looks() == {"miss": 2, "hit": 3}
        else:
            assert name == "dnsmasq"
            assert rig.looks() == {"miss": 3, "hit": 2}


@pytest.mark.parametrize("name", ["bind", "knot"])
async def test_cookies_with(name: str, tmp_path: Path) -> None:
    """Both refuse UDP without a good cookie here, by BADCOOKIE."""
    async with upstream(name, tmp_path) as at, running(settings(at, cache_size=0)) as rig:
        for _ in range(3):
            assert await values(rig, "one.example") == ["10.66.9.9"]
        assert len(known(rig).server_cookie) == 16
        assert set(rig.tries()) == {"ok"}


async def test_two_upstreams_one_of_which_dies(tmp_path: Path) -> None:
    async with upstream("knot", tmp_path) as good, running(settings(good)) as rig:
        async with upstream("dnsmasq", tmp_path) as dying:
            rig.forwarder.configure(settings(dying, good, cache_size=0))
            assert await values(rig, "one.example") == ["10.66.9.9"]
            assert rig.tries() == {"ok": 1}
        for _ in range(10):
            assert await values(rig, "one.example") == ["10.66.9.9"]
        assert rig.tries()["ok"] == 11
        of_good = {"upstream": f"127.0.0.1:{good.port}", "result": "ok"}
        assert rig.count("discod_dns_forwards_total", **of_good) == 10


async def test_stale_answers_when_the_upstream_is_gone(tmp_path: Path) -> None:
    async with upstream("knot", tmp_path) as at, running(settings(at)) as rig:
        assert await values(rig, "two.example") == ["10.66.9.1", "10.66.9.2"]
        rig.forwarder._cache.outdate()  # as its TTL would in five minutes
        port = free_port()
        gone = ListenAddress(ip_address("127.0.0.1"), port)
        rig.forwarder.configure(settings(gone))
        response = await rig.ask(packet("two.example", size=1232))
        assert sorted(str(rr.rdata) for rr in response.rr) == ["10.66.9.1", "10.66.9.2"]
        assert {rr.ttl for rr in response.rr} == {30}


async def test_routes_lead_to_different_servers(tmp_path: Path) -> None:
    async with upstream("dnsmasq", tmp_path) as one, upstream("nsd", tmp_path) as other:
        routed = settings(one, routes=(Route("example", (other,)),))
        async with running(routed) as rig:
            assert await values(rig, "two.example") == ["10.66.9.1", "10.66.9.2"]
            assert await values(rig, "xexample") == []
            for server in (one, other):
                tried = rig.count(
                    "discod_dns_forwards_total",
                    upstream=f"127.0.0.1:{server.port}",
                    result="ok" if server == other else "refused",
                )
                assert tried == 1


async def test_a_zone_signed_or_not_passes_as_it_is(tmp_path: Path) -> None:
    """DO goes on, and the answers with and without it are kept apart."""
    async with upstream("bind", tmp_path) as at, running(settings(at)) as rig:
        for do in (False, True, False, True):
            response = await rig.ask(packet("one.example", size=1232, do=do))
            (opt,) = (rr for rr in response.ar if rr.rtype == 41)
            assert bool(opt.edns_do) == do and response.rr
        assert rig.looks() == {"miss": 2, "hit": 2}


@pytest.mark.parametrize(
    ("name", "to", "most"), [("dnsmasq", dnsmasq_to, 5), ("unbound", unbound_to, 100)]
)
async def test_a_name_server_that_asks_us_what_we_ask_it(
    name: str, to: Callable[[int], Start], most: int, tmp_path: Path
) -> None:
    """dnsmasq gives us away at once: the mark, or the random case, comes back. Unbound makes a new
    question: it waits for us, and we for it, until the time limit, and nothing multiplies."""
    front = Front()
    async with trio.open_nursery() as nursery:
        at = await nursery.start(front.run)
        async with (
            upstream(name, tmp_path, to(at.port)) as other,
            running(DnsSettings(upstreams=(other,), forward_timeout=2.0)) as rig,
        ):
            front.rig = rig
            start = trio.current_time()
            with trio.fail_after(10):
                response = await rig.ask(packet("www.some-long-name.example", size=1232))
            assert response.header.rcode == 2
            if name == "dnsmasq":
                assert trio.current_time() - start < 1.9
                assert 0 in errors(response) or rig.tries() == {"refused": 1}
            assert 1 <= front.asked <= most
        nursery.cancel_scope.cancel()

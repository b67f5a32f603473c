"""What real clients make of discod: C libraries, systemd-resolved, and the tools people use.

Every program that looks names up through its C library does what `getent` and the two programs made
from getaddrinfo.c do here; `resolv.conf` and `nsswitch.conf` are their own.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.lab import netns
from tests.lab.daemon import Config, until
from tests.lab.place import DOMAIN as D
from tests.lab.place import Place

pytestmark = pytest.mark.lab

WEB = ["10.101.1.2", "10.101.2.2"]
DUAL = ["10.101.1.3", "2001:db8:1::3"]
BIG = [str(ip_address("10.200.0.0") + i) for i in range(1, 201)]


def service(name: str, addresses: list[str], more: str = "") -> str:
    listed = ", ".join(f'"{address}"' for address in addresses)
    return f'[[service]]\nname = "{name}"\nport = 80\naddress = [{listed}]\n{more}\n'


OTHERS = (
    service("dual", DUAL)
    + service("six", ["2001:db8:1::6"])
    + service("big", BIG)
    + service("blue.web".replace(".", "-"), ["10.101.9.9"])
)
NAMED = 'port_name = "http"\ntags = ["blue"]'


def services(web: list[str] = WEB) -> str:
    return service("web", web, NAMED) + OTHERS


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """discod with some static services, and an upstream that knows no name at all."""
    config: Config = {
        "dns": {"server_id": "alpha-1", "forward": True, "upstreams": ["127.0.0.1:5300"]}
    }
    with Place("y", config, services()) as made:
        upstream = subprocess.Popen(
            [
                *made.space.prefix, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
                "--pid-file=", "--user=root", "--listen-address=127.0.0.1", "--bind-interfaces",
                "--port=5300", "--no-resolv", "--no-hosts", "--address=/#/",
            ],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: len(dig(made, f"big.{D}", "A", "+tcp")) == 200, what="all services")
            until(lambda: asked(made, "127.0.0.1", "com")[0] == "NXDOMAIN", what="the upstream")
            yield made
        finally:
            upstream.terminate()
            upstream.wait(10)


@pytest.fixture
def others(place: Place) -> Iterator[Callable[[list[str]], None]]:
    """Changes who is behind ``web``; afterwards all are as they were."""

    def change(web: list[str]) -> None:
        place.discod.tail = services(web)
        place.discod.write()
        place.discod.reload()
        until(lambda: dig(place, f"web.{D}") == web, what=f"web = {web}")

    yield change
    change(WEB)


def dig(place: Place, name: str, qtype: str = "A", *options: str) -> list[str]:
    out = place.run("dig", "@127.0.0.1", "+short", "+tries=1", "+time=2", name, qtype, *options)
    return sorted(line for line in out.stdout.splitlines() if not line.startswith(";"))


# C libraries ----------------------------------------------------------------------------------

NSSWITCH = "hosts: dns\n"
SOURCE = Path(__file__).with_name("getaddrinfo.c")
ASK = (
    "import socket, sys\n"
    "try: found = socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)\n"
    "except socket.gaierror as error:\n"
    "    sys.exit(2 if error.errno == socket.EAI_NONAME else 3)\n"
    "print(*dict.fromkeys(f[4][0] for f in found), sep='\\n')\n"
)

Stub = Callable[..., tuple[int, list[str]]]
"""(name, options=, search=, server=) -> status (2: no such name) and addresses, sorted."""


@pytest.fixture(scope="module")
def compiled(place: Place) -> dict[str, str]:
    """getaddrinfo.c for each C library: its name -> the program."""
    made = {}
    for name, compiler in (("glibc", "gcc"), ("musl", "musl-gcc")):
        program = place.root / name
        static = ["-static"] if name == "musl" else []
        command = [compiler, "-Wall", "-Wextra", "-Werror", "-O1", *static, "-o", str(program)]
        subprocess.run([*command, str(SOURCE)], check=True, timeout=60)
        made[name] = str(program)
    return made


@pytest.fixture(params=["glibc", "musl", "getent", "python"])
def stub(place: Place, compiled: dict[str, str], request: pytest.FixtureRequest) -> Stub:
    """Each way of looking a name up."""
    kind = request.param
    commands = {
        "getent": ["getent", "ahosts"],
        "python": [sys.executable, "-c", ASK],
        **{library: [program] for library, program in compiled.items()},
    }

    def ask(
        name: str, options: str = "", search: str = "", server: str = "127.0.0.1"
    ) -> tuple[int, list[str]]:
        lines = [f"nameserver {server}", "options timeout:2 attempts:1 " + options]
        lines += [f"search {search}"] if search else []
        done = place.run(
            *commands[kind],
            name,
            files={"/etc/resolv.conf": "\n".join(lines) + "\n", "/etc/nsswitch.conf": NSSWITCH},
            check=False,
        )
        assert done.returncode in (0, 2, 3), done.stderr
        found = {line.split()[0] for line in done.stdout.splitlines()}
        return done.returncode, sorted(found)

    ask.__name__ = kind
    return ask


def test_addresses_of_both_families(stub: Stub) -> None:
    assert stub(f"dual.{D}") == (0, DUAL)


def test_one_family_is_enough(stub: Stub) -> None:
    """The other family is NODATA, and NODATA is no failure: NXDOMAIN would be one."""
    assert stub(f"web.{D}") == (0, WEB)
    assert stub(f"six.{D}") == (0, ["2001:db8:1::6"])


def test_a_name_that_is_not_there(stub: Stub) -> None:
    assert stub(f"nope.{D}") == (2, [])
    assert stub(f"a.b.c.web.{D}") == (2, [])


def test_case_is_of_no_account(stub: Stub) -> None:
    assert stub(f"WeB.{D.upper()}") == (0, WEB)


def test_a_search_domain(stub: Stub) -> None:
    assert stub("web", search=D) == (0, WEB)
    assert stub("web", search=f"nope.{D} {D}") == (0, WEB)
    assert stub("nope", search=D) == (2, [])


def test_many_dots_before_a_search_domain(stub: Stub) -> None:
    """``blue.web`` has a dot: asked as it is first, unless ndots says otherwise."""
    assert stub("blue.web", search=D, options="ndots:2") == (0, WEB)
    assert stub(f"web.{D}.", search=D, options="ndots:5") == (0, WEB)
    assert stub(f"web.{D}", search=D, options="ndots:5") == (0, WEB)


def test_a_name_server_on_ipv6(stub: Stub) -> None:
    assert stub(f"web.{D}", server="::1") == (0, WEB)


@pytest.mark.parametrize(
    "options", ["edns0", "use-vc", "single-request", "single-request-reopen", "rotate", "trust-ad"]
)
def test_options_of_resolv_conf(stub: Stub, options: str) -> None:
    assert stub(f"dual.{D}", options=options) == (0, DUAL)


@pytest.mark.parametrize("options", ["", "edns0"])
def test_two_hundred_addresses(stub: Stub, options: str) -> None:
    """They fit no UDP answer: TC leads to TCP."""
    status, found = stub(f"big.{D}", options=options)
    assert status == 0
    if stub.__name__ == "musl":
        # Before 1.2.4 musl knows no TCP and takes what came, which is why we send what fits.
        assert 20 <= len(found) <= 200
        assert set(found) <= set(BIG)
    else:
        assert found == sorted(BIG)


def test_the_next_look_up_is_new(stub: Stub, others: Callable[[list[str]], None]) -> None:
    """An endpoint that left is never seen again, and one that came is seen at once."""
    assert stub(f"web.{D}") == (0, WEB)
    others(WEB[1:])
    assert stub(f"web.{D}") == (0, WEB[1:])
    others(["10.101.7.7"])
    assert stub(f"web.{D}") == (0, ["10.101.7.7"])


def test_reverse_by_the_c_library(place: Place) -> None:
    files = {"/etc/resolv.conf": "nameserver 127.0.0.1\n", "/etc/nsswitch.conf": NSSWITCH}
    out = place.run("getent", "hosts", "192.0.2.1", files=files).stdout
    assert out.split() == ["192.0.2.1", f"alpha.node.{D}"]


# systemd-resolved -----------------------------------------------------------------------------

RESOLVED = tuple(
    path
    for path in map(
        Path,
        (
            "/usr/local/lib/discod-lab/systemd-resolved/lib/systemd/systemd-resolved",
            "/lib/systemd/systemd-resolved",
        ),
    )
    if path.exists()
)
"""scripts/system-packages unpacks it there: installed, it takes over the machine's resolv.conf."""
SNIPPET = Path(__file__).parents[2] / "deploy/resolved-discod.conf"
ACCOUNT = "systemd-resolve:x:996:{}systemd Resolver:/:/usr/sbin/nologin\n"


@pytest.fixture(scope="module")
def resolved(place: Place) -> Iterator[str]:
    """The address of a systemd-resolved with the configuration of deploy/, but for the port."""
    assert RESOLVED, "run scripts/system-packages"
    folder = place.root / "etc-systemd"
    (folder / "resolved.conf.d").mkdir(parents=True)
    text = SNIPPET.read_text()
    assert "127.0.0.1:5354" in text
    text = text.replace("127.0.0.1:5354", "127.0.0.1:53")
    (folder / "resolved.conf.d/discod.conf").write_text(text)
    # No network beyond: and none of the protocols that would look for one.
    (folder / "resolved.conf").write_text("[Resolve]\nLLMNR=no\nMulticastDNS=no\nFallbackDNS=\n")
    accounts = {}
    for path, field in (("/etc/passwd", "996:"), ("/etc/group", "")):
        present = Path(path).read_text()
        line = ACCOUNT.format(field) if field else "systemd-resolve:x:996:\n"
        accounts[path] = present if "systemd-resolve:" in present else present + line
    script = (
        f"mount --bind {folder} /etc/systemd; mkdir -p /run/systemd; "
        f"mount -t tmpfs none /run/systemd; exec {RESOLVED[0]}"
    )
    log = (place.root / "resolved.log").open("wb")
    process = subprocess.Popen(
        [*place.space.prefix, *place.seeing(accounts, ["sh", "-euc", script])],
        stdout=log,
        stderr=log,
    )
    try:
        until(lambda: asked(place, "127.0.0.53", f"web.{D}")[1] == WEB, what="resolved")
        yield "127.0.0.53"
    except BaseException:  # told, then raised on
        print((place.root / "resolved.log").read_text()[-3000:])
        raise
    finally:
        process.terminate()
        process.wait(10)
        log.close()


def asked(place: Place, server: str, name: str, qtype: str = "A") -> tuple[str, list[str]]:
    done = place.run(
        "dig", f"@{server}", "+tries=1", "+time=2", "+nocomments", "+comments", name, qtype,
        check=False,
    )  # fmt: skip
    status = re.search(r"status: (\w+)", done.stdout)
    lines = [line.split(None, 4) for line in done.stdout.splitlines() if line and line[0] != ";"]
    found = [words[4] for words in lines if words[3] == qtype]
    assert all(words[1] == "0" for words in lines if words[3] == qtype), "a TTL"
    return status[1] if status else "", sorted(found)


def test_resolved_answers_for_our_domain(place: Place, resolved: str) -> None:
    assert asked(place, resolved, f"web.{D}") == ("NOERROR", WEB)
    assert asked(place, resolved, f"dual.{D}", "AAAA") == ("NOERROR", DUAL[1:])
    assert asked(place, resolved, f"web.{D}", "AAAA") == ("NOERROR", [])
    assert asked(place, resolved, f"nope.{D}") == ("NXDOMAIN", [])
    status, found = asked(place, resolved, f"_http._tcp.web.{D}", "SRV")
    assert status == "NOERROR" and len(found) == 2
    assert asked(place, resolved, f"big.{D}") == ("NOERROR", sorted(BIG))


def test_resolved_keeps_nothing(
    place: Place, resolved: str, others: Callable[[list[str]], None]
) -> None:
    assert asked(place, resolved, f"web.{D}")[1] == WEB
    assert asked(place, resolved, f"late-service.{D}")[0] == "NXDOMAIN"
    others(WEB[:1])
    assert asked(place, resolved, f"web.{D}")[1] == WEB[:1]


def test_the_c_library_by_way_of_resolved(stub: Stub, resolved: str) -> None:
    assert stub("dual", search=D, server=resolved) == (0, DUAL)
    assert stub(f"web.{D}", server=resolved) == (0, WEB)
    assert stub(f"nope.{D}", server=resolved) == (2, [])


# Tools ----------------------------------------------------------------------------------------

CLIENTS = {
    "dig": ["dig", "@127.0.0.1", "+tries=1", "+time=2"],
    "kdig": ["kdig", "@127.0.0.1", "+retry=0", "+time=2"],
}


@pytest.mark.parametrize("tool", sorted(CLIENTS))
@pytest.mark.parametrize(
    "options",
    [
        [], ["+tcp"], ["+cookie"], ["+nsid"], ["+bufsize=4096"], ["+bufsize=512"], ["+dnssec"],
        ["+noedns"], ["+cdflag"], ["+adflag"], ["+norecurse"], ["+padding=64"],
        ["+tcp", "+keepopen"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_change_nothing_in_the_answer(place: Place, tool: str, options: list[str]) -> None:
    if tool == "kdig" and "+padding=64" in options:
        options = ["+padding=64", "+edns"]
    for qtype, count in (("A", 2), ("SRV", 2), ("AAAA", 0)):
        out = place.run(*CLIENTS[tool], *options, f"web.{D}", qtype).stdout
        assert "status: NOERROR" in out and f"ANSWER: {count}" in out, out
        assert "Warning" not in out and "WARNING" not in out, out


def test_cookies_and_nsid(place: Place) -> None:
    out = place.run("dig", "@127.0.0.1", "+nsid", "+cookie=0123456789abcdef", f"web.{D}").stdout
    assert re.search(r"COOKIE: 0123456789abcdef[0-9a-f]{32} \(good\)", out), out
    assert '("alpha-1")' in out, out
    out = place.run("kdig", "@127.0.0.1", "+nsid", "+cookie", f"web.{D}").stdout
    assert "alpha-1" in out and "COOKIE" in out, out


def test_dig_with_a_server_cookie_comes_back(place: Place) -> None:
    first = place.run("dig", "@127.0.0.1", "+cookie", f"web.{D}").stdout
    cookie = re.search(r"COOKIE: ([0-9a-f]{48})", first)
    assert cookie, first
    again = place.run("dig", "@127.0.0.1", f"+cookie={cookie[1]}", f"web.{D}").stdout
    assert "status: NOERROR" in again and "(good)" in again, again


def test_delv(place: Place) -> None:
    """It validates; our zone is unsigned, and says so without a fault."""
    out = place.run("delv", "@127.0.0.1", "+noroot", f"web.{D}", "A").stdout
    assert {line.split()[-1] for line in out.splitlines() if line[0] != ";"} == set(WEB)
    assert "unsigned" in out or "authoritative" in out, out
    done = place.run("delv", "@127.0.0.1", "+noroot", f"nope.{D}", "A", check=False)
    assert "ncache nxdomain" in done.stdout + done.stderr
    done = place.run("delv", "@127.0.0.1", "+noroot", f"web.{D}", "AAAA", check=False)
    assert "ncache nxrrset" in done.stdout + done.stderr


def test_host_and_nslookup(place: Place) -> None:
    out = place.run("host", f"dual.{D}", "127.0.0.1").stdout
    assert f"dual.{D} has address {DUAL[0]}" in out
    assert f"dual.{D} has IPv6 address {DUAL[1]}" in out
    out = place.run("host", "192.0.2.1", "127.0.0.1").stdout
    assert f"domain name pointer alpha.node.{D}." in out
    done = place.run("host", f"nope.{D}", "127.0.0.1", check=False)
    assert done.returncode == 1 and "not found: 3(NXDOMAIN)" in done.stdout
    out = place.run("nslookup", f"dual.{D}", "127.0.0.1").stdout
    assert {line.split()[1] for line in out.splitlines() if line.startswith("Address: ")} == {*DUAL}


def test_busybox_nslookup(place: Place) -> None:
    """What is in most small images."""
    out = place.run("busybox", "nslookup", f"dual.{D}", "127.0.0.1").stdout
    assert all(address in out for address in DUAL), out
    done = place.run("busybox", "nslookup", f"nope.{D}", "127.0.0.1", check=False)
    assert done.returncode != 0 and "NXDOMAIN" in done.stdout, done.stdout


def test_dnsperf_loses_nothing(place: Place) -> None:
    names = [f"web.{D} A", f"dual.{D} AAAA", f"web.{D} AAAA", f"_http._tcp.web.{D} SRV", f"x.{D} A"]
    file = place.root / "queries"
    file.write_text("\n".join(names) + "\n")
    done = place.run(
        "dnsperf", "-s", "127.0.0.1", "-d", str(file), "-n", "400", "-l", "10", "-q", "50", "-e",
    )  # fmt: skip
    assert re.search(r"Queries sent: +2000\n", done.stdout), done.stdout
    assert re.search(r"Queries lost: +0 ", done.stdout), done.stdout
    assert re.search(r"NOERROR 1600 \(80.00%\), NXDOMAIN 400 \(20.00%\)", done.stdout), done.stdout
    done = place.run(
        "dnsperf", "-s", "127.0.0.1", "-d", str(file), "-n", "100", "-l", "10", "-m", "tcp",
    )  # fmt: skip
    assert re.search(r"Queries lost: +0 ", done.stdout), done.stdout


# TLS ------------------------------------------------------------------------------------------


def test_kdig_over_tls(tmp_path: Path) -> None:
    """RFC 7858, with a certificate that the client checks."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=alpha", "-addext",
            f"subjectAltName=DNS:alpha.{D}", "-keyout", key, "-out", cert,
        ],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    config = {"dns": {"tls_listen": ["127.0.0.1:853"], "tls_cert": str(cert), "tls_key": str(key)}}
    with Place("x", config, services()) as made:
        ask = ["kdig", "@127.0.0.1", "+tls", f"+tls-ca={cert}", f"+tls-hostname=alpha.{D}"]
        out = until(
            lambda: made.run(*ask, "+short", f"web.{D}", check=False).stdout, what="DNS over TLS"
        )
        assert sorted(out.split()) == WEB
        out = made.run(*ask, f"big.{D}").stdout
        assert "TLS1.3" in out.replace("-", "").replace("(", "").upper() and "ANSWER: 200" in out
        wrong = [*ask[:-1], "+tls-hostname=beta.example", "+retry=0", f"web.{D}"]
        assert made.run(*wrong, check=False).returncode != 0
        out = made.run("dig", "@127.0.0.1", "+tls", "+short", f"web.{D}").stdout
        assert sorted(out.split()) == WEB


# A client of its own making -------------------------------------------------------------------


def test_a_thousand_look_ups_each_from_a_new_port(place: Place) -> None:
    """As short-lived programs do it: one socket a question."""
    question = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0)
    question += b"".join(bytes((len(x),)) + x.encode() for x in f"web.{D}".split("."))
    question += b"\0\0\1\0\1"

    def ask() -> int:
        seen = set()
        for _ in range(1000):
            with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
                sock.settimeout(5)
                sock.connect(("192.0.2.1", 53))
                sock.send(question)
                answer = sock.recv(512)
                assert answer[:2] == question[:2] and answer[7] == 2
                seen.add(answer[-20:-16])  # the first of two addresses in records of 16 octets
        return len(seen)

    # The order is another one each time, so both addresses come first in their turn.
    assert netns.inside(place.space.path, ask) == 2

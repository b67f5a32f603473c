"""The native speaker with BIRD 2 and GoBGP, over real TCP."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab import netns
from tests.lab.bgp_speaker.hosts import (
    OURS,
    PEER4,
    PEER6,
    PEER_ASN,
    THEIRS,
    US4,
    US6,
    Pair,
    bgp,
    until,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(shutil.which("bird") is None, reason="apt-get install bird2"),
]
SECRET = "correct horse"
RESTART_MOST = 30.0
"""Seconds until a session is there again."""
STRANGER = """
import socket
try:
    print(socket.create_connection(("192.0.2.1", 179), 5, ("192.0.2.78", 0)).recv(1))
except ConnectionResetError:
    print("reset")
"""


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


def peer(address: str = PEER4, **more: Any) -> dict[str, Any]:
    return {"address": address, "asn": PEER_ASN, **more}


def test_routes_of_both_families_over_ipv4(pair: Pair) -> None:
    bird = pair.bird(bgp())
    native = pair.native(peer())
    until(lambda: bird.routes() == set(OURS), "our routes at BIRD")
    until(lambda: native.learned.keys() == set(THEIRS), "BIRD's routes here")
    assert native.learned == {THEIRS[0]: [PEER4], THEIRS[1]: [PEER6]}
    assert f"via {US4}" in bird.ask("show", "route", OURS[0])
    assert f"via {US6}" in bird.ask("show", "route", OURS[1])
    until(lambda: native.status["settled"], "End-of-RIB of BIRD")
    native.do(want=OURS[:1])
    until(lambda: bird.routes() == set(OURS[:1]), "withdrawn at BIRD")
    bird.ask("disable", "static2")
    until(lambda: native.learned.keys() == {THEIRS[0]}, "withdrawn here")
    assert native.peer()["established"] == 1


def test_a_session_over_ipv6(pair: Pair) -> None:
    bird = pair.bird(bgp(address=US6))
    native = pair.native(peer(PEER6))
    until(lambda: bird.routes() == set(OURS), "our routes at BIRD")
    until(lambda: native.learned.get(THEIRS[1]) == [PEER6], "BIRD's route here")
    assert f"via {US6}" in bird.ask("show", "route", OURS[1])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("passive", [False, True])
def test_tcp_md5(pair: Pair, version: int, passive: bool) -> None:
    """Both as the one that connects and as the one that listens."""
    path = pair.folder / "secret"
    path.write_text(f"{SECRET}\n")
    ours, theirs = (US4, PEER4) if version == 4 else (US6, PEER6)
    bird = pair.bird(
        bgp(f'password "{SECRET}"; passive {"off" if passive else "on"};', address=ours)
    )
    native = pair.native(peer(theirs, password_file=str(path), passive=passive))
    until(lambda: bird.up() and native.up(theirs), "a session with the same password")


@pytest.mark.parametrize("passive", [False, True])
def test_a_wrong_md5_password_is_no_session(pair: Pair, passive: bool) -> None:
    path = pair.folder / "secret"
    path.write_text("wrong")
    bird = pair.bird(bgp(f'password "{SECRET}"; passive {"off" if passive else "on"};'))
    native = pair.native(peer(password_file=str(path), passive=passive))
    time.sleep(3 if passive else 6)  # an attempt of ours takes 4.5 s to fail
    assert not native.up() and not bird.up()
    if not passive:
        assert native.peer()["last_error"] == "connection timed out"


def test_gtsm(pair: Pair) -> None:
    bird = pair.bird(bgp("ttl security on;"))
    native = pair.native(peer(gtsm=1))
    until(lambda: bird.up() and native.up(), "a session with GTSM on both sides")


@pytest.mark.parametrize("ours", [False, True])
def test_gtsm_on_one_side_only_is_no_session(pair: Pair, ours: bool) -> None:
    """What is sent with another TTL than 255 is not taken (RFC 5082)."""
    bird = pair.bird(bgp("" if ours else "ttl security on;"))
    native = pair.native(peer(gtsm=1) if ours else peer())
    # The other side may take itself for established until its hold time is over.
    protected = native.up if ours else bird.up
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert not protected()
        time.sleep(0.1)


def test_passive_and_strangers(pair: Pair) -> None:
    bird = pair.bird(bgp())
    native = pair.native(peer(passive=True))
    until(lambda: native.up() and bird.routes() == set(OURS), "a session that BIRD began")
    pair.peer.space.ip("addr add 192.0.2.78/24 dev eth0")
    out = pair.peer.space.sh("python3", "-c", STRANGER)
    assert out.strip() in ("reset", "b''")
    assert native.status["strangers"] == 1
    assert native.up()


def test_a_frozen_peer_is_noticed_by_its_hold_time(pair: Pair) -> None:
    bird = pair.bird(bgp())
    native = pair.native(peer(hold_time=3))
    until(lambda: native.learned.keys() == set(THEIRS), "BIRD's routes here")
    bird.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: not native.up(), "the end of the session", 10)
    assert 1.5 < time.monotonic() - began < 6
    assert native.peer()["last_error"].startswith("sent Hold Timer Expired")
    assert native.learned == {}
    bird.process.send_signal(signal.SIGCONT)
    until(lambda: native.learned.keys() == set(THEIRS), "BIRD's routes again")


@pytest.mark.parametrize("on", [True, False])
def test_kill_and_restart(pair: Pair, on: bool) -> None:
    """With graceful restart BIRD never loses a route; without, it does."""
    bird = pair.bird(bgp("graceful restart on;"))
    raw = peer(graceful_restart=on)
    native = pair.native(raw)
    until(lambda: bird.routes() == set(OURS), "our routes at BIRD")
    native.process.kill()
    native.process.wait(10)
    lost = 0
    end = time.monotonic() + 2
    while time.monotonic() < end:
        lost += bird.routes() != set(OURS)
        time.sleep(0.05)
    after = pair.native(raw)
    while not after.up():
        lost += bird.routes() != set(OURS)
        assert time.monotonic() < end + RESTART_MOST, "no session again"
        time.sleep(0.05)
    for _ in range(20):
        lost += on and bird.routes() != set(OURS)
        time.sleep(0.05)
    assert (lost == 0) is on, f"{lost} looks without all routes"
    until(lambda: bird.routes() == set(OURS), "our routes at BIRD")


def test_bird_restarts_gracefully(pair: Pair) -> None:
    """Its routes are kept here over kill -9, and swept when it is back without one of them."""
    bird = pair.bird(bgp("graceful restart on;"))
    native = pair.native(peer())
    until(lambda: native.learned.keys() == set(THEIRS), "BIRD's routes here")
    bird.process.kill()
    until(lambda: native.peer()["retained"], "BIRD's end")
    assert native.learned.keys() == set(THEIRS)
    bird.control.unlink()
    third = "protocol static { ipv4; route 10.200.0.3/32 blackhole; }\n"
    again = pair.bird(bgp("graceful restart on;"), third)
    until(lambda: native.up(), "BIRD again")
    until(lambda: len(native.learned) == 3, "its new route")
    assert again.up()


def test_max_prefixes(pair: Pair) -> None:
    bird = pair.bird(
        bgp(), "protocol static more { ipv4; disabled; route 10.200.0.3/32 blackhole; }\n"
    )
    native = pair.native(peer(max_prefixes=1))
    until(lambda: len(native.learned) == 2, "one prefix a family")
    bird.ask("enable", "more")
    until(lambda: not native.up(), "the end of the session")
    error = native.peer()["last_error"]
    assert error.startswith("sent Cease/Maximum Number of Prefixes Reached")
    assert native.learned == {} and native.peer()["state"] == "Idle"
    until(
        lambda: (
            "Maximum number of prefixes" in bird.ask("show", "protocols", "all", "discod")
            or "prefix" in pair.log
        ),
        "BIRD knows why",
    )


def test_shutdown_communication(pair: Pair) -> None:
    bird = pair.bird(bgp("graceful restart on;"))
    native = pair.native(peer())
    until(lambda: bird.routes() == set(OURS), "our routes at BIRD")
    began = time.monotonic()
    native.do(shutdown="rack 7 moves")
    assert time.monotonic() - began < 5
    until(lambda: bird.routes() == set(), "withdrawn")
    until(lambda: "rack 7 moves" in pair.log, "BIRD's log has it")


def test_a_shutdown_of_the_peer_is_named(pair: Pair) -> None:
    bird = pair.bird(bgp())
    native = pair.native(peer())
    until(native.up, "a session")
    bird.ask("disable", "discod", '"maintenance until noon"')
    until(lambda: not native.up(), "its end")
    assert "received Cease/Administrative Shutdown" in native.peer()["last_error"]
    assert "maintenance until noon" in native.peer()["last_error"]
    assert "maintenance until noon" in pair.log  # ours is in the same file


def test_one_route_and_ten_thousand(pair: Pair) -> None:
    """Orders of magnitude; the benchmark measures."""
    bird = pair.bird(bgp())
    native = pair.native(peer())
    until(lambda: bird.routes() == set(OURS), "our routes at BIRD")
    many = [f"10.101.{n >> 8}.{n & 255}/32" for n in range(10_000)]
    began = time.monotonic()
    native.do(want=many)

    def count() -> int:
        line = bird.ask("show", "route", "protocol", "discod", "count").splitlines()[1]
        return int(line.split()[0])

    until(lambda: count() == 10_000, "10,000 routes")
    print(f"10,000 routes in {time.monotonic() - began:.2f} s")
    native.do(want=[])
    until(lambda: count() == 0, "all withdrawn")
    print(f"and gone {time.monotonic() - began:.2f} s")
    assert native.peer()["established"] == 1


@pytest.mark.skipif(shutil.which("gobgpd") is None, reason="apt-get install gobgpd")
def test_gobgp(pair: Pair) -> None:
    families = "".join(
        f'[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = "{name}"\n'
        for name in ("ipv4-unicast", "ipv6-unicast")
    )
    config = pair.folder / "gobgp.toml"
    config.write_text(
        f'[global.config]\nas = {PEER_ASN}\nrouter-id = "{PEER4}"\n[[neighbors]]\n'
        f'[neighbors.config]\nneighbor-address = "{US4}"\npeer-as = 64512\n'
        f'auth-password = "{SECRET}"\n'
        "[neighbors.transport.config]\npassive-mode = true\n" + families
    )
    secret = pair.folder / "secret"
    secret.write_text(SECRET)
    pair.start(pair.peer, "gobgpd", "-f", str(config), "--pprof-disable")
    native = pair.native(peer(password_file=str(secret)))
    until(native.up, "a session with GoBGP")

    def gobgp(*words: str) -> str:
        return netns.sh("nsenter", f"--net={pair.peer.space.path}", "gobgp", *words)

    until(lambda: "10.101.1.7/32" in gobgp("global", "rib"), "our route at GoBGP")
    until(lambda: "2001:db8:1::7/128" in gobgp("global", "rib", "-a", "ipv6"), "and IPv6")
    gobgp("global", "rib", "add", "10.200.0.1/32", "nexthop", PEER4)
    until(lambda: native.learned == {"10.200.0.1/32": [PEER4]}, "its route here")
    gobgp("global", "rib", "del", "10.200.0.1/32")
    until(lambda: native.learned == {}, "withdrawn")

"""What the forwarder does over time: retries, health, the cache, what is stale, limits."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from discod.model.settings import DnsSettings, ListenAddress, Route
from resolver.forwarding import forwarder
from resolver.forwarding.forwarder import Forwarder
from resolver.forwarding.pool import OwnUpstreamError
from tests.forwarding import (
    OTHER,
    THIRD,
    UP,
    Net,
    Rig,
    Said,
    negative,
    options,
    read,
    reply,
    running,
    with_options,
)
from tests.resolving import errors, packet

QUERY = packet("www.example", size=1232)
ONE = DnsSettings(upstreams=(UP,), randomize_case=False)
TWO = replace(ONE, upstreams=(UP, OTHER))


def good(query: Any, _: str) -> bytes:
    return reply(query)


def silent(query: Any, _: str) -> None:
    return None


def servfail(query: Any, _: str) -> bytes:
    return reply(query, 0, 2)


# Tries ----------------------------------------------------------------------------------------


async def test_a_single_upstream_is_asked_twice(autojump_clock: MockClock) -> None:
    answers: list[bool] = [False, True]
    net = Net({UP: lambda q, _: reply(q) if answers.pop(0) else None})
    async with running(ONE, net) as rig:
        assert (await rig.ask(QUERY)).rr
    assert rig.tries() == {"timeout": 1, "ok": 1}


async def test_nobody_answers_within_twice_the_timeout(autojump_clock: MockClock) -> None:
    net = Net({UP: silent, OTHER: silent, THIRD: silent})
    async with running(replace(TWO, upstreams=(UP, OTHER, THIRD)), net) as rig:
        start = trio.current_time()
        response = await rig.ask(QUERY)
        assert trio.current_time() - start == pytest.approx(4.0)
    assert (response.header.rcode, response.header.ra) == (2, 1)
    assert errors(response) == [22]
    assert net.asked(UP) == net.asked(OTHER) == 1 and net.asked(THIRD) == 0


async def test_a_slow_truncated_reply_and_a_silent_tcp_stay_within_the_time(
    autojump_clock: MockClock,
) -> None:
    def script(query: Any, transport: str) -> Said:
        return (1.5, reply(query, 2, tc=1)) if transport == "udp" else None

    async with running(ONE, Net({UP: script})) as rig:
        start = trio.current_time()
        response = await rig.ask(QUERY)
        assert trio.current_time() - start == pytest.approx(2.0, abs=0.01)
    assert (response.header.tc, len(response.rr)) == (1, 2)


async def test_a_forwarder_that_does_not_run(autojump_clock: MockClock) -> None:
    async with running(ONE, Net({UP: good})) as rig:
        assert (await rig.ask(QUERY)).rr
    assert (await rig.ask(QUERY)).rr  # kept
    assert errors(await rig.ask(packet("b.example", size=1232))) == [23]


async def test_no_upstream_at_all(autojump_clock: MockClock, tmp_path: Path) -> None:
    settings = replace(ONE, upstreams=(), resolv_conf=str(tmp_path / "none"))
    async with running(settings, Net({})) as rig:
        response = await rig.ask(QUERY)
        assert (response.header.rcode, errors(response)) == (2, [22])
        assert not (await rig.ask(packet("example.com"), 512)).ar  # no EDNS, no reason


@pytest.mark.parametrize("rcode", [2, 4, 5])
async def test_another_upstream_may_know_better(autojump_clock: MockClock, rcode: int) -> None:
    net = Net({UP: lambda q, _: reply(q, 0, rcode, ra=1), OTHER: good})
    async with running(TWO, net) as rig:
        assert (await rig.ask(QUERY)).header.rcode == 0
    # A NOTIMP without EDNS may be about EDNS: one more question settles that.
    assert net.asked(UP) == (2 if rcode == 4 else 1)
    async with running(ONE, net) as rig:
        assert (await rig.ask(QUERY)).header.rcode == rcode
        assert rig.tries() == {"refused": 1}


async def test_nxdomain_is_an_answer(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: reply(q, 0, 3), OTHER: good})
    async with running(TWO, net) as rig:
        assert (await rig.ask(QUERY)).header.rcode == 3
    assert not net.asked(OTHER)


async def test_the_next_upstream_is_asked_when_the_first_is_silent(
    autojump_clock: MockClock,
) -> None:
    net = Net({UP: silent, OTHER: good})
    async with running(TWO, net) as rig:
        assert (await rig.ask(QUERY)).rr
        assert rig.tries() == {"timeout": 1, "ok": 1}
        assert (await rig.ask(packet("b.example"))).rr
        assert (net.asked(UP), net.asked(OTHER)) == (1, 2)


@pytest.mark.parametrize("lie", ["id", "question", "short", "query", "garbage", "opcode", "none"])
async def test_false_replies_are_passed_over(autojump_clock: MockClock, lie: str) -> None:
    def script(query: Any, _: str) -> bytes:
        sound = reply(query, 3)
        match lie:
            case "id":
                return bytes((sound[0] ^ 1,)) + sound[1:]
            case "question":
                return sound.replace(b"\x07example", b"\x07exbmple")
            case "short":
                return sound[:11]
            case "query":
                return bytes(query.pack())
            case "opcode":
                return sound[:2] + bytes((sound[2] | 0x28,)) + sound[3:]
            case "none":
                return sound[:4] + b"\0\0" + sound[6:]
        return b"\xff" * 64

    async with running(TWO, Net({UP: script, OTHER: good})) as rig:
        assert len((await rig.ask(QUERY)).rr) == 1
        assert rig.tries() == {"timeout": 1, "ok": 1}


async def test_an_unreadable_reply_counts_as_malformed(autojump_clock: MockClock) -> None:
    async with running(TWO, Net({UP: lambda q, _: reply(q)[:-2], OTHER: good})) as rig:
        assert (await rig.ask(QUERY)).rr
        assert rig.tries() == {"malformed": 1, "ok": 1}


# Health ---------------------------------------------------------------------------------------


async def test_an_upstream_that_is_down_is_probed_and_taken_back(
    autojump_clock: MockClock,
) -> None:
    net = Net({UP: silent, OTHER: good})
    async with running(replace(TWO, cache_size=0), net) as rig:
        for _ in range(5):
            assert (await rig.ask(QUERY)).rr
        assert (net.asked(UP), net.asked(OTHER)) == (1, 5)  # one client waited, once
        await trio.sleep(120)
        probes = sum(s == UP and q.q.qname == "." for s, _, q in net.seen)
        assert 5 <= probes <= 12  # they become rare
        net.scripts[UP] = good
        await trio.sleep(35)
        assert (await rig.ask(QUERY)).rr
        assert net.asked(UP) == 2
        before = len(net.seen)
        await trio.sleep(300)
        assert len(net.seen) == before  # and they end


async def test_one_slow_name_does_not_put_an_upstream_down(autojump_clock: MockClock) -> None:
    def script(query: Any, _: str) -> Said:
        return None if "slow" in str(query.q.qname) else (0.01, reply(query))

    net = Net({UP: script, OTHER: good})
    async with running(replace(TWO, cache_size=0), net) as rig, trio.open_nursery() as nursery:
        nursery.start_soon(rig.ask, packet("slow.example"))
        for n in range(30):
            await trio.sleep(0.1)
            await rig.ask(packet(f"n{n}.example"))
    assert (net.asked(UP), net.asked(OTHER)) == (31, 1)


async def test_refusing_a_probe_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    net = Net({UP: silent, OTHER: good})
    async with running(replace(TWO, cache_size=0), net) as rig:
        await rig.ask(QUERY)
        net.scripts[UP] = lambda q, _: reply(q, 0, 5) if q.q.qname == "." else reply(q, 2)
        await trio.sleep(5)
        assert len((await rig.ask(QUERY)).rr) == 2


async def test_probes_end_with_the_upstream(autojump_clock: MockClock) -> None:
    net = Net({UP: silent, OTHER: lambda q, _: (0.25, reply(q))})
    gauge = "discod_dns_upstream_seconds"
    async with running(TWO, net) as rig:
        await rig.ask(QUERY)
        rig.forwarder.configure(replace(ONE, upstreams=(OTHER,)))
        assert rig.count(gauge, upstream="192.0.2.52:53") == pytest.approx(0.25)
        await trio.sleep(40)
        before = len(net.seen)
        await trio.sleep(300)
        assert len(net.seen) == before
        rig.forwarder.configure(ONE)
        assert rig.count(gauge, upstream="192.0.2.52:53") == 0


async def test_when_all_are_down_all_are_asked(autojump_clock: MockClock) -> None:
    net = Net({UP: silent, OTHER: silent})
    async with running(replace(TWO, cache_size=0), net) as rig:
        assert (await rig.ask(QUERY)).header.rcode == 2
        net.scripts[OTHER] = good
        assert (await rig.ask(packet("b.example"))).rr


async def test_the_fastest_is_asked_and_the_others_now_and_then(
    autojump_clock: MockClock,
) -> None:
    def after(seconds: float) -> Any:
        return lambda q, _: (seconds, reply(q))

    net = Net({UP: after(0.2), OTHER: after(0.01)})
    async with running(replace(TWO, forward_policy="fastest", cache_size=0), net) as rig:
        for _ in range(100):
            await rig.ask(QUERY)
        assert 1 < net.asked(UP) < 20  # 5 %, and the first look
        assert rig.count("discod_dns_upstream_seconds", upstream="192.0.2.51:53") == pytest.approx(
            0.2, abs=0.01
        )
        net.scripts[OTHER] = after(1.0)
        before = net.asked(UP)
        for _ in range(100):
            await rig.ask(QUERY)
        assert net.asked(UP) - before > 80


# What upstreams cannot do -----------------------------------------------------------------------


async def test_the_question_goes_in_random_case_and_comes_back_in_the_clients(
    autojump_clock: MockClock,
) -> None:
    net = Net({UP: good})
    async with running(replace(ONE, randomize_case=True, cache_size=0), net) as rig:
        name = "a-rather-long-name.of-many-letters.example"
        for _ in range(20):
            response = await rig.ask(packet(name))
            assert str(response.q.qname) == str(response.rr[0].rname) == f"{name}."
    asked = {str(query.q.qname) for _, _, query in net.seen}
    assert len(asked) == 20 and {a.lower() for a in asked} == {f"{name}."}


async def test_an_upstream_that_loses_case_is_asked_without(autojump_clock: MockClock) -> None:
    def lowering(query: Any, _: str) -> bytes:
        return reply(query)[:12] + reply(query)[12:].lower()

    net = Net({UP: lowering})
    async with running(replace(ONE, randomize_case=True, cache_size=0), net) as rig:
        name = "a-rather-long-name.of-many-letters.example"
        assert (await rig.ask(packet(name))).rr
        assert len(net.seen) == 2
        for _ in range(5):
            assert (await rig.ask(packet(name))).rr
        assert len(net.seen) == 7
        assert rig.tries() == {"ok": 6}
        await trio.sleep(3601)
        net.scripts[UP] = good
        assert (await rig.ask(packet(name))).rr
        assert str(net.seen[-1][2].q.qname) != f"{name}."


async def test_forged_case_is_not_taken(autojump_clock: MockClock) -> None:
    """A reply in another case leads to another question, never to an answer."""
    answers = ["forged", "true"]

    def script(query: Any, _: str) -> bytes:
        if answers.pop(0) == "forged":
            raw = reply(query, 3)
            return raw[:12] + raw[12:].swapcase()
        return reply(query, 1)

    async with running(replace(ONE, randomize_case=True), Net({UP: script})) as rig:
        assert len((await rig.ask(packet("many-letters-here.example"))).rr) == 1


@pytest.mark.parametrize("rcode", [1, 4])
async def test_an_upstream_without_edns(autojump_clock: MockClock, rcode: int) -> None:
    net = Net({UP: lambda q, _: reply(q, 0, rcode) if q.ar else reply(q)})
    async with running(replace(ONE, cache_size=0), net) as rig:
        for _ in range(3):
            response = await rig.ask(QUERY)
            assert len(response.rr) == 1 and len(response.ar) == 1  # the client has EDNS
    assert [bool(query.ar) for _, _, query in net.seen] == [True, False, False, False]


SERVER = b"s" * 16


async def test_cookies_are_kept_and_sent(autojump_clock: MockClock) -> None:
    def script(query: Any, _: str) -> bytes:
        return with_options(reply(query), (10, options(query)[10][:8] + SERVER))

    net = Net({UP: script, OTHER: script})
    async with running(replace(TWO, cache_size=0), net) as rig:
        for _ in range(3):
            assert (await rig.ask(QUERY)).rr
    sent = [options(query)[10] for _, _, query in net.seen]
    assert [len(cookie) for cookie in sent] == [8, 24, 24]
    assert len({cookie[:8] for cookie in sent}) == 1 and sent[2][8:] == SERVER


async def test_cookies_differ_between_upstreams(autojump_clock: MockClock) -> None:
    net = Net({UP: servfail, OTHER: good})
    async with running(TWO, net) as rig:
        await rig.ask(QUERY)
    first, second = (options(query)[10] for _, _, query in net.seen)
    assert first != second


async def test_a_foreign_cookie_is_a_forgery(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: with_options(reply(q), (10, b"x" * 24)), OTHER: good})
    async with running(TWO, net) as rig:
        assert (await rig.ask(QUERY)).rr
        assert rig.tries() == {"timeout": 1, "ok": 1}


async def test_badcookie_is_asked_again_with_the_right_one(autojump_clock: MockClock) -> None:
    def script(query: Any, _: str) -> bytes:
        mine = options(query)[10]
        if mine[8:] != SERVER:
            return with_options(reply(query, 0), (10, mine[:8] + SERVER), rcode=23)
        return with_options(reply(query), (10, mine))

    net = Net({UP: script})
    async with running(ONE, net) as rig:
        assert (await rig.ask(QUERY)).rr
    assert [transport for _, transport, _ in net.seen] == ["udp", "udp"]


async def test_badcookie_for_ever_ends_over_tcp(autojump_clock: MockClock) -> None:
    def script(query: Any, transport: str) -> bytes:
        cookie = options(query)[10][:8] + SERVER
        rcode = 23 if transport == "udp" else 0
        return with_options(reply(query, 1 - rcode // 23), (10, cookie), rcode=rcode)

    net = Net({UP: script})
    async with running(ONE, net) as rig:
        assert (await rig.ask(QUERY)).rr
    assert [transport for _, transport, _ in net.seen] == ["udp", "udp", "tcp"]


async def test_a_missing_cookie_is_checked_over_tcp(autojump_clock: MockClock) -> None:
    """It is either forged, or the upstream is another machine by now."""
    asked: list[int] = []

    def script(query: Any, transport: str) -> bytes:
        asked.append(1)
        if len(asked) == 1:
            return with_options(reply(query), (10, options(query)[10][:8] + SERVER))
        return reply(query, 1 if transport == "tcp" else 3)

    net = Net({UP: script})
    async with running(replace(ONE, cache_size=0), net) as rig:
        for n in (1, 1, 3):
            assert len((await rig.ask(QUERY)).rr) == n
    assert [transport for _, transport, _ in net.seen] == ["udp", "udp", "tcp", "udp"]


# The cache ------------------------------------------------------------------------------------


async def test_answers_are_kept_for_their_ttl(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: reply(q, 2, ttl=30, aa=1, ra=1)})
    async with running(ONE, net) as rig:
        assert rig.forwarder.try_cache(read(QUERY), 1232) is None
        first = await rig.ask(QUERY)
        await trio.sleep(12)
        later = await rig.ask(packet("WWW.eXample", size=1232, id_=5))
        assert [rr.ttl for rr in later.rr] == [18, 18]
        assert (later.header.id, str(later.q.qname)) == (5, "WWW.eXample.")
        assert (first.header.aa, later.header.aa, later.header.ra) == (1, 0, 1)
        assert rig.forwarder.try_cache(read(QUERY), 1232) is not None
        assert rig.count("discod_dns_cache_entries") == 1
        await trio.sleep(18)
        assert rig.forwarder.try_cache(read(QUERY), 1232) is None
        assert [rr.ttl for rr in (await rig.ask(QUERY)).rr] == [30, 30]
    assert len(net.seen) == 2
    assert rig.looks() == {"miss": 2, "hit": 2}


async def test_addresses_take_turns(autojump_clock: MockClock) -> None:
    async with running(ONE, Net({UP: lambda q, _: reply(q, 3)})) as rig:
        firsts = [str((await rig.ask(QUERY)).rr[0].rdata) for _ in range(6)]
    assert firsts == ["10.7.0.0", "10.7.0.1", "10.7.0.2"] * 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (packet("www.example", size=1232), packet("www.example", "AAAA", size=1232)),
        (packet("www.example", size=1232), packet("www.example", size=1232, do=True)),
        (packet("www.example"), packet("www.example")[:3] + b"\x10" + packet("www.example")[4:]),
        (packet("www.example"), packet("ww.example")),
    ],
)
async def test_different_questions_are_kept_apart(
    autojump_clock: MockClock, one: bytes, other: bytes
) -> None:
    net = Net({UP: lambda q, _: negative(q, 0, 60, 60)})
    async with running(ONE, net) as rig:
        for query in (one, other, one, other):
            await rig.ask(query)
    assert len(net.seen) == 2


async def test_a_client_without_edns_shares_with_one_that_has_it(
    autojump_clock: MockClock,
) -> None:
    net = Net({UP: lambda q, _: with_options(reply(q), (15, b"\0\6"))})
    async with running(ONE, net) as rig:
        assert errors(await rig.ask(QUERY)) == [6]
        plain = await rig.ask(packet("www.example"), 512)
        assert len(plain.rr) == 1 and not plain.ar
    assert len(net.seen) == 1


@pytest.mark.parametrize("rcode", [0, 3])
async def test_negative_answers_hold_as_their_soa_says(
    autojump_clock: MockClock, rcode: int
) -> None:
    net = Net({UP: lambda q, _: negative(q, rcode, 600, 20)})
    async with running(ONE, net) as rig:
        await rig.ask(QUERY)
        await trio.sleep(15)
        response = await rig.ask(QUERY)
        assert (response.header.rcode, [rr.ttl for rr in response.auth]) == (rcode, [5])
        await trio.sleep(5)
        await rig.ask(QUERY)
    assert len(net.seen) == 2


@pytest.mark.parametrize(
    "script",
    [
        lambda q, _: reply(q, ttl=0),
        lambda q, _: reply(q, 0, 3),  # no SOA
        lambda q, _: reply(q, 0),
        lambda q, _: reply(q, tc=1),
        lambda q, _: reply(q, 0, 5),
    ],
)
async def test_what_is_not_kept(autojump_clock: MockClock, script: Any) -> None:
    net = Net({UP: script})
    async with running(ONE, net) as rig:
        await rig.ask(QUERY)
        before = len(net.seen)
        await rig.ask(QUERY)
    assert len(net.seen) == 2 * before


async def test_failures_are_kept_for_a_moment(autojump_clock: MockClock) -> None:
    net = Net({UP: servfail})
    async with running(ONE, net) as rig:
        await rig.ask(QUERY)
        again = await rig.ask(QUERY)
        assert (again.header.rcode, errors(again)) == (2, [13])  # Cached Error (RFC 8914)
        assert len(net.seen) == 1
        await trio.sleep(1.01)
        await rig.ask(QUERY)
        await trio.sleep(1.01)
        await rig.ask(QUERY)
        assert len(net.seen) == 2  # twice as long the second time
        net.scripts[UP] = good
        await trio.sleep(5)
        assert (await rig.ask(QUERY)).rr
    assert rig.looks() == {"miss": 3, "failed": 2}


async def test_no_cache(autojump_clock: MockClock) -> None:
    net = Net({UP: good})
    async with running(replace(ONE, cache_size=0), net) as rig:
        for _ in range(3):
            assert (await rig.ask(QUERY)).rr
    assert len(net.seen) == 3


# Stale ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [silent, servfail, lambda q, _: OSError("no route")])
async def test_a_stale_answer_is_better_than_none(autojump_clock: MockClock, failure: Any) -> None:
    net = Net({UP: good})
    async with running(ONE, net) as rig:
        await rig.ask(QUERY)
        await trio.sleep(3600)
        net.scripts[UP] = failure
        start = trio.current_time()
        response = await rig.ask(QUERY)
        assert trio.current_time() - start <= 1.81  # RFC 8767's client response timer
        assert [rr.ttl for rr in response.rr] == [30]
        assert (response.header.rcode, errors(response)) == (0, [3])
        await trio.sleep(4)  # the refresh has failed by now
        asked = net.asked(UP)
        assert (await rig.ask(QUERY)).rr
        assert net.asked(UP) == asked  # not again for 30 s
        net.scripts[UP] = good
        await trio.sleep(31)
        fresh = await rig.ask(QUERY)
        assert errors(fresh) == [] and fresh.rr
    assert rig.looks()["stale"] == 2


async def test_the_refresh_goes_on_after_the_stale_answer(autojump_clock: MockClock) -> None:
    net = Net({UP: good})
    async with running(replace(ONE, forward_timeout=5.0), net) as rig:
        await rig.ask(QUERY)
        await trio.sleep(100)
        net.scripts[UP] = lambda q, _: (3.0, reply(q, 2))
        assert errors(await rig.ask(QUERY)) == [3]
        await trio.sleep(2)
        response = await rig.ask(QUERY)
        assert len(response.rr) == 2 and errors(response) == []
    assert net.asked(UP) == 2


async def test_a_stale_nxdomain_says_so(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: negative(q, 3, 60, 60)})
    async with running(ONE, net) as rig:
        await rig.ask(QUERY)
        await trio.sleep(61)
        net.scripts[UP] = silent
        response = await rig.ask(QUERY)
        assert (response.header.rcode, errors(response)) == (3, [19])


async def test_stale_answers_end(autojump_clock: MockClock) -> None:
    net = Net({UP: good})
    async with running(replace(ONE, serve_stale=60.0), net) as rig:
        await rig.ask(QUERY)
        net.scripts[UP] = silent
        await trio.sleep(91)
        assert (await rig.ask(QUERY)).header.rcode == 2
        rig.forwarder.configure(replace(ONE, serve_stale=0.0))
        net.scripts[UP] = good
        await trio.sleep(10)
        await rig.ask(QUERY)
        net.scripts[UP] = silent
        await trio.sleep(31)
        assert (await rig.ask(QUERY)).header.rcode == 2


async def test_refused_is_an_answer_and_not_hidden_by_a_stale_one(
    autojump_clock: MockClock,
) -> None:
    net = Net({UP: good})
    async with running(ONE, net) as rig:
        await rig.ask(QUERY)
        await trio.sleep(31)
        net.scripts[UP] = lambda q, _: reply(q, 0, 5)
        assert (await rig.ask(QUERY)).header.rcode == 5


async def test_other_upstreams_make_all_that_is_kept_old(autojump_clock: MockClock) -> None:
    net = Net({UP: good, OTHER: lambda q, _: reply(q, 2)})
    async with running(ONE, net) as rig:
        await rig.ask(QUERY)
        rig.forwarder.configure(replace(ONE, serve_stale=100.0))
        assert len((await rig.ask(QUERY)).rr) == 1
        assert len(net.seen) == 1  # the same upstreams
        rig.forwarder.configure(replace(ONE, upstreams=(OTHER,)))
        assert len((await rig.ask(QUERY)).rr) == 2


# Together and limits ----------------------------------------------------------------------------


async def test_the_same_question_is_asked_once(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: (0.5, reply(q))})
    names: list[str] = []

    async def one(rig: Rig, name: str) -> None:
        names.append(str((await rig.ask(packet(name, size=1232))).rr[0].rname))

    async with running(replace(ONE, cache_size=0), net) as rig, trio.open_nursery() as nursery:
        for name in ("www.example", "WWW.example", "wWw.ExAmPlE"):
            nursery.start_soon(one, rig, name)
    assert len(net.seen) == 1
    assert sorted(names) == ["WWW.example.", "wWw.ExAmPlE.", "www.example."]
    assert rig.looks() == {"miss": 1, "shared": 2}


async def test_each_client_has_its_limit(autojump_clock: MockClock) -> None:
    rcodes: dict[str, list[int]] = {"a": [], "b": []}

    async def one(rig: Rig, client: str, n: int) -> None:
        response = await rig.ask(packet(f"n{n}.example", size=1232), client=client)
        rcodes[client].append(response.header.rcode)
        assert response.header.rcode == 0 or errors(response) == [23]

    net = Net({UP: lambda q, _: (1.0, reply(q))})
    async with running(replace(ONE, forward_client_max=3), net) as rig:
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(one, rig, "a", n)
            for n in range(2):
                nursery.start_soon(one, rig, "b", 100 + n)
        assert (rcodes["a"].count(0), rcodes["a"].count(2), rcodes["b"]) == (3, 7, [0, 0])
        await one(rig, "a", 50)
        assert rcodes["a"][-1] == 0  # the places are free again
        assert not rig.forwarder._clients and rig.forwarder._waiting == 0


async def test_clients_that_wait_are_bounded_in_all(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarder, "WAITING_MAX", 5)
    rcodes: list[int] = []

    async def one(rig: Rig, n: int) -> None:
        rcodes.append((await rig.ask(packet("www.example"), client=f"10.0.0.{n}")).header.rcode)

    net = Net({UP: lambda q, _: (1.0, reply(q))})
    async with running(ONE, net) as rig, trio.open_nursery() as nursery:
        for n in range(9):
            nursery.start_soon(one, rig, n)
    assert sorted(rcodes) == [0] * 5 + [2] * 4


async def test_a_fault_of_ours_ends_nothing(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    def script(query: Any, _: str) -> Said:
        if "bad" in str(query.q.qname):
            raise KeyError("boom")
        return reply(query)

    async with running(ONE, Net({UP: script})) as rig:
        assert (await rig.ask(packet("bad.example"))).header.rcode == 2
        assert (await rig.ask(QUERY)).rr
    assert "fault of discod" in caplog.text


# Routes and ourselves -----------------------------------------------------------------------------


async def test_routes(autojump_clock: MockClock) -> None:
    net = Net({UP: good, OTHER: lambda q, _: reply(q, 2), THIRD: lambda q, _: reply(q, 3)})
    routes = (Route("corp.example", (OTHER,)), Route("lab.corp.example", (THIRD,)))
    async with running(replace(ONE, routes=routes), net) as rig:
        for name, count in (
            ("www.example", 1),
            ("corp.example", 2),
            ("a.b.CORP.example", 2),
            ("xcorp.example", 1),
            ("lab.corp.example", 3),
            ("x.lab.corp.example", 3),
        ):
            assert len((await rig.ask(packet(name))).rr) == count, name
        net.scripts[OTHER] = silent
        assert (await rig.ask(packet("new.corp.example"))).header.rcode == 2  # nobody else's


async def test_we_are_never_our_own_upstream(autojump_clock: MockClock) -> None:
    net = Net({OTHER: good})
    async with running(ONE, net) as rig:
        rig.own.add(UP)
        routed = replace(ONE, upstreams=(OTHER,), routes=(Route("corp.example", (UP,)),))
        with pytest.raises(OwnUpstreamError, match=r"dns\.routes\.corp\.example: 192\.0\.2\.51"):
            rig.forwarder.configure(routed)
        with pytest.raises(OwnUpstreamError, match=r"dns\.upstreams: .* port 53 is discod itself"):
            rig.forwarder.configure(replace(ONE, upstreams=(UP, OTHER)))
        assert (await rig.ask(QUERY)).rr  # the rest is in force, without it
        assert net.asked(UP) == 0
        rig.forwarder.configure(replace(ONE, forward=False))  # nobody is asked: no fault
        with pytest.raises(OwnUpstreamError):
            Forwarder(ONE, rig.metrics, rig.own.__contains__, rng=random.Random(1))


async def test_resolv_conf_is_followed(autojump_clock: MockClock, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.51\noptions timeout:1 attempts:1\n")
    net = Net({UP: good, OTHER: lambda q, _: reply(q, 2)})
    settings = DnsSettings(resolv_conf=str(path), randomize_case=False)
    async with running(settings, net) as rig:
        assert len((await rig.ask(QUERY)).rr) == 1
        path.write_text("nameserver 192.0.2.52\n")
        await trio.sleep(1.1)
        assert len((await rig.ask(QUERY)).rr) == 2  # what was kept came of another server
        path.write_text("nameserver 192.0.2.51\noptions timeout:1 attempts:1\n")
        net.scripts[UP] = silent
        await trio.sleep(1.1)
        start = trio.current_time()
        assert (await rig.ask(packet("c.example"))).header.rcode == 2
        assert trio.current_time() - start == pytest.approx(1.0)


# Loops that carry no mark -------------------------------------------------------------------------


async def test_our_own_question_in_its_random_case_is_a_loop(autojump_clock: MockClock) -> None:
    """A stub between us and us, that strips EDNS: systemd-resolved at 127.0.0.53, for one."""
    stub = ListenAddress(ip_address("127.0.0.53"), 53)
    seen: list[int] = []

    async with trio.open_nursery() as nursery:
        rig: Rig

        async def back(raw: bytes) -> None:
            response = await rig.ask(raw, client="127.0.0.1")
            seen.append(response.header.rcode)

        def script(query: Any, _: str) -> None:
            query.ar = []
            nursery.start_soon(back, bytes(query.pack()))

        settings = replace(ONE, upstreams=(stub,), randomize_case=True)
        async with running(settings, Net({stub: script})) as rig:
            name = packet("www.quite-long-enough.example")
            response = await rig.ask(name, client="127.0.0.1")
            assert response.header.rcode == 2
    assert seen and set(seen) == {2}


async def test_an_upstream_that_asks_what_it_is_asked_is_a_loop(
    autojump_clock: MockClock,
) -> None:
    seen: list[tuple[int, list[int]]] = []
    async with trio.open_nursery() as nursery:
        rig: Rig

        async def back() -> None:
            response = await rig.ask(QUERY, client="192.0.2.51")
            seen.append((response.header.rcode, errors(response)))

        def script(query: Any, _: str) -> None:
            nursery.start_soon(back)

        async with running(ONE, Net({UP: script})) as rig:
            await rig.ask(QUERY, client="192.0.2.9")
    assert len(seen) >= 2 and all(one == (2, [0]) for one in seen)


async def test_two_on_the_upstreams_own_host_may_ask_the_same(autojump_clock: MockClock) -> None:
    net = Net({UP: lambda q, _: (0.5, reply(q))})
    answers: list[int] = []

    async def one(rig: Rig) -> None:
        answers.append(len((await rig.ask(QUERY, client="192.0.2.51")).rr))

    async with running(ONE, net) as rig, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one, rig)
    assert answers == [1, 1, 1]


async def test_the_mark_goes_to_private_addresses_only(autojump_clock: MockClock) -> None:
    public = ListenAddress(ip_address("9.9.9.9"), 53)
    net = Net({public: servfail, UP: good})
    async with running(replace(ONE, upstreams=(public, UP)), net) as rig:
        await rig.ask(QUERY)
    first, second = (options(query) for _, _, query in net.seen)
    assert 65313 not in first and len(second[65313]) == 8

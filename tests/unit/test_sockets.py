"""Which sockets are opened, and what becomes of those that were handed over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from discod.model.settings import ListenAddress
from resolver.sockets import by_lane, open_all

HOST = "127.53.0.1"
"""Ours alone: on 127.0.0.1 a client of somebody else may leave from the very port that a UDP socket
was given and that is wanted for TCP as well."""
ANY = ListenAddress(ip_address("127.0.0.1"), 0)
ANY6 = ListenAddress(ip_address("::1"), 0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def udp(*, shared: bool = False, port: int = 0, host: str = HOST) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    return sock


def tcp(port: int = 0) -> socket.socket:
    return socket.create_server((HOST, port))


def place(sock: socket.socket) -> ListenAddress:
    host, port = sock.getsockname()[:2]
    return ListenAddress(ip_address(host), port)


def shares(sock: socket.socket) -> bool:
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1


@pytest.mark.parametrize("lanes", [1, 3])
def test_each_lane_has_a_socket_at_each_address(stack: ExitStack, lanes: int) -> None:
    opened = open_all((ANY, ANY6), lanes, (), stack)
    assert [[place(sock) for sock in lane] for lane in by_lane(opened)] == [
        [one.at for one in opened] for _ in range(lanes)
    ]
    for one, asked in zip(opened, (ANY, ANY6), strict=True):
        assert one.at.address == asked.address and one.at.port > 0
        assert len(one.datagrams) == lanes
        socks = [sock for lane in one.datagrams for sock in lane]
        assert len({sock.fileno() for sock in socks}) == lanes
        for sock in (*socks, *one.listeners):
            assert place(sock) == one.at
            assert not sock.getblocking()
        assert all(shares(sock) == (lanes > 1) for sock in socks)
        assert len(one.listeners) == 1 and not shares(one.listeners[0])


def test_nothing_stays_open(stack: ExitStack) -> None:
    given = udp()
    (one,) = open_all((place(given),), 2, (given,), stack)
    stack.close()
    socks = [given, *one.listeners, *(sock for lane in one.datagrams for sock in lane)]
    assert all(sock.fileno() == -1 for sock in socks)


@pytest.mark.parametrize("lanes", [1, 2])
def test_an_address_in_use_is_named_and_what_was_opened_is_closed(
    stack: ExitStack, lanes: int
) -> None:
    with udp() as taken:
        at = place(taken)
        with pytest.raises(OSError, match=f"udp {HOST} port {at.port}"), ExitStack() as inner:
            open_all((ANY, at), lanes, (), inner)
        with tcp(at.port):
            pass  # its port is free again


def test_what_is_handed_over_is_served_in_place_of_new_ones(stack: ExitStack) -> None:
    datagram = udp()
    datagram.setblocking(True)
    listener = tcp(place(datagram).port)
    (one,) = open_all((place(datagram),), 1, (listener, datagram), stack)
    assert one.datagrams == ((datagram,),)
    assert one.listeners == (listener,)
    assert not datagram.getblocking() and not listener.getblocking()


def test_what_is_not_handed_over_is_opened(stack: ExitStack) -> None:
    datagram = udp()
    listener = tcp()
    with_udp, with_tcp = open_all(
        (place(datagram), place(listener)), 2, (datagram, listener), stack
    )
    assert with_udp.listeners and place(with_udp.listeners[0]) == place(datagram)
    assert with_tcp.listeners == (listener,)
    assert [place(sock) for lane in with_tcp.datagrams for sock in lane] == [place(listener)] * 2


def test_lanes_share_a_socket_by_descriptors_of_their_own(stack: ExitStack) -> None:
    datagram = udp()
    (one,) = open_all((place(datagram),), 3, (datagram,), stack)
    (first,), (second,), (third,) = one.datagrams
    assert first is datagram
    assert len({sock.fileno() for sock in (first, second, third)}) == 3
    # They are one socket: what is sent to it is read but once.
    with udp() as client:
        client.sendto(b"x", datagram.getsockname())
    assert third.recv(10) == b"x"
    with pytest.raises(BlockingIOError):
        second.recv(10)


@pytest.mark.parametrize(("lanes", "dealt"), [(1, [4]), (2, [2, 2]), (3, [2, 1, 1]), (5, [1] * 5)])
def test_several_sockets_at_one_address_are_dealt(
    stack: ExitStack, lanes: int, dealt: list[int]
) -> None:
    given = [udp(shared=True)]
    given += [udp(shared=True, port=place(given[0]).port) for _ in range(3)]
    (one,) = open_all((place(given[0]),), lanes, given, stack)
    assert [len(lane) for lane in one.datagrams] == dealt
    assert set(given) <= {sock for lane in one.datagrams for sock in lane}


def test_wildcards_tell_which_address_was_asked(stack: ExitStack) -> None:
    given = udp(host="0.0.0.0")
    at = place(given)
    (one,) = open_all((at,), 1, (given,), stack)
    with udp() as client:
        client.sendto(b"x", ("127.0.0.7", at.port))
        given.setblocking(True)
        given.settimeout(5)
        _, ancillary, _, _ = given.recvmsg(10, 100)
    assert [data[4:8] for _, _, data in ancillary] == [bytes((127, 0, 0, 7))]
    assert one.at == at


@pytest.mark.parametrize("what", ["udp", "tcp"])
def test_a_socket_that_belongs_to_no_address_is_refused(stack: ExitStack, what: str) -> None:
    stray = udp() if what == "udp" else tcp()
    expected = f"{what} {HOST} port {place(stray).port} .* dns.listen"
    with pytest.raises(OSError, match=expected):
        open_all((ANY,), 1, (stray,), stack)
    stack.close()
    assert stray.fileno() == -1

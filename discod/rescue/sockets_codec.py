"""sock_diag: which TCP sockets there are, and the request that destroys one. Pure.

`sock_diag(7)`; `linux/sock_diag.h`, `linux/inet_diag.h`. Host byte order, except addresses and
ports in socket ids.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final, NamedTuple

from discod.kernel.attributes import attribute
from discod.model.rescue import Place
from discod.rescue.flows import Flow

DUMP: Final = 18
"""TCPDIAG_GETSOCK. The only request that gives IPv4 and IPv6 at once: for each dump the kernel goes
through a hash table that all namespaces share, which is most of what it costs."""
GET: Final = 20
"""SOCK_DIAG_BY_FAMILY."""
DESTROY: Final = 21
"""SOCK_DESTROY."""

_ESTABLISHED, _SYN_SENT, _FIN_WAIT1, _FIN_WAIT2 = 1, 2, 4, 5
STATES: Final = 1 << _ESTABLISHED | 1 << _SYN_SENT | 1 << _FIN_WAIT1 | 1 << _FIN_WAIT2
"""Of sockets that wait for the other end (`linux/tcp.h`). Not CLOSE_WAIT: what was behind the place
has said all it had to, and a complete answer may still lie unread in the socket."""
FILTERED: Final = 256
"""Places at most that the kernel looks for itself; it compares each socket with each of them."""

_ID: Final = slice(4, 52)
_ENDS: Final = struct.Struct(">HH16s16s")
_V4, _V6 = 2, 10
_MAPPED: Final = bytes(10) + b"\xff\xff"
_TCP: Final = 6
_NO_COOKIE: Final = b"\xff" * 8
_JUMP, _REMOTE = 1, 8  # INET_DIAG_BC_JMP, INET_DIAG_BC_D_COND
_OP: Final = struct.Struct("=BBH")
_CONDITION: Final = struct.Struct("=BBxxi")
_BYTECODE: Final = 1  # INET_DIAG_REQ_BYTECODE


class Sock(NamedTuple):
    """One TCP socket."""

    flow: Flow
    """With IPv4 addresses also where the socket is an IPv6 one with mapped addresses."""
    state: int
    destroy: bytes
    """Payload of the `DESTROY` request for just this socket: it names its cookie."""

    @property
    def waits(self) -> bool:
        """Whether it is in one of `STATES`."""
        return bool(1 << self.state & STATES)


def dump(places: Collection[Place]) -> bytes:
    """Payload of a `DUMP` of sockets in `STATES` with one of these at the remote end.

    Beyond `FILTERED` places, of all sockets in `STATES`.
    """
    head = struct.pack("=BBBB48sII", 0, 0, 0, 0, bytes(48), STATES, 0)
    if len(places) > FILTERED:
        return head
    return head + attribute(_BYTECODE, _program(places))


def _program(places: Collection[Place]) -> bytes:
    """One place or another: at its end it accepts, four octets beyond its end it rejects.

    Each condition is followed by a jump to the end for when it holds, except the last.
    """
    conditions = [
        _CONDITION.pack(
            _V4 if place.address.version == 4 else _V6, place.address.max_prefixlen, place.port
        )
        + place.address.packed
        for place in places
        if place.protocol == "tcp"
    ]
    code = b""
    for condition in reversed(conditions):
        size = _OP.size + len(condition)
        if code:
            code = _OP.pack(_JUMP, _OP.size, _OP.size + len(code)) + code
        code = _OP.pack(_REMOTE, size, size + 4) + condition + code
    return code or _OP.pack(_JUMP, 4, 8)


def get(flow: Flow) -> bytes:
    """Payload of the `GET` request for the socket of one client.

    The kernel looks for a listening socket where there is no connected one: mind `Sock.waits`.
    """
    source, destination = flow.client.packed, flow.address.packed
    ends = _ENDS.pack(flow.client_port, flow.port, source, destination)
    family = _V4 if flow.address.version == 4 else _V6
    return struct.pack("=BBBBI", family, _TCP, 0, 0, STATES) + ends + bytes(4) + _NO_COOKIE


def read(payload: bytes) -> Sock | None:
    """One `struct inet_diag_msg`; None: it is none."""
    if len(payload) < 52:
        return None
    family, state = payload[0], payload[1]
    local_port, remote_port, source, destination = _ENDS.unpack_from(payload, 4)
    if family == _V4 or (family == _V6 and source[:12] == destination[:12] == _MAPPED):
        cut = slice(0, 4) if family == _V4 else slice(12, 16)
        source, destination = source[cut], destination[cut]
    elif family != _V6:
        return None
    if state > 31:
        return None
    flow = Flow(ip_address(source), local_port, ip_address(destination), remote_port, "tcp")
    kill = struct.pack("=BBBBI", family, _TCP, 0, 0, STATES) + payload[_ID]
    return Sock(flow, state, kill)

"""Client sockets of connections to places that are gone are destroyed, in every namespace.

Rule: an application that waits for an answer is told at once, though it sends nothing that a packet
filter could answer. A connection that is translated to who lives is left alone. ``ss -K`` does the
same; `linux/inet_diag.h`, CONFIG_INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import logging
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from typing import Final

from discod.kernel.netlink import ROUTE, Message, Request, name_of
from discod.log import fields
from discod.model.rescue import Place
from discod.rescue import sockets_codec, spaces
from discod.rescue.blocking import SOCK_DIAG, BlockingNetlink
from discod.rescue.bridges_codec import ADDRESSES, ALL_ADDRESSES, read_own
from discod.rescue.conntrack import Lookup
from discod.rescue.flows import Flow
from discod.rescue.sockets_codec import Sock

log = logging.getLogger(__name__)
_SOME: Final = 256
"""Sockets of a namespace that are looked up and destroyed together: bounds memory."""
_said: set[tuple[int, str]] = set()
"""What was told already and stays so for as long as this kernel runs."""


async def cut(
    places: Collection[Place],
    exact: Collection[Flow] = (),
    pids: Iterable[int] = (),
    except_: AbstractSet[Flow] = frozenset(),
    *,
    limit: float = spaces.LIMIT,
) -> list[Flow]:
    """Destroy TCP sockets of this host and of these processes' namespaces; which they were.

    Args:
        places: All that is dead, with the containers' own places behind published ones. Sockets
            with one of them at the remote end are destroyed, except connections that connection
            tracking knows to be answered by another than these (rescue has sent them elsewhere).
        exact: Connections to end wherever they are to: those that were translated to what died.
        pids: Processes, one for each container that may hold a client.
        except_: Not these.
        limit: Seconds for all.

    A kernel that cannot destroy sockets is told of once, and nothing is done.
    """
    dead = frozenset(place for place in places if place.protocol == "tcp")
    flows: dict[bytes, list[Flow]] = defaultdict(list)
    for flow in exact:
        if flow.protocol == "tcp" and flow not in except_:
            flows[flow.client.packed].append(flow)
    if not dead and not flows:
        return []
    try:
        # Made here: wherever the sockets are, their packets are translated in this namespace.
        tracked = Lookup(time.monotonic() + limit)
    except OSError as error:
        _say(error.errno or 0, "no connection tracking")
        return []
    job = _Cut(dead, flows, except_, tracked)
    found = await spaces.everywhere(pids, job.here, limit=limit, last=tracked.close)
    return [flow for some in found for flow in some]


class _Cut:
    def __init__(
        self,
        dead: AbstractSet[Place],
        exact: dict[bytes, list[Flow]],
        except_: AbstractSet[Flow],
        tracked: Lookup,
    ) -> None:
        self._dead, self._exact, self._except = dead, exact, except_
        self._tracked = tracked
        self._dump = sockets_codec.dump(dead)

    def here(self, until: float) -> list[Flow]:
        """In the network namespace of this thread."""
        done: list[Flow] = []
        with BlockingNetlink(SOCK_DIAG, until) as sockets, ExitStack() as more:
            if self._exact:
                asked = [Request(sockets_codec.GET, 0, p) for p in self._own(until)]
                answers = sockets.ask(asked)
                found = [
                    sock
                    for answer in answers
                    if isinstance(answer, Message)
                    and (sock := sockets_codec.read(answer.payload))
                    and sock.waits
                ]
                done += _destroy(sockets, found)
            if not self._dead:
                return done
            killer: BlockingNetlink | None = None
            some: list[Sock] = []
            for message in sockets.stream(sockets_codec.DUMP, self._dump):
                sock = sockets_codec.read(message.payload)
                if sock and sock.waits and sock.flow.place in self._dead:
                    some.append(sock)
                if len(some) == _SOME:
                    killer = killer or more.enter_context(BlockingNetlink(SOCK_DIAG, until))
                    done += _destroy(killer, self._dying(some))
                    some = []
            if some:
                done += _destroy(sockets, self._dying(some))
        return done

    def _own(self, until: float) -> list[bytes]:
        """What to ask for of the connections whose client is at an address of this namespace."""
        with BlockingNetlink(ROUTE, until) as routes:
            here = {
                read_own(message.payload) for message in routes.stream(ADDRESSES, ALL_ADDRESSES)
            }
        flows = (flow for client in here & self._exact.keys() for flow in self._exact[client])
        return [sockets_codec.get(flow) for flow in flows]

    def _dying(self, socks: list[Sock]) -> list[Sock]:
        """Those that nobody who lives answers."""
        mine = [sock for sock in socks if sock.flow not in self._except]
        answered = self._tracked.answers([sock.flow for sock in mine])
        return [
            sock for sock, by in zip(mine, answered, strict=True) if by is None or by in self._dead
        ]


def _destroy(kernel: BlockingNetlink, socks: list[Sock]) -> list[Flow]:
    done = []
    answers = kernel.ask([Request(sockets_codec.DESTROY, 0, sock.destroy) for sock in socks])
    for sock, answer in zip(socks, answers, strict=True):
        if answer == 0:
            done.append(sock.flow)
        elif isinstance(answer, int) and answer != errno.ENOENT:
            _say(answer, "sockets are not destroyed")
    return done


def _say(number: int, what: str) -> None:
    if (number, what) not in _said:
        _said.add((number, what))
        log.warning("idle clients are not told", extra=fields(why=what, error=name_of(number)))

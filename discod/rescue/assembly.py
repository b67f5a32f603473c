"""The kernel's parts of rescue, put together."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence

import trio

from discod.model.rescue import Place
from discod.rescue import conntrack, sockets
from discod.rescue.bridges import bridges
from discod.rescue.flows import Flow
from discod.rescue.neighbours import Neighbours
from discod.rescue.service import Kernel
from discod.rescue.table import Table


def kernel(rng: random.Random) -> Kernel:
    """What acts on this host.

    Args:
        rng: For jitter.
    """
    return Kernel(
        tables=Table(),
        neighbours=lambda claimed: Neighbours(claimed, rng),
        bridges=bridges,
        cut=cut,
        end_late=conntrack.end_late,
        forget=conntrack.forget,
    )


async def cut(places: Collection[Place], pids: Iterable[int]) -> Sequence[Flow]:
    """End all that is connected to places that died; the TCP connections of which sockets ended.

    Whom a socket talks to is seen at once, what was translated only in connection tracking, which
    takes longer: neither waits for the other.

    Raises:
        OSError: connection tracking does not say, or not in time; the others have ended.
    """
    pids = tuple(pids)
    found: list[Flow] = []
    failed: list[OSError] = []

    async def direct() -> None:
        found.extend(await sockets.cut(places, (), pids))

    async def translated() -> None:
        try:
            ended = await conntrack.end_flows(places)
        except OSError as error:
            failed.append(error)
            return
        if ended.flows:
            found.extend(await sockets.cut((), ended.flows, pids))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(direct)
        nursery.start_soon(translated)
    if failed:
        raise failed[0]
    return found

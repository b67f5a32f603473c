"""The kernel's parts of rescue, put together."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence

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
        forget=conntrack.forget,
    )


async def cut(places: Collection[Place], pids: Iterable[int]) -> Sequence[Flow]:
    """End all that is connected to places that died; the TCP connections of which sockets ended.

    Raises:
        OSError: connection tracking does not say, or not in time.
    """
    ended = await conntrack.end_flows(places)
    return await sockets.cut(places, ended.flows, pids)

"""The bridges of this host.

Rule: asked of the kernel by netlink: files below /sys/class/net are those of the namespace in which
/sys was mounted, which need not be this one.
"""

from __future__ import annotations

from discod.kernel.netlink import ROUTE, Netlink
from discod.model.rescue import Bridge
from discod.rescue.bridges_codec import (
    ADDRESSES,
    ALL_ADDRESSES,
    ALL_BRIDGES,
    LINKS,
    joined,
    read_address,
    read_bridge,
)


async def bridges() -> tuple[Bridge, ...]:
    """All bridges of this network namespace, by name.

    Raises:
        OSError: the kernel did not tell.
    """
    with Netlink(ROUTE) as kernel:
        links = [read_bridge(m.payload) for m in await kernel.dump(LINKS, ALL_BRIDGES)]
        addresses = [read_address(m.payload) for m in await kernel.dump(ADDRESSES, ALL_ADDRESSES)]
    return joined(filter(None, links), filter(None, addresses))

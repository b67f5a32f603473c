"""The daemon's side as a process of its own, in whatever namespace it is started.

Reads requests as lines of JSON, answers each with a line that has ``ms``, and says ``claimed`` on
lines of their own.
"""

from __future__ import annotations

import json
import random
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import trio

from discod import log
from discod.model.endpoint import Address
from discod.model.rescue import Place
from discod.rescue import conntrack, sockets, spaces
from discod.rescue.bridges import bridges
from discod.rescue.flows import Flow
from discod.rescue.neighbours import Neighbours


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def places(rows: list[list[Any]]) -> list[Place]:
    return [Place(ip_address(a), port, protocol) for a, port, protocol in rows]


def plain(flow: Flow) -> list[Any]:
    return [str(flow.client), flow.client_port, str(flow.address), flow.port, flow.protocol]


def flow(row: list[Any]) -> Flow:
    client, client_port, address, port, protocol = row
    return Flow(ip_address(client), client_port, ip_address(address), port, protocol)


def _inode(until: float) -> int:
    assert until > time.monotonic()
    return Path("/proc/thread-self/ns/net").stat().st_ino


async def act(neighbours: Neighbours, do: str, what: dict[str, Any]) -> Any:
    """One request."""
    match do:
        case "cut":
            done = await sockets.cut(
                places(what["places"]),
                [flow(row) for row in what.get("exact", [])],
                what.get("pids", []),
                {flow(row) for row in what.get("except", [])},
            )
            return sorted(plain(one) for one in done)
        case "end":
            ended = await conntrack.end_flows(places(what["places"]))
            return [ended.deleted, sorted(plain(one) for one in ended.flows)]
        case "late":
            return await conntrack.end_late(places(what["places"]))
        case "forget":
            return await conntrack.forget(places(what["places"]))
        case "bridges":
            return [
                [b.name, b.mac.hex(":"), [f"{a}/{bits}" for a, bits in b.networks]]
                for b in await bridges()
            ]
        case "want":
            wanted = {ip_address(a): bytes.fromhex(mac) for a, mac in what["addresses"].items()}
            neighbours.want(wanted, await bridges())
            return None
        case "seen":
            return [neighbours.frames, neighbours.answered]
        case "where":
            here = _inode(time.monotonic() + 1)
            visited = await spaces.everywhere(what["pids"], _inode)
            return [here == _inode(time.monotonic() + 1), here in visited, len(visited)]
    raise AssertionError(do)


async def main() -> None:
    """What is said above."""

    def claimed(address: Address) -> None:
        say(claimed=str(address))

    neighbours = Neighbours(claimed, random.Random(1))
    lines = trio.wrap_file(sys.stdin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(neighbours.run)
        async for line in lines:
            what = json.loads(line)
            start = time.perf_counter()
            result = await act(neighbours, what["do"], what)
            say(result=result, ms=(time.perf_counter() - start) * 1000)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    log.setup("debug")
    trio.run(main)

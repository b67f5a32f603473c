"""Rescue's nftables tables in the kernel: made so, read, taken away.

Rule: a change is one transaction of nft, of which the kernel does all or nothing. A place that is
in use again is out of the kernel when `revoke` returns, and a change under way does not bring it
back. What the kernel has is remembered, and after any doubt replaced as a whole.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeVar

import trio

from discod.kernel.commands import CommandFailed, Run, run
from discod.log import fields
from discod.model.rescue import Place, Plan, Usage
from discod.rescue.elements import Stamp
from discod.rescue.elements_socket import ElementsSocket
from discod.rescue.ruleset import transaction
from discod.rescue.ruleset_layout import (
    GONE,
    Element,
    Family,
    Links,
    elements,
    everywhere,
    on_bridges,
    still_ended,
    without,
)  # fmt: skip
from discod.rescue.ruleset_text import TABLE, drop
from discod.rescue.usage import SETS, counts, places

log = logging.getLogger(__name__)

NFT: Final = ("nft", "-f", "-")
FAMILIES: Final[tuple[Family, ...]] = ("inet", "bridge")
T = TypeVar("T")
LONG: Final = 1 << 16
"""Octets of a listing beyond which it is parsed in a thread: some 3 ms."""

MANY: Final = 200
"""Changed places from which on the change is written down in a thread."""


class Table:
    """Both tables of this host.

    `apply` is called by one task at a time, with a plan at least as new as the last `revoke`.

    Args:
        execute: Runs nft; for tests.
        connect: Makes the socket for what is done at once; called when it is first needed.
    """

    def __init__(
        self, execute: Run = run, connect: Callable[[], ElementsSocket] = ElementsSocket
    ) -> None:
        self._run = execute
        self._connect = connect
        self._socket: ElementsSocket | None = None
        self._known: tuple[Plan, ...] = ()  # of which anything may be in the kernel
        self._sure = False  # whether that is all, and is there
        self._changing = False
        self._behind: frozenset[Place] = frozenset()  # containers behind places of these
        self._out: set[Place] = set()  # which of these `revoke` has taken out since
        self._revoked: set[Place] = set()  # while a change was under way
        self._bridged = True
        self._told = False
        self._stamps: dict[Family, Stamp | None] = {}

    def close(self) -> None:
        """Give the socket back; the tables stay."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def apply(self, plan: Plan) -> None:
        """Have the kernel do as the plan says, by what differs from the one before it.

        Where that fails all is replaced: that loses counts, but no connection.

        Raises:
            CommandFailed: that failed too, or nft is missing; nothing of the plan is done.
            OSError: what was revoked meanwhile could not be taken out again.
        """
        before = self._known[0] if self._sure else None
        if before is plan and not self._out:
            return
        if before is not None and self._out:
            before = without(before, self._out)
        # Of earlier ones that failed the last is enough: it only says what is behind a place.
        self._knows(*([before] if before is not None else self._known[-1:]), plan)
        self._out, self._sure, self._changing = set(), False, True
        try:
            if before is None or not await self._changed(before, plan):
                await self._replaced(plan)
            self._knows(plan)
            self._out, self._sure = set(), True
        finally:
            # Synchronous from here on: no other change can come in between. When that failed or was
            # cancelled, nft may have been done or not.
            self._changing = False
            revoked, self._revoked = self._revoked, set()
            if revoked:
                self._take_out(revoked)
        self._stamps = self._stamped()

    async def _changed(self, before: Plan, plan: Plan) -> bool:
        words = await _words(before, plan, self._bridged)
        try:
            if words:
                await self._run(NFT, words)
        except CommandFailed as error:
            log.warning("rescue rules replaced as a whole", extra=fields(error=error))
            return False
        return True

    async def _replaced(self, plan: Plan) -> None:
        try:
            await self._run(NFT, await _words(None, without(plan, self._revoked), True))
        except CommandFailed as error:
            # The bridge family may be what this kernel lacks; else this fails just the same.
            await self._run(NFT, await _words(None, without(plan, self._revoked), False))
            self._bridged = False
            if not self._told and on_bridges(plan, Links(plan.bridges)):
                self._told = True
                log.warning(
                    "no table for bridges; clients on the same bridge are not rescued",
                    extra=fields(error=error),
                )
        else:
            self._bridged = True

    def revoke(self, some: Iterable[Place]) -> None:
        """Take places out of the kernel that are in use again; it is done when this returns.

        An `apply` under way cannot put them back for longer than it takes itself.

        Raises:
            OSError: the kernel refuses or does not answer; the next `apply` replaces everything.
        """
        gone = set(some)
        if self._changing:
            self._revoked |= gone
        self._take_out(gone)

    def _take_out(self, gone: set[Place]) -> None:
        gone = {place for place in gone if not any(place in plan.vips for plan in self._known)}
        if self._sure:
            gone = {p for p in gone if p in self._behind or p in self._known[0].stale}
        if not gone:
            return
        self._out |= gone
        found: set[Element] = set()
        for plan in self._known:
            links = Links(plan.bridges)
            there = {element for place in gone for element in elements(plan, place, links)}
            found |= there - still_ended(plan, there, self._out)
        # Where something is not known, anything may be there, also of an earlier run.
        some = everywhere(gone)
        found |= {e for e in some if not self._sure or (e.place in self._behind and e.set in GONE)}
        try:
            self._asked().delete(sorted(found, key=str))
        except OSError:
            self._sure = False
            raise

    def _knows(self, *plans: Plan) -> None:
        self._known = plans
        self._behind = frozenset(
            stale.backend for plan in plans for stale in plan.stale.values() if stale.backend
        )

    def _asked(self) -> ElementsSocket:
        if self._socket is None:
            self._socket = self._connect()
        return self._socket

    def _stamped(self) -> dict[Family, Stamp | None]:
        return {family: self._asked().stamp(family) for family in FAMILIES}

    async def intact(self) -> bool:
        """Whether the tables are those of the last `apply`, if any: not removed nor replaced.

        Rules that were taken out of a chain of ours one by one are not noticed. Where it is False,
        the next `apply` replaces everything. Some ten microseconds.

        Raises:
            OSError: the kernel does not say.
        """
        await trio.lowlevel.checkpoint()
        if self._changing or not self._known:
            return True
        self._sure = self._sure and self._stamped() == self._stamps
        return self._sure

    async def usage(self) -> tuple[Usage, ...]:
        """Who used stale places, and how often.

        Counts begin with the table, and end 10 minutes after a client's last use: they can fall.
        Clients that a service address refused or reset are among them, by its place.

        Raises:
            CommandFailed: nft fails; the table may not be there.
        """
        found: list[Usage] = []
        for version in self._versions():
            for name in SETS:
                output = await self._listed("inet", f"{name}{version}")
                found += await _parsed(lambda text: list(counts(text)), output)
        return tuple(found)

    async def busy(self) -> frozenset[Place]:
        """Places on bridges of this host that frames went to within the last 5 minutes.

        That is a use that no count of connections shows: one that was rescued on its own bridge
        needs its place for as long as it lasts.

        Raises:
            CommandFailed: nft fails; the table may not be there.
        """
        if self._stamps.get("bridge") is None:
            return frozenset()
        found: list[Place] = []
        for version in self._versions():
            output = await self._listed("bridge", f"busy{version}")
            found += await _parsed(lambda text: list(places(text)), output)
        return frozenset(found)

    def _versions(self) -> list[int]:
        found: set[int] = set()
        for plan in self._known:
            found |= {place.address.version for place in (*plan.stale, *plan.vips)}
        return sorted(found)

    async def _listed(self, family: Family, name: str) -> str:
        # One run for each: several listings in one input find only the last (nft 1.0.6).
        return await self._run(("nft", "-j", "list", "set", family, TABLE, name), "")

    async def remove(self) -> None:
        """Delete both tables; those that are not there are no fault.

        Raises:
            CommandFailed: nft is missing, or fails.
        """
        self._sure = False
        output = await self._run(("nft", "-j", "list", "tables"), "")
        there = [one.get("table", {}) for one in json.loads(output)["nftables"]]
        for family in FAMILIES:
            if any(t.get("family") == family and t.get("name") == TABLE for t in there):
                await self._run(NFT, drop(family))


async def _words(before: Plan | None, after: Plan, bridged: bool) -> str:
    """`transaction`, in a thread where it may take more than some 5 ms."""
    there = len(before.stale) if before is not None else 0
    if abs(len(after.stale) - there) < MANY:
        return transaction(before, after, bridged=bridged)
    return await trio.to_thread.run_sync(partial(transaction, before, after, bridged=bridged))


async def _parsed(parse: Callable[[str], list[T]], output: str) -> list[T]:
    if len(output) < LONG:
        return parse(output)
    return await trio.to_thread.run_sync(parse, output)

"""The packet filter's part of the host side: looked at, put right, taken away.

Rule: each look compares with what is there; what is as wanted is not written. Docker's tables are
changed by iptables (whichever of its backends the host uses), ours by nft.
"""

from __future__ import annotations

from collections.abc import Iterable

from calico_bgp import docker_rules, nat_rules
from calico_bgp.ports import Delivery
from calico_bgp.prefix import Network
from discod.kernel.commands import LOCK, CommandFailed, Run, run

PROGRAMS = {4: "iptables", 6: "ip6tables"}


class Firewall:
    """Exceptions and translations of both families.

    Args:
        execute: Runs programs; for tests.
    """

    def __init__(self, execute: Run = run) -> None:
        self._run = execute
        self._tables: dict[int, tuple[str, str]] = {}  # what we wrote, and how it then looked
        self.bridges: tuple[str, ...] = ()
        """Docker's, as of the last look."""

    async def _saved(self, version: int) -> str:
        return await self._run([f"{PROGRAMS[version]}-save", "-t", "filter"], "")

    async def _restore(self, version: int, lines: str) -> None:
        await self._run([f"{PROGRAMS[version]}-restore", "--noflush", f"--wait={LOCK}"], lines)

    async def forward(
        self, version: int, routed: Iterable[Network], deliveries: Iterable[Delivery]
    ) -> tuple[bool, bool]:
        """Have the exceptions of one family; (Docker is there, something was changed).

        Raises:
            CommandFailed: iptables is missing or refuses.
        """
        saved = await self._saved(version)
        if version == 4:
            self.bridges = tuple(docker_rules.bridges(saved))
        if not docker_rules.parent(saved):
            return False, False
        wanted = docker_rules.rules(
            [net for net in routed if net.version == version],
            [d.address for d in deliveries if d.address.version == version and d.targets],
            docker_rules.bridges(saved),
        )
        there = docker_rules.present(saved)
        if docker_rules.jumps(saved) and _by_chain(there) == _by_chain(wanted):
            return True, False
        await self._restore(version, docker_rules.restore(wanted, saved))
        return True, True

    async def translate(
        self, version: int, routed: Iterable[Network], deliveries: Iterable[Delivery]
    ) -> bool:
        """Have the translations of one family; whether something was changed.

        Raises:
            CommandFailed: nft is missing or refuses.
        """
        text = nat_rules.table(version, routed, deliveries)
        last = self._tables.get(version)
        if last is not None and last[0] == text and await self._listed(version) == last[1]:
            return False
        await self._run(["nft", "-f", "-"], text)
        self._tables[version] = (text, await self._listed(version))
        return True

    async def _listed(self, version: int) -> str:
        try:
            return await self._run(
                ["nft", "-s", "list", "table", nat_rules.FAMILIES[version], nat_rules.TABLE], ""
            )
        except CommandFailed:
            return ""  # nothing is wanted, or somebody took it away

    async def remove(self) -> None:
        """Take all of it away; what is not there is no fault.

        Raises:
            CommandFailed: a program is missing or refuses.
        """
        for version in (4, 6):
            if lines := docker_rules.remove(await self._saved(version)):
                await self._restore(version, lines)
            await self._run(["nft", "-f", "-"], nat_rules.remove(version))
        self._tables.clear()


def _by_chain(lines: list[str]) -> list[str]:
    return sorted(lines, key=lambda line: line.split()[1])

"""`discod bgp cleanup`: takes back all that calico_bgp ever changed on this host.

Rule: needs no running daemon, and must not run beside one. What is ours is known by the protocol
number, by the names of our chains and tables, and by the state file; nothing else is touched. Each
part is tried, whatever becomes of the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from calico_bgp.firewall import Firewall
from calico_bgp.proxies import own_addresses, proxies
from calico_bgp.routes_kernel import remove_all
from calico_bgp.sysctls import Sysctls
from discod.kernel.commands import CommandFailed, Run, run
from discod.model.bgp_settings import BgpSettings


async def cleanup(
    settings: BgpSettings, state_dir: Path, *, execute: Run = run
) -> tuple[list[str], list[str]]:
    """Undo everything.

    Args:
        settings: Table and protocol number of our routes.
        state_dir: Where kernel settings are remembered.
        execute: Runs programs; for tests.

    Returns:
        What was done, and what could not be, in words.
    """
    done: list[str] = []
    failed: list[str] = []

    async def routes() -> str:
        return f"{await remove_all(settings.table, settings.protocol)} routes removed"

    async def addresses() -> str:
        return f"{await own_addresses((), settings.protocol)} anycast addresses removed"

    async def neighbours() -> str:
        return f"{await proxies((), settings.protocol)} proxy entries removed"

    async def firewall() -> str:
        await Firewall(execute).remove()
        return "exceptions and translations removed"

    async def sysctls() -> str:
        return f"{len(Sysctls(state_dir).restore())} kernel settings given back"

    parts: tuple[Callable[[], Awaitable[str]], ...]
    parts = (routes, addresses, neighbours, firewall, sysctls)
    for part in parts:
        try:
            done.append(await part())
        except (OSError, ValueError, CommandFailed) as error:
            failed.append(f"{part.__name__}: {error}")
    return done, failed

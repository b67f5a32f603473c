"""The first words to a person who starts the daemon by hand: what it serves, how to ask. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from discod.model.catalog import Catalog
from discod.model.report import PartReport
from discod.model.settings import ListenAddress, Settings

ROWS = 40
"""Services shown; more are counted."""


def banner(settings: Settings, host: str, catalog: Catalog, parts: Iterable[PartReport]) -> str:
    """A summary of what is served now, ending in lines to try."""
    domain = settings.dns.domain
    lines = ["", f"discod on host {host}, domain {domain}", ""]
    names = [(f"{host}.node.{domain}", "this host")]
    for service, instances in sorted(catalog.services.items()):
        where = sorted({e.container_name or e.producer.value for e in instances.values()})
        names.append((f"{service}.{domain}", f"{len(instances)} endpoint(s): {', '.join(where)}"))
    width = max(len(name) for name, _ in names[:ROWS])
    lines += [f"  {name:<{width}}  {what}" for name, what in names[:ROWS]]
    if len(names) > ROWS:
        lines.append(f"  ... and {len(names) - ROWS} more: discod services")
    for part in parts:
        if not part.ready:
            lines += ["", f"  not ready: {part.name}: {part.detail} (trying again)"]
    if settings.dns.listen:
        at = _dig(settings.dns.listen[0])
        lines += ["", "Try:", f"  dig {at} {names[0][0]}"]
        lines += [f"  dig {at} {name} SRV" for name, _ in names[1:2]]
    if settings.http.listen:
        listen = settings.http.listen[0]
        shown = f"[{listen.address}]" if listen.address.version == 6 else str(listen.address)
        lines.append(f"  curl http://{shown}:{listen.port}/v1/services")
    return "\n".join([*lines, "", ""])


def _dig(listen: ListenAddress) -> str:
    return f"@{listen.address}" + ("" if listen.port == 53 else f" -p {listen.port}")

"""``discod rescue`` and ``discod vip``.

Rule: as in `discod.cli`.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import click

from discod import tables, tables_rescue
from discod.cli_common import NO, asks, config_option, fail, json_option, settings_of, show
from discod.client import Client


@click.group()
def rescue() -> None:
    """Look at clients that ignore the TTL, and undo what rescue did to the host."""


@rescue.command("status")
@json_option
@asks
def rescue_status(client: Client, as_json: bool) -> None:
    """Say what was done for whom, and which clients still use stale addresses."""
    document = {
        "status": client.get("/v1/rescue/status"),
        "clients": client.get("/v1/rescue/clients")["clients"],
        "entries": client.get("/v1/rescue/entries")["entries"],
    }
    show(document, as_json, tables_rescue.status)


@rescue.command("cleanup")
@config_option
def rescue_cleanup(config: Path | None) -> None:
    """Take away all that rescue has left on this host: its nftables tables.

    While the daemon runs it would put them back: stop it first, or take out its [rescue] and [vip].
    """
    import trio

    from discod.paths import runtime_dir
    from discod.place import PlaceError, only_one
    from discod.rescuing import cleanup

    settings, _ = settings_of(config)
    place = runtime_dir(settings.host, os.geteuid(), os.environ)
    try:
        # Without the directory there is no daemon either.
        with only_one(place) if place.is_dir() else nullcontext():
            done, failed = trio.run(cleanup)
    except (PlaceError, OSError) as error:
        fail(str(error), NO)
    click.echo("\n".join(map(tables.tame, done)))
    if failed:
        fail("not taken away: " + "; ".join(map(tables.tame, failed)), NO)


@click.group()
def vip() -> None:
    """Look at the addresses of services, and give them back."""


@vip.command("list")
@json_option
@asks
def vip_list(client: Client, as_json: bool) -> None:
    """List the service addresses, and where connections to them go."""
    show(client.get("/v1/rescue/vips"), as_json, tables_rescue.vips)


@vip.command("release")
@click.argument("service")
@asks
def vip_release(client: Client, service: str) -> None:
    """Give back the address of SERVICE, which no endpoint may use any more."""
    name = service.lower().removesuffix(".")
    click.echo(tables.tame(client.post("/v1/rescue/vips/release", {"service": name})["done"]))

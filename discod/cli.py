"""The command line.

Rule: reads arguments and the environment, asks, prints; what is said is made in `discod.tables`.
Exit statuses: 0 as wished; 1 the answer is no (not ready, not in DNS, refused, faults found);
2 wrong usage; 3 no daemon answers. `announce` exits with its command's status.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from discod import __version__, cli_rescue, tables, tables_bgp
from discod.cli_common import (
    NO,
    asks,
    config_option,
    fail,
    json_option,
    page,
    segment,
    settings_of,
    show,
)
from discod.client import ApiError, Client, Unreachable, default_targets

WATCH_RETRY_MAX = 5.0
"""Seconds between two tries of ``discod watch`` to reach a daemon that went away."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Service discovery for Docker hosts: what runs is in DNS, what ended is not."""


main.add_command(cli_rescue.rescue)
main.add_command(cli_rescue.vip)


@main.command()
@config_option
def run(config: Path | None) -> None:
    """Run the daemon."""
    from discod.daemon import run_daemon

    settings, path = settings_of(config)
    sys.exit(run_daemon(settings, path, os.environ))


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Say everything that is wrong with a configuration FILE, one fault a line."""
    from discod.config import ConfigError, check_files, load_config

    try:
        settings = load_config(file)
        faults = check_files(settings)
        if faults:
            raise ConfigError(str(file), faults)
    except ConfigError as error:
        for line in str(error).splitlines():  # without a prefix, as editors like it
            click.echo(tables.tame(line), err=True)
        sys.exit(NO)
    click.echo(f"{file}: ok")


@main.command()
@click.argument("name", required=False)
@json_option
@asks
def services(client: Client, name: str | None, as_json: bool) -> None:
    """List the services, or the endpoints of the one called NAME."""
    if name is None:
        show(client.get("/v1/services"), as_json, tables.services)
    else:
        show(client.get(f"/v1/services/{segment(name)}"), as_json, tables.service)


@main.command()
@json_option
@asks
def hosts(client: Client, as_json: bool) -> None:
    """List the hosts that run discod."""
    show(client.get("/v1/hosts"), as_json, tables.hosts)


@main.command()
@click.argument("query")
@json_option
@asks
def explain(client: Client, query: str, as_json: bool) -> None:
    """Say why QUERY (a name, a container or an address) is in DNS, or is not.

    Exit status 0 when it is, 1 when it is not.
    """
    document = client.get("/v1/explain", {"q": query})
    show(document, as_json, tables.explanation)
    if not document["in_dns"]:
        sys.exit(NO)


@main.command()
@json_option
@asks
def ready(client: Client, as_json: bool) -> None:
    """Say whether the daemon is ready; exit status 0 or 1."""
    try:
        document = client.get("/readyz")
    except ApiError as error:
        if not isinstance(error.document, dict) or "ready" not in error.document:
            raise
        document = error.document
    show(document, as_json, lambda _, shown: tables.readiness(shown))
    if not document["ready"]:
        sys.exit(NO)


@main.command()
@json_option
@asks
def watch(client: Client, as_json: bool) -> None:
    """Print every change as it happens, until interrupted."""
    delay, first = 0.25, True
    while True:
        try:
            with client.lines("/v1/watch") as lines:
                if not first:
                    click.echo(
                        "discod: connected again; changes in between are not shown", err=True
                    )
                delay, first = 0.25, False
                for line in lines:
                    if line.startswith("data: {") and line != "data: {}":
                        _print_event(line.removeprefix("data: "), as_json)
            click.echo("discod: the daemon ended the stream", err=True)
        except Unreachable as error:
            if first:
                raise
            click.echo(f"discod: {tables.tame(error)}", err=True)
        except KeyboardInterrupt:
            return
        # The daemon restarts, or this reader fell behind.
        time.sleep(delay * random.uniform(0.5, 1.5))
        delay = min(delay * 2, WATCH_RETRY_MAX)


def _print_event(data: str, as_json: bool) -> None:
    click.echo(data if as_json else tables.event(page(), json.loads(data)))
    sys.stdout.flush()


@main.command()
@click.argument("container", required=False)
@asks
def drain(client: Client, container: str | None) -> None:
    """Take this host's endpoints, or those of one CONTAINER, out of DNS until `undrain`."""
    click.echo(tables.tame(client.post("/v1/drain", {"container": container})["done"]))


@main.command()
@click.argument("container", required=False)
@asks
def undrain(client: Client, container: str | None) -> None:
    """Take `drain` back."""
    click.echo(tables.tame(client.post("/v1/undrain", {"container": container})["done"]))


@main.group()
def bgp() -> None:
    """Look at routes over BGP, and undo what it did to the host."""


@bgp.command("status")
@json_option
@asks
def bgp_status(client: Client, as_json: bool) -> None:
    """Say what is announced and how the host stands as a router."""
    show(client.get("/v1/bgp/status"), as_json, tables_bgp.status)


@bgp.command("peers")
@json_option
@asks
def bgp_peers(client: Client, as_json: bool) -> None:
    """List the peers."""
    show(client.get("/v1/bgp/peers"), as_json, tables_bgp.peers)


@bgp.command("routes")
@json_option
@asks
def bgp_routes(client: Client, as_json: bool) -> None:
    """List the routes that were learned and are used."""
    show(client.get("/v1/bgp/routes"), as_json, tables_bgp.routes)


@bgp.command("cleanup")
@config_option
def bgp_cleanup(config: Path | None) -> None:
    """Take away all that BGP has left on this host: routes, firewall exceptions, settings.

    While the daemon runs it would put them back: stop it first, or take out its [bgp].
    """
    import trio

    from discod.paths import runtime_dir, state_dir
    from discod.place import PlaceError, only_one
    from discod.routing import cleanup

    settings, _ = settings_of(config)
    uid = os.geteuid()
    try:
        with only_one(runtime_dir(settings.host, uid, os.environ)):
            state = state_dir(settings.host, uid, os.environ)
            done, failed = trio.run(cleanup, settings.bgp, state)
    except (PlaceError, OSError) as error:
        fail(str(error), NO)
    click.echo("\n".join(map(tables.tame, done)))
    if failed:
        fail("not taken away: " + "; ".join(map(tables.tame, failed)), NO)


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"discod {__version__}")


@main.command()
@click.option("--name", required=True, help="Service name.")
@click.option("--port", type=int, required=True, help="Port that the command listens on.")
@click.option("--protocol", type=click.Choice(["tcp", "udp"]), default="tcp", show_default=True)
@click.option("--port-name", default="", help="For SRV: _PORT-NAME._PROTOCOL.NAME.")
@click.option("--tag", "tags", multiple=True, help="May be given several times.")
@click.option("--weight", type=int, help="0 to 65535; default 100.")
@click.option("--priority", type=int, help="1 to 65535; default 10.")
@click.option("--ttl", type=int, help="Seconds that answers may be cached; default 0.")
@click.option("--alpn", multiple=True, help="As h2; may be given several times.")
@click.option("--prefer", type=click.Choice(["none", "local", "zone"]))
@click.option("--rescue/--no-rescue", default=None, help="Of clients that stay when it is gone.")
@click.option("--vip", multiple=True, help="auto, or an address of the service's own.")
@click.option("--affinity", type=click.Choice(["none", "client"]))
@click.option("--address", "addresses", multiple=True, help="Default: the host's own.")
@click.option("--check", help="tcp, tcp:PORT, http:/PATH or http:PORT/PATH; default: none.")
@click.option(
    "--drain",
    "drain_time",
    type=click.FloatRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="Between the withdrawal and the signal to the command.",
)
@click.option("--api", envvar="DISCOD_API", metavar="unix:/PATH", help="The control socket.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def announce(
    command: tuple[str, ...], api: str | None, drain_time: float, check: str | None, **given: Any
) -> None:
    """Run COMMAND, announced for as long as it lives.

    On SIGTERM or Ctrl-C: withdraw, wait until that is confirmed and for --drain, then pass the
    signal on. The exit status is the command's, or 128 and the number of the signal that ended it.
    """
    import trio

    from discod.announce_request import AnnounceError, check_from_text, parse_announce
    from discod.command import Companion

    keys = {"addresses": "address"}
    service = {keys.get(key, key): value for key, value in given.items() if value not in (None, ())}
    for key in ("tags", "address", "alpn"):
        if key in service:
            service[key] = list(service[key])
    if "vip" in service:  # one may be a word
        service["vip"] = vip[0] if len(vip := service["vip"]) == 1 else list(vip)
    if check is not None:
        service["check"] = check_from_text(check)
    document = {"services": [service]}
    try:
        parse_announce(document)
    except AnnounceError as error:
        fail("\n".join(str(fault).removeprefix("services[0].") for fault in error.faults), 2)
    targets = (api,) if api else default_targets(os.geteuid(), os.environ)
    sockets = [t.removeprefix("unix:") for t in targets if t.startswith("unix:/")]
    if not sockets:
        raise click.BadParameter(f"{api!r}: expected unix:/PATH", param_hint="--api")
    companion = Companion(command, document, sockets, drain_time, partial(_say, service["name"]))
    sys.exit(trio.run(companion.run))


def _say(name: str, text: str) -> None:
    with suppress(OSError):  # whoever read our standard error left; the command goes on
        click.echo(f"discod: {name}: {tables.tame(text)}", err=True)

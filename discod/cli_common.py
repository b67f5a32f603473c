"""What every command shares: its options, its way to the daemon, and how it ends.

Rule: as in `discod.cli`; nothing here knows a command.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from discod import tables
from discod.client import ApiError, Client, Unreachable, default_targets
from discod.tables import Page

if TYPE_CHECKING:
    from discod.model.settings import Settings

NO, UNREACHABLE = 1, 3

F = TypeVar("F", bound=Callable[..., Any])


def asks(command: F) -> F:
    """Give a command ``--api`` and, in the place of its value, the client for it."""

    @click.option(
        "--api",
        envvar="DISCOD_API",
        metavar="URL",
        help="http://HOST:PORT or unix:/PATH of the daemon (also DISCOD_API); "
        "default: this machine's control socket, then http://127.0.0.1:9353.",
    )
    @wraps(command)
    def wrapped(*args: Any, api: str | None, **kwargs: Any) -> Any:
        try:
            client = Client((api,) if api else default_targets(os.geteuid(), os.environ))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--api") from None
        try:
            return command(client, *args, **kwargs)
        except Unreachable as error:
            fail(str(error), UNREACHABLE)
        except ApiError as error:
            fail(str(error), NO)

    return wrapped  # type: ignore[return-value]  # click takes what it gets


json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's own document.")

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file; default: /etc/discod/discod.toml if there is one.",
)


def settings_of(config: Path | None) -> tuple[Settings, Path | None]:
    """What the file says, and where it is; the defaults without one."""
    from discod.config import DEFAULT_PATH, ConfigError, load_config
    from discod.model.settings import Settings

    path = config or (DEFAULT_PATH if DEFAULT_PATH.exists() else None)
    try:
        return (load_config(path) if path else Settings()), path
    except ConfigError as error:
        fail(str(error), NO)


def segment(name: str) -> str:
    """One segment of a path; a name with a slash in it is none."""
    from urllib.parse import quote

    return quote(name.lower().removesuffix("."), safe="")


def show(document: Any, as_json: bool, table: Callable[[Page, Any], str]) -> None:
    """Print a document, as it is or as a table."""
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(table(page(), document))


def page() -> Page:
    """What standard output is shown on (https://no-color.org)."""
    if not sys.stdout.isatty():
        return Page(time.time())
    try:
        width = os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:
        width = 0
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Page(time.time(), width or 80, not plain)


def fail(text: str, status: int) -> NoReturn:
    """Say what is wrong, and end."""
    click.echo("\n".join(f"discod: {tables.tame(line)}" for line in text.splitlines()), err=True)
    sys.exit(status)

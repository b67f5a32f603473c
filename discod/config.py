"""The configuration file: read it, and look at the files it names.

Rule: the parsing itself is pure and stands in `discod.config_parse`; here and in
`discod.config_files` is all of its file I/O.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from discod.config_bgp_files import bgp_file_faults
from discod.config_fault import ConfigError, ConfigFault
from discod.config_files import dns_file_faults, mode_fault, pair_fault, unreadable
from discod.config_parse import parse_config
from discod.model.settings import Settings

__all__ = [
    "DEFAULT_PATH",
    "EXAMPLE_PATH",
    "ConfigError",
    "ConfigFault",
    "check_files",
    "load_config",
    "parse_config",
]

DEFAULT_PATH = Path("/etc/discod/discod.toml")
EXAMPLE_PATH = Path(__file__).with_name("example.toml")
"""Every key with its default, and live examples of static services."""

SIZE_MAX = 1 << 20
"""Octets of a configuration file; a larger one was named by mistake."""


def load_config(path: Path) -> Settings:
    """Read the file at `path`.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, is too large, or has faults.
    """
    return parse_config(read_text(path), origin=str(path))


def read_text(path: Path) -> str:
    """The text of the file at `path`.

    Raises:
        ConfigError: it cannot be read, is not UTF-8, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_MAX + 1)
    except OSError as error:
        raise _error(path, f"expected a readable file: {error.strerror}") from None
    if len(data) > SIZE_MAX:
        raise _error(path, f"expected a file of at most {SIZE_MAX} octets")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(path, f"expected UTF-8: {error.reason} at octet {error.start}", line) from None


def _error(path: Path, expected: str, line: int | None = None) -> ConfigError:
    return ConfigError(str(path), [ConfigFault("", "", expected, line)])


def check_files(settings: Settings) -> tuple[ConfigFault, ...]:
    """What is wrong with the files that `settings` names, as this user sees them now.

    Docker's socket is not among them: the daemon waits for it.
    """
    return tuple(_file_faults(settings))


def _file_faults(settings: Settings) -> Iterator[ConfigFault]:
    store, dns = settings.store, settings.dns
    readable = True
    for key in ("ca", "cert", "key", "password_file"):
        path = getattr(store, key)
        if path:
            fault = unreadable(path)
            readable = readable and not fault
            if fault:
                yield _fault(f"store.{key}", path, fault)
    if readable:
        yield from _tls_faults(settings)
    if store.password_file and not unreadable(store.password_file):
        yield from _password_faults(store.password_file)
    if dns.listen and dns.forward and not dns.upstreams:
        fault = unreadable(dns.resolv_conf)
        if fault:
            yield _fault("dns.resolv_conf", dns.resolv_conf, f"{fault}; or name dns.upstreams")
    for key, path, expected in dns_file_faults(settings):
        yield _fault(key, path, expected)
    for key, path, expected in bgp_file_faults(settings.bgp) if settings.bgp else ():
        yield _fault(key, path, expected)


def _fault(key: str, value: str, expected: str) -> ConfigFault:
    return ConfigFault(key, f'"{value}"', expected, None)


def _tls_faults(settings: Settings) -> Iterator[ConfigFault]:
    store = settings.store
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if store.ca:
        try:
            context.load_verify_locations(store.ca)
        except (ssl.SSLError, OSError):
            yield _fault("store.ca", store.ca, "expected PEM certificates")
    if store.cert and store.key:
        what = pair_fault(context, store.cert, store.key, "store.key")
        if what:
            yield _fault("store.cert", store.cert, what)


def _password_faults(path: str) -> Iterator[ConfigFault]:
    try:
        lines = read_text(Path(path)).splitlines()
        open_to = mode_fault(path)
    except (ConfigError, OSError):
        yield _fault("store.password_file", path, "expected UTF-8 text")
        return
    if not lines or not lines[0].strip():
        yield _fault("store.password_file", path, "expected the password on its first line")
    if open_to:
        yield _fault("store.password_file", path, open_to)

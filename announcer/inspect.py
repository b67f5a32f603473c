"""From the engine's inspect document to a `Container`.

Rule: the only place that looks at raw engine JSON. Whatever is missing, of an odd type or out of
range becomes a neutral value; only a document without an id is no container. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from announcer.container import Attachment, Container, Healthcheck, Publication, Status
from discod.model.endpoint import Address, Protocol
from discod.model.settings import Network

OUTPUT_MAX = 200
"""Characters kept of a HEALTHCHECK's output: enough for a person to recognise the failure."""

PID_MAX = 2**22
"""The kernel's own limit (proc(5)); more than a C int holds would be an error of another kind."""

_ID = re.compile(r"[0-9a-f]{12,64}\Z")
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\Z")
_PORT = re.compile(r"[0-9]{1,5}\Z")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,12}))?(?:[Zz]|([+-])(\d\d):(\d\d))\Z", re.ASCII
)
_TIME_MAX = 1e11
_EPOCH = datetime(1970, 1, 1)  # without a zone, as the times it is taken from: all are UTC


def parse_container(document: Mapping[str, Any]) -> Container:
    """The container behind one answer of ``GET /containers/<id>/json``.

    For a container that does not run, `Container.published` comes from what was asked for
    (``HostConfig.PortBindings``) where that names fixed ports, since the engine forgets the rest.

    Raises:
        ValueError: there is no usable ``Id``; the message names what is missing.
    """
    id_ = document.get("Id")
    if not isinstance(id_, str) or not _ID.match(id_):
        raise ValueError(f"Id: expected 12 to 64 hexadecimal digits, found {id_!r:.80}")
    config = _object(document, "Config")
    state = _object(document, "State")
    network = _object(document, "NetworkSettings")
    asked = _object(document, "HostConfig")
    status = _status(state)
    published = _publications(_object(network, "Ports"))
    if not published and status not in (Status.RUNNING, Status.PAUSED):
        published = _publications(_object(asked, "PortBindings"))
    health = _object(state, "Health")
    return Container(
        id=id_,
        name=_text(document, "Name").removeprefix("/"),
        image=_text(config, "Image"),
        status=status,
        pid=_pid(state),
        exit_code=_integer(state, "ExitCode"),
        oom_killed=state.get("OOMKilled") is True,
        started=unix_seconds(_text(state, "StartedAt")),
        health=_health(health),
        health_output=_last_output(health),
        labels=_labels(_object(config, "Labels")),
        env=_env(config.get("Env")),
        network_mode=_text(asked, "NetworkMode"),
        attachments=_attachments(_object(network, "Networks")),
        exposed=tuple(sorted(p for p in map(_port, _object(config, "ExposedPorts")) if p)),
        published=published,
        stop_signal=_text(config, "StopSignal") or "SIGTERM",
    )


def local_subnets(documents: Any) -> tuple[Network, ...]:
    """Subnets in an answer of ``GET /networks``, of bridges (on one host alone); sorted."""
    found: set[Network] = set()
    for document in documents if isinstance(documents, list) else ():
        if not isinstance(document, Mapping) or document.get("Driver") != "bridge":
            continue
        configs = _object(document, "IPAM").get("Config")
        for config in configs if isinstance(configs, list) else ():
            text = _text(config, "Subnet") if isinstance(config, Mapping) else ""
            try:
                network = ip_network(text, strict=False)
            except ValueError:
                continue
            if not network.is_link_local:
                found.add(network)
    return tuple(sorted(found, key=lambda n: (n.version, n.network_address.packed, n.prefixlen)))


def unix_seconds(text: str) -> float:
    """An RFC 3339 time, with up to nanoseconds, in Unix seconds.

    0 for what is no such time, for times before 1970 (the engine writes ``0001-01-01T00:00:00Z``
    for "never"), and for those that no record can hold (after the year 5138).
    """
    match = _TIME.match(text)
    if match is None:
        return 0.0
    stamp, fraction, sign, hours, minutes = match.groups()
    try:
        since = datetime.fromisoformat(stamp.upper()) - _EPOCH
    except ValueError:
        return 0.0
    if sign:
        offset = timedelta(hours=int(hours), minutes=int(minutes))
        since += offset if sign == "-" else -offset
    seconds = since.total_seconds() + float(f"0.{fraction or 0}")
    return seconds if 0 <= seconds < _TIME_MAX else 0.0


def tame(text: str, limit: int = OUTPUT_MAX) -> str:
    """`text` as one printable line of at most `limit` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _clean(text: str) -> str:
    # JSON can carry lone surrogates, which no store or log could encode again.
    return text.encode("utf-8", "replace").decode("utf-8")


def _object(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name)
    if not isinstance(value, Mapping):
        return {}
    return {_clean(key): item for key, item in value.items() if isinstance(key, str)}


def _text(parent: Mapping[str, Any], name: str) -> str:
    value = parent.get(name)
    return _clean(value) if isinstance(value, str) else ""


def _integer(parent: Mapping[str, Any], name: str) -> int:
    value = parent.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _pid(state: Mapping[str, Any]) -> int:
    value = _integer(state, "Pid")
    return value if 0 < value <= PID_MAX else 0


def _status(state: Mapping[str, Any]) -> Status:
    text = _text(state, "Status")
    if text in tuple(Status):
        return Status(text)
    return Status.RUNNING if state.get("Running") is True else Status.CREATED


def _health(health: Mapping[str, Any]) -> Healthcheck:
    text = _text(health, "Status")
    return Healthcheck(text) if text in tuple(Healthcheck) else Healthcheck.NONE


def _last_output(health: Mapping[str, Any]) -> str:
    runs = health.get("Log")
    if not isinstance(runs, list) or not runs or not isinstance(runs[-1], Mapping):
        return ""
    return tame(_text(runs[-1], "Output"))


def _labels(labels: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((k, _clean(v)) for k, v in labels.items() if isinstance(v, str)))


def _env(entries: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(entries, list):
        return ()
    found: dict[str, str] = {}  # the last of a doubled variable wins, as in the engine
    for entry in entries:
        if isinstance(entry, str) and "=" in entry:
            key, _, value = _clean(entry).partition("=")
            found[key] = value
    return tuple(sorted(found.items()))


def _port(text: str) -> tuple[int, Protocol] | None:
    number, _, protocol = text.partition("/")
    if not _PORT.match(number) or not 1 <= int(number) <= 65535:
        return None
    if protocol in ("", "tcp"):
        return int(number), "tcp"
    return (int(number), "udp") if protocol == "udp" else None


def _publications(ports: Mapping[str, Any]) -> tuple[Publication, ...]:
    found: set[Publication] = set()
    for text, bindings in ports.items():
        port = _port(text)
        if port is None or not isinstance(bindings, list):
            continue  # null: exposed, not published
        for binding in bindings:
            host_port = _text(binding, "HostPort") if isinstance(binding, Mapping) else ""
            if not _PORT.match(host_port) or not 1 <= int(host_port) <= 65535:
                continue
            host_ip = _text(binding, "HostIp")
            address = _address(host_ip)
            if host_ip and address is None:
                continue
            found.add(Publication(port[0], port[1], address, int(host_port)))
    return tuple(
        sorted(found, key=lambda p: (p.port, p.protocol, p.host_port, str(p.host_address or "")))
    )


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def _attachments(networks: Mapping[str, Any]) -> tuple[Attachment, ...]:
    found: list[Attachment] = []
    for name, network in sorted(networks.items()):
        parts = network if isinstance(network, Mapping) else {}
        v4 = _address(_text(parts, "IPAddress"))
        v6 = _address(_text(parts, "GlobalIPv6Address"))
        found.append(
            Attachment(
                network=name,
                network_id=_text(parts, "NetworkID"),
                ipv4=v4 if isinstance(v4, IPv4Address) and not v4.is_unspecified else None,
                ipv6=v6 if isinstance(v6, IPv6Address) and not v6.is_unspecified else None,
                mac=_mac(_text(parts, "MacAddress")),
            )
        )
    return tuple(found)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", "")) if _MAC.match(text) else b""

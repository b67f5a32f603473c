"""Fuzz targets: labels and variables of a container, whole inspect documents, engine events.

Rule: each target raises when something comes out but what the function declares, or when anything
of another container changes by it.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Address, ip_address
from typing import Any
from zlib import crc32

from announcer.container import Attachment, Container, Publication, Status
from announcer.events import parse_event
from announcer.inspect import parse_container
from announcer.metadata import FAULTS_MAX
from announcer.offer import Reading, Scope
from announcer.reading import read
from discod.model.endpoint import Refusal
from discod.model.schema import (
    RecordKey,
    decode_record,
    decode_refusal,
    encode_endpoint,
    encode_refusal,
)
from discod.model.settings import AnnounceSettings, CheckSettings
from tests.resolving import KEYS

PID_MAX = 2**22
"""The kernel's own limit (proc(5))."""
SCOPES = tuple(
    Scope(
        "alpha",
        (ip_address("192.0.2.1"), ip_address("2001:db8::1")),
        AnnounceSettings(require_label=require, deny=("secret-*",)),
        CheckSettings(),
    )
    for require in (False, True)
)


def _container(digit: str, labels: tuple[tuple[str, str], ...], **more: Any) -> Container:
    values: dict[str, Any] = {
        "name": f"box-{digit}",
        "image": "registry:5000/team/web:1.2",
        "status": Status.RUNNING,
        "pid": 77,
        "started": 1.7e9,
        "labels": labels,
        "network_mode": "bridge",
        "attachments": (Attachment("bridge", "n", IPv4Address("10.101.1.9")),),
        "exposed": ((80, "tcp"), (53, "udp")),
        "published": (Publication(80, "tcp", None, 32768),),
        **more,
    }
    return Container(digit * 64, **values)


OTHER = _container("b", (("discod.name", "web"), ("discod.tags", "blue")))
OTHERS = tuple(read(OTHER, scope) for scope in SCOPES)
"""What another container offers, before anything was fuzzed."""
assert all(reading.offers for reading in OTHERS)


def labels_of(data: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and variables: a ``key=value`` a line, ``\\x01`` for a line break; ``$`` in front of a
    variable."""
    labels: dict[str, str] = {}
    env: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\n"):
        key, _, value = line.partition("=")
        into = env if key.startswith("$") else labels
        into[key.removeprefix("$").replace("\x01", "\n")] = value.replace("\x01", "\n")
    return labels, env


def labels(data: bytes) -> None:
    """Target: what somebody wrote on a container."""
    found, env = labels_of(data)
    one = _container("a", tuple(sorted(found.items())), env=tuple(sorted(env.items())))
    turned = _container(
        "a", tuple(sorted(found.items(), reverse=True)), env=tuple(sorted(env.items())[::-1])
    )
    # Each costs a millisecond: the input chooses.
    chosen = crc32(data) & 1
    scope = SCOPES[chosen]
    reading = read(one, scope)
    check_reading(one, reading)
    if crc32(data) & 2:
        assert reading == read(turned, scope), "it depends on the order of labels"
    else:
        assert read(OTHER, scope) == OTHERS[chosen], "another container offers something else now"


def check_reading(container: Container, reading: Reading) -> None:
    """That others can read what comes of a reading, and people."""
    assert bool(reading.offers) + bool(reading.faults) + bool(reading.silent) == 1
    assert len(reading.faults) <= FAULTS_MAX + 1
    for fault in reading.faults:
        shown = str(fault)
        assert shown.isprintable() and len(shown) < 3000, repr(shown)
        shown.encode()
    if reading.faults:
        refusal = Refusal("alpha", container.id, container.name, reading.faults, 1.0)
        value = encode_refusal(refusal)
        again = decode_refusal("k", "alpha", container.id, value)
        assert [f.subject for f in again.faults] == [f.subject for f in reading.faults]
    ids = set()
    for offer in reading.offers:
        endpoint = offer.endpoint
        assert endpoint.container == container.id
        key = KEYS.record(endpoint.id)
        assert KEYS.parse(key) == RecordKey(endpoint.id)
        assert decode_record(key, endpoint.id, encode_endpoint(endpoint)) == endpoint
        ids.add(endpoint.id)
    assert len(ids) == len(reading.offers), "two offers with one name"


def label_seeds() -> list[bytes]:
    """One or more of every key."""
    return [
        b"discod.name=web\ndiscod.port=80\ndiscod.tags=blue,v1\ndiscod.weight=50",
        b"discod.80.name=web\ndiscod.53-udp.name=dns2\ndiscod.80-tcp.port-name=http",
        b"discod.name=w\ndiscod.check=http:/health?x=1\ndiscod.check.interval=1m30s\n"
        b"discod.check.status=200-399\ndiscod.check.rise=2\ndiscod.check.fall=3",
        b'discod.name=w\ndiscod.check=cmd:["sh","-c","true"]\ndiscod.check.timeout=2.5',
        b"discod.name=w\ndiscod.attr.team=storage\ndiscod.attr.a.b=c d\ndiscod.ttl=5",
        b"discod.name=w\ndiscod.alpn=h2,http/1.1\ndiscod.prefer=local\ndiscod.priority=1",
        b"discod.name=w\ndiscod.address=published\ndiscod.network=bridge\ndiscod.80.ignore=true",
        b"discod.port=80,53/udp, 53/tcp\ndiscod.name=w\ndiscod.check=tcp\ndiscod.check.port=81",
        b"SERVICE_NAME=web\nSERVICE_TAGS=a,b\\,c\nSERVICE_80_NAME=api\nSERVICE_ID=i",
        b"$SERVICE_NAME=web\n$SERVICE_80_CHECK_HTTP=/x\n$SERVICE_CHECK_INTERVAL=15s\n$PATH=/bin",
        b"SERVICE_53_IGNORE=true\nSERVICE_CHECK_TCP=true\nSERVICE_REGION=eu\nSERVICE_CHECK_TTL=1s",
        b"Discod.name=web\ndiscod.rescue=on\ndiscod.nmae=x\ndiscod=1\ndiscod.80=1\ndiscod.x.y=z",
        b"com.docker.compose.service=shop\nmaintainer=me",
        b"discod.name=we\x01b\ndiscod.attr.k=a\x01b",
        b"discod.name=secret-x",
        b"discod.ignore=yes",
    ]


LABEL_WORDS = (
    *b"discod. SERVICE_ name port tags weight ttl alpn prefer address ignore check interval "
    b"rise fall status path attr network priority 80 53-udp 80-tcp tcp udp http cmd none local "
    b"NAME TAGS ID IGNORE CHECK_HTTP CHECK_CMD CHECK_TCP CHECK_INTERVAL 65535 100ms 1h true "
    b"published container auto \\, $SERVICE_ web".split(),
    b"\ndiscod.", b"\nSERVICE_",
)  # fmt: skip


# Inspect documents ----------------------------------------------------------------------------


def inspect(data: bytes) -> None:
    """Target: what the engine says of a container."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return  # the client's, not ours
    if not isinstance(document, dict):
        return
    try:
        container = parse_container(document)
    except ValueError as error:
        assert len(str(error)) < 300 and "Id" in str(error)
        return
    assert 0 <= container.pid <= PID_MAX, "no system call takes that"
    assert 1 <= container.stop_signal_number <= 64
    assert len(container.health_output) <= 200 and container.health_output.isprintable()
    for text in (container.name, container.image, container.network_mode):
        text.encode()
    chosen = crc32(data) & 1
    scope = SCOPES[chosen]
    check_reading(container, read(container, scope, borrowed=OTHER))
    if crc32(data) & 2:
        check_reading(OTHER, read(OTHER, scope, borrowed=container))
    else:
        assert read(OTHER, scope) == OTHERS[chosen]


def _document(**state: Any) -> dict[str, Any]:
    return {
        "Id": "ab" * 32,
        "Name": "/web-1",
        "State": {
            "Status": "running", "Running": True, "Pid": 4711, "ExitCode": 0, "OOMKilled": False,
            "StartedAt": "2024-05-06T07:08:09.123456789Z",
            "Health": {"Status": "healthy", "Log": [{"ExitCode": 0, "Output": "ok\n"}]},
            **state,
        },
        "Config": {
            "Image": "web:1", "Env": ["PATH=/bin", "SERVICE_NAME=web"], "StopSignal": "SIGRTMIN+3",
            "Labels": {"discod.name": "web", "discod.port": "80"},
            "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        },
        "HostConfig": {"NetworkMode": "bridge", "PortBindings": {"80/tcp": [{"HostPort": "81"}]}},
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}], "53/udp": None},
            "Networks": {"bridge": {"IPAddress": "10.1.2.3", "GlobalIPv6Address": "2001:db8::3",
                                    "NetworkID": "n1"}},
        },
    }  # fmt: skip


def inspect_seeds() -> list[bytes]:
    """Documents as engines write them."""
    shared = _document()
    shared["HostConfig"]["NetworkMode"] = "container:" + "b" * 64
    host = _document()
    host["HostConfig"]["NetworkMode"] = "host"
    found = [
        _document(),
        _document(Status="exited", Running=False, Pid=0, ExitCode=137),
        _document(StartedAt="0001-01-01T00:00:00Z", Health=None),
        shared,
        host,
        {"Id": "c" * 64},
    ]
    return [json.dumps(one).encode() for one in found]


INSPECT_WORDS = tuple(
    b'"Id" "Name" "State" "Status" "running" "paused" "Pid" "ExitCode" "Health" "Log" "Output" '
    b'"Config" "Labels" "Env" "ExposedPorts" "80/tcp" "53/udp" "HostConfig" "NetworkMode" "host" '
    b'"Ports" "HostIp" "HostPort" "Networks" "IPAddress" "GlobalIPv6Address" [] {} null 4194305 '
    b'2147483648 "SIGKILL" "15" "::" "0.0.0.0" "fe80::1%lo" "discod.name" "discod.80.name"'.split()
)


# Events ---------------------------------------------------------------------------------------


def events(data: bytes) -> None:
    """Target: one line of the engine's event stream."""
    try:
        event = parse_event(data)
    except ValueError as error:
        assert len(str(error)) < 1000
        return
    if event is not None:
        assert event.container and (event.signal is None or isinstance(event.signal, int))


def event_seeds() -> list[bytes]:
    """Events as engines write them."""
    actor = {"ID": "ab" * 32, "Attributes": {"signal": "15", "exitCode": "0", "name": "web"}}
    network = {"ID": "n", "Attributes": {"container": "cd" * 32, "name": "bridge"}}
    found = [
        {"Type": "container", "Action": action, "Actor": actor, "time": 1, "timeNano": 10**18}
        for action in ("start", "kill", "die", "health_status: healthy", "exec_start: sh")
    ]
    found.append({"Type": "network", "Action": "disconnect", "Actor": network, "time": 2})
    return [json.dumps(one).encode() for one in found]


EVENT_WORDS = tuple(
    b'"Type" "Action" "Actor" "ID" "Attributes" "signal" "exitCode" "container" "network" "kill" '
    b'"die" "connect" "time" "timeNano" null [] {} "health_status: unhealthy" "SIGTERM"'.split()
)

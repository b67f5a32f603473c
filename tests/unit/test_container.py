"""`announcer.inspect`: the engine's document becomes a `Container`, whatever is in it."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from announcer.container import Attachment, Container, Healthcheck, Publication, Status
from announcer.inspect import OUTPUT_MAX, parse_container, tame, unix_seconds

ID = "0123456789ab" + "c" * 52

DOCUMENT: dict[str, Any] = {
    "Id": ID,
    "Name": "/shop-web-1",
    "State": {
        "Status": "running",
        "Running": True,
        "Pid": 4242,
        "ExitCode": 0,
        "OOMKilled": False,
        "StartedAt": "2026-11-22T10:00:00.5Z",
        "Health": {
            "Status": "unhealthy",
            "Log": [{"Output": "first"}, {"Output": "connect:\n\x1b[31mrefused\x00 " + "x" * 500}],
        },
    },
    "Config": {
        "Image": "registry:5000/team/web:1.2",
        "Labels": {"b": "2", "a": "1"},
        "Env": ["PATH=/bin", "SERVICE_NAME=old", "SERVICE_NAME=web", "EQ=a=b", "BARE"],
        "ExposedPorts": {"443/tcp": {}, "80/tcp": {}, "53/udp": {}, "9/sctp": {}, "x/tcp": {}},
        "StopSignal": "SIGQUIT",
    },
    "HostConfig": {
        "NetworkMode": "shop_default",
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
    },
    "NetworkSettings": {
        "Ports": {
            "443/tcp": None,
            "80/tcp": [
                {"HostIp": "::", "HostPort": "8080"},
                {"HostIp": "0.0.0.0", "HostPort": "8080"},
                {"HostIp": "0.0.0.0", "HostPort": "8080"},
                {"HostIp": "", "HostPort": "9090"},
                {"HostIp": "not an address", "HostPort": "1"},
                {"HostIp": "", "HostPort": ""},
                {"HostIp": "", "HostPort": "99999"},
                "odd",
            ],
        },
        "Networks": {
            "shop_default": {
                "NetworkID": "net1",
                "IPAddress": "10.101.1.2",
                "GlobalIPv6Address": "2001:db8:1::2",
                "MacAddress": "02:42:0a:65:01:02",
            },
            "back": {"NetworkID": "net2", "IPAddress": "", "MacAddress": "02:42:0a:65:01"},
            "odd": None,
        },
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    *parents, last = path.split(".")
    part = document
    for name in parents:
        part = part[name]
    part[last] = value
    return document


def test_a_whole_document() -> None:
    assert parse_container(DOCUMENT) == Container(
        id=ID,
        name="shop-web-1",
        image="registry:5000/team/web:1.2",
        status=Status.RUNNING,
        pid=4242,
        exit_code=0,
        oom_killed=False,
        started=1795341600.5,
        health=Healthcheck.UNHEALTHY,
        health_output=("connect: [31mrefused " + "x" * 500)[: OUTPUT_MAX - 3] + "...",
        labels=(("a", "1"), ("b", "2")),
        env=(("EQ", "a=b"), ("PATH", "/bin"), ("SERVICE_NAME", "web")),
        network_mode="shop_default",
        attachments=(
            Attachment("back", "net2"),
            Attachment("odd", ""),
            Attachment(
                "shop_default",
                "net1",
                IPv4Address("10.101.1.2"),
                IPv6Address("2001:db8:1::2"),
                bytes.fromhex("02420a650102"),
            ),
        ),
        exposed=((53, "udp"), (80, "tcp"), (443, "tcp")),
        published=(
            Publication(80, "tcp", ip_address("0.0.0.0"), 8080),
            Publication(80, "tcp", ip_address("::"), 8080),
            Publication(80, "tcp", None, 9090),
        ),
        stop_signal="SIGQUIT",
    )


def test_the_order_of_the_document_does_not_matter() -> None:
    def reverse(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: reverse(v) for k, v in reversed(value.items())}
        return value

    assert parse_container(reverse(DOCUMENT)) == parse_container(DOCUMENT)


def test_only_an_id_is_needed() -> None:
    assert parse_container({"Id": ID}) == Container(ID, "", "", Status.CREATED)


@pytest.mark.parametrize("id_", [None, "", 7, "xyz", "0123", "A" * 64, ID + "0", ID + "\n", []])
def test_no_container_without_an_id(id_: object) -> None:
    with pytest.raises(ValueError, match=r"^Id: expected"):
        parse_container({"Id": id_})


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"Status": "paused", "Running": True}, Status.PAUSED),
        ({"Status": "restarting", "Running": True}, Status.RESTARTING),
        ({"Status": "stopping", "Running": True}, Status.RUNNING),
        ({"Status": 3}, Status.CREATED),
        (None, Status.CREATED),
    ],
)
def test_status(state: object, status: Status) -> None:
    assert parse_container({"Id": ID, "State": state}).status == status


def test_a_stopped_container_keeps_the_fixed_ports_it_asked_for() -> None:
    document = changed("NetworkSettings.Ports", {})
    assert parse_container(document).published == ()  # running: the engine's word counts
    document["State"]["Status"] = "exited"
    assert parse_container(document).published == (Publication(80, "tcp", None, 8080),)
    document["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"] = "8000-8010"
    assert parse_container(document).published == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0001-01-01T00:00:00Z", 0.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("2026-11-22T10:00:00Z", 1795341600.0),
        ("2026-11-22T10:00:00.123456789Z", 1795341600.123456789),
        ("2026-11-22T12:00:00.25+02:00", 1795341600.25),
        ("2026-11-22T04:30:00-05:30", 1795341600.0),
        ("2026-11-22t10:00:00z", 1795341600.0),
        ("2026-13-22T10:00:00Z", 0.0),
        ("2026-11-22T10:00:60Z", 0.0),
        ("2026-11-22 10:00:00", 0.0),
        ("٢٠٢٦-11-22T10:00:00Z", 0.0),
        ("", 0.0),
        ("9999-12-31T23:59:59-23:59", 0.0),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert unix_seconds(text) == pytest.approx(seconds, abs=1e-6)


def test_lone_surrogates_are_replaced() -> None:
    container = parse_container(
        {
            "Id": ID,
            "Name": "/\ud800",
            "Config": {"Labels": {"a\udfff": "\ud800"}, "Env": ["\ud800="]},
        }
    )
    assert (container.name, container.labels, container.env) == ("?", (("a?", "?"),), (("?", ""),))


@pytest.mark.parametrize(
    ("signal", "number"),
    [
        ("SIGTERM", 15),
        ("TERM", 15),
        ("sigquit", 3),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("SIGRTMIN+x", 15),
        ("0", 15),
        ("9" * 5000, 15),
        ("SIGNONE", 15),
        ("", 15),
    ],
)
def test_stop_signal_number(signal: str, number: int) -> None:
    assert Container(ID, "", "", Status.RUNNING, stop_signal=signal).stop_signal_number == number


@given(st.text(), st.integers(4, 300))
def test_tame_is_one_short_line(text: str, limit: int) -> None:
    tamed = tame(text, limit)
    assert len(tamed) <= limit
    assert tamed.isprintable()
    assert tame(tamed, limit) == tamed


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.sampled_from(["80/tcp", "0.0.0.0", "running", "2026-11-22T10:00:00Z", "A=b", "fe80::1%1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["80/tcp", "HostIp", "HostPort", "Output", "Log", "IPAddress"])
            | st.text(st.characters(), max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)

_PATHS = [
    f"{parent}.{name}"
    for parent in ("State", "Config", "HostConfig", "NetworkSettings")
    for name in DOCUMENT[parent]
] + ["Name", "State", "Config", "HostConfig", "NetworkSettings"]


@given(st.sampled_from(_PATHS), _JSON)
def test_odd_parts_never_raise(path: str, value: Any) -> None:
    container = parse_container(changed(path, value))
    json.dumps([container.labels, container.env, container.name]).encode()
    container.stop_signal_number  # noqa: B018 - must not raise
    assert container.started >= 0
    assert all(1 <= p.host_port <= 65535 for p in container.published)

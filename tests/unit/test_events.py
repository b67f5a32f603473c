"""Events of the engine: parsing, summaries of its list, and the way from the thread to trio."""

from __future__ import annotations

import json
import logging
import random
import threading
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from announcer.errors import EngineUnavailable
from announcer.events import FILTERS, EngineEvent, Resync, parse_event, signal_number
from announcer.stream import LINE_MAX, EventStream
from announcer.summary import summarise

ID = "3ad4580f09a349ed8e634e59603a714d5597964209f057c17230c92ff77dd478"
NANO = 1_700_000_000_123_456_789


def line(action: str = "start", kind: str = "container", **attributes: str) -> bytes:
    """As dockerd 20.10 writes it."""
    actor = {"ID": ID if kind == "container" else "f" * 64, "Attributes": attributes}
    event = {"Type": kind, "Action": action, "Actor": actor, "scope": "local"}
    return json.dumps({**event, "time": NANO // 10**9, "timeNano": NANO}).encode()


# Parsing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "action", "signal"),
    [
        (line("create", image="bb:1", name="x"), "create", None),
        (line("kill", signal="15"), "kill", 15),
        (line("kill", signal="SIGQUIT"), "kill", 3),
        (line("die", exitCode="137"), "die", None),
        (line("health_status: healthy"), "health_status: healthy", None),
        (line("health_status: unhealthy"), "health_status: unhealthy", None),
        (line("rename", oldName="/a", name="b"), "rename", None),
    ],
)
def test_container_events(raw: bytes, action: str, signal: int | None) -> None:
    event = parse_event(raw)
    assert event is not None
    assert (event.kind, event.action, event.container) == ("container", action, ID)
    assert event.signal == signal
    assert event.time == pytest.approx(1_700_000_000.123456789)
    assert event.attributes == json.loads(raw)["Actor"]["Attributes"]


def test_network_events_name_the_container() -> None:
    event = parse_event(line("connect", kind="network", container=ID, name="side", type="bridge"))
    assert event is not None
    assert (event.kind, event.action, event.container) == ("network", "connect", ID)
    assert event.attributes["name"] == "side"


@pytest.mark.parametrize(
    "raw",
    [
        line("exec_create: sh -c true"),
        line("exec_start: true"),
        line("exec_die"),
        line("attach"),
        line("create", kind="network", name="side"),
        line("destroy", kind="network", name="side"),
        line("pull", kind="image"),
        line("connect", kind="container"),
        line("start", kind="plugin"),
    ],
)
def test_others_are_left_out(raw: bytes) -> None:
    assert parse_event(raw) is None


def without(name: str) -> bytes:
    event = json.loads(line())
    del event[name]
    return json.dumps(event).encode()


def with_(**values: Any) -> bytes:
    return json.dumps({**json.loads(line()), **values}).encode()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "expected JSON"),
        (b"{", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"[]", "expected an object, found list"),
        (b"null", "expected an object"),
        (without("Type"), "Type: expected a string"),
        (without("Action"), "Action: expected a string"),
        (without("Actor"), "Actor: expected an object"),
        (with_(Actor=[]), "Actor: expected an object"),
        (with_(Actor={"ID": ""}), "ID: expected a string"),
        (with_(Actor={"ID": 7}), "ID: expected a string, found 7"),
        (with_(Actor={"ID": ID, "Attributes": [1]}), "Attributes: expected an object of strings"),
        (with_(Actor={"ID": ID, "Attributes": {"a": 1}}), "Attributes: expected an object"),
        (with_(timeNano=None, time="now"), "timeNano: expected"),
        (with_(timeNano=True, time=-1), "timeNano: expected"),
        (line("kill"), "signal: expected a string"),
        (line("kill", signal="SIGNOPE"), "no such signal: 'SIGNOPE'"),
        (line("connect", kind="network"), "container: expected a string"),
    ],
)
def test_malformed_events_are_named(raw: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_event(raw)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "Type": st.sampled_from(["container", "network", "image"]) | _json,
            "Action": st.sampled_from(["kill", "die", "connect", "start"]) | _json,
            "Actor": st.fixed_dictionaries(
                {}, optional={"ID": st.just(ID) | _json, "Attributes": _json}
            )
            | _json,
            "time": st.integers() | _json,
            "timeNano": st.integers() | _json,
        },
    )
)
def test_any_document_is_an_event_or_none_or_a_value_error(document: dict[str, Any]) -> None:
    try:
        event = parse_event(json.dumps(document).encode())
    except ValueError:
        return
    assert event is None or event.container


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("15", 15),
        ("9", 9),
        ("64", 64),
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigint", 2),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX", 64),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize(
    "text", ["0", "65", "-1", "9" * 5000, "", "SIG", "TERM+x", "\u0661", "KILLER"]
)
def test_no_signals(text: str) -> None:
    with pytest.raises(ValueError, match="no such signal"):
        signal_number(text)


def test_filter_asks_for_nothing_that_exec_makes() -> None:
    # With `health_status` among them the engine compares prefixes.
    assert FILTERS["event"]
    for action in ("exec_create: x", "exec_start: x", "exec_die", "resize", "top", "attach"):
        assert not any(action.startswith(wanted) for wanted in FILTERS["event"])


# Summaries ----------------------------------------------------------------------------------------

ITEM: dict[str, Any] = {
    "Id": ID,
    "Names": ["/web", "/other/alias"],
    "Image": "bb:1",
    "ImageID": "sha256:1",
    "Command": "sh",
    "Created": 1,
    "Ports": [
        {"PrivatePort": 80, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"},
    ],
    "Labels": {"a": "1", "b": "2"},
    "State": "running",
    "Status": "Up 3 minutes (healthy)",
    "HostConfig": {"NetworkMode": "default"},
    "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.1.0.2", "EndpointID": "e1"}}},
    "Mounts": [],
}


@pytest.mark.parametrize(
    "change",
    [
        {"State": "paused"},
        {"Status": "Up 3 minutes (unhealthy)"},
        {"Status": "Up 3 minutes (health: starting)"},
        {"Status": "Up 3 minutes"},
        {"Names": ["/renamed"]},
        {"Labels": {"a": "1"}},
        {"Ports": []},
        {"NetworkSettings": {"Networks": {}}},
        {"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.1.0.3"}}}},
        {"NetworkSettings": {"Networks": {"bridge": {"IPAddress": "10.1.0.2", "EndpointID": "2"}}}},
        {"HostConfig": {"NetworkMode": "host"}},
    ],
)
def test_what_changes_a_summary(change: dict[str, Any]) -> None:
    assert summarise({**ITEM, **change}) != summarise(ITEM)


@pytest.mark.parametrize(
    "change",
    [
        {"Status": "Up 4 hours (healthy)"},
        {"Names": ITEM["Names"][::-1]},
        {"Ports": ITEM["Ports"][::-1]},
        {"Labels": {"b": "2", "a": "1"}},
        {"Mounts": [{"Type": "volume"}]},
        {"Created": 2},
    ],
)
def test_what_does_not(change: dict[str, Any]) -> None:
    assert summarise({**ITEM, **change}) == summarise(ITEM)
    assert summarise(ITEM).id == ID


def test_a_list_element_without_id_is_refused() -> None:
    with pytest.raises(ValueError, match="Id: expected a string"):
        summarise({"Id": None})
    assert summarise({"Id": ID, "Names": None, "Ports": None}).id == ID


# The way to trio ----------------------------------------------------------------------------------


def stream(limit: int = 4096) -> EventStream:
    return EventStream(trio.lowlevel.current_trio_token(), limit)


async def drain(events: EventStream) -> list[EngineEvent | Resync]:
    """Everything up to the end, which has to be one."""
    found = []
    with pytest.raises(EngineUnavailable, match="over"):
        while True:
            found.append(await anext(events))
    return found


async def test_events_arrive_whole_however_they_are_cut() -> None:
    raw = b"".join(line("rename", name=f"n{n}") + b"\n" for n in range(50)) + b"\n\n"
    rng = random.Random(7)
    for size in (1, 2, 7, 100, len(raw)):
        events = stream()
        at = 0
        while at < len(raw):
            step = rng.randint(1, size)
            events.feed(raw[at : at + step])
            at += step
        events.end("over")
        names = [e.attributes["name"] for e in await drain(events) if isinstance(e, EngineEvent)]
        assert names == [f"n{n}" for n in range(50)]


async def test_a_reader_is_woken_from_a_thread() -> None:
    events = stream()
    async with trio.open_nursery() as nursery:
        found: list[EngineEvent | Resync] = []

        async def read() -> None:
            found.extend(await drain(events))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()

        def write() -> None:
            for n in range(1000):
                events.feed(line("rename", name=str(n)) + b"\n")
            events.end("over")

        await trio.to_thread.run_sync(write)
    assert len(found) == 1000


async def test_what_does_not_fit_becomes_one_resync_in_its_place() -> None:
    events = stream(limit=3)
    for n in range(9):
        events.feed(line("rename", name=str(n)) + b"\n")
    kept = [await anext(events), await anext(events)]
    events.feed(line("rename", name="later") + b"\n")
    for n in range(9):
        events.feed(line("rename", name=str(n)) + b"\n")
    events.end("over")
    shown = [
        e.attributes["name"] if isinstance(e, EngineEvent) else "resync"
        for e in [*kept, *await drain(events)]
    ]
    assert shown == ["0", "1", "2", "resync", "later", "resync"]


async def test_malformed_events_ask_for_a_resync(caplog: pytest.LogCaptureFixture) -> None:
    events = stream()
    with caplog.at_level(logging.WARNING):
        events.feed(line("start") + b"\n{broken}\n" + line("die") + b"\n")
        events.feed(b"x" * (LINE_MAX + 1))
        events.feed(b"more of it")
        events.feed(b"its end\n" + line("destroy") + b"\n")
    events.end("over")
    kinds = [e.action if isinstance(e, EngineEvent) else e.reason for e in await drain(events)]
    assert kinds == ["start", "malformed event", "die", "malformed event", "destroy"]
    assert len(caplog.records) == 2
    assert all(len(str(r.__dict__["fields"])) < 1000 for r in caplog.records)


async def test_the_first_end_counts() -> None:
    events = stream()
    events.raise_if_ended()
    events.end("over")
    events.end("again")
    with pytest.raises(EngineUnavailable, match="over"):
        events.raise_if_ended()
    assert await drain(events) == []


async def test_cancelling_the_reader_loses_nothing() -> None:
    events = stream()
    with trio.move_on_after(0.01):
        await anext(events)
    events.feed(line("start") + b"\n")
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(events)
    events.end("over")
    assert [e.action for e in await drain(events) if isinstance(e, EngineEvent)] == ["start"]


def test_a_thread_may_outlive_trio() -> None:
    async def make() -> EventStream:
        return stream()

    events = trio.run(make)
    thread = threading.Thread(target=events.feed, args=(line("start") + b"\n",))
    thread.start()
    thread.join()
    events.end("over")

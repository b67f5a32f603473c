"""The adapter to the engine, the event stream and the pidfds, against a real dockerd."""

from __future__ import annotations

import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import trio

from announcer.container import Healthcheck, Status
from announcer.engine import Engine, EngineRefused, EngineUnavailable
from announcer.events import EngineEvent, Resync
from announcer.pidfd import Pidfds, shares_pids
from announcer.probe import probe
from announcer.stream import EventStream
from discod.model.endpoint import Endpoint
from discod.model.settings import Check
from tests.lab.dockerd import Dockerd, health, private_namespace

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    with private_namespace() as prefix, Dockerd(prefix=prefix) as engine:
        engine.import_busybox()
        yield engine


@pytest.fixture
def clean(dockerd: Dockerd) -> Iterator[Dockerd]:
    """The engine, running, and without containers afterwards."""
    yield dockerd
    if not dockerd.running:
        dockerd.start()
    dockerd.thaw()
    dockerd.remove_all()


@pytest.fixture
def engine(dockerd: Dockerd) -> Iterator[Engine]:
    with_timeout = Engine(dockerd.url, timeout=5)
    yield with_timeout
    with_timeout.close()


async def in_thread(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await trio.to_thread.run_sync(partial(work, *args, **kwargs))


@asynccontextmanager
async def collecting(engine: Engine) -> AsyncIterator[list[tuple[float, EngineEvent | Resync]]]:
    """Collects what the stream gives, each with the moment it came."""
    seen: list[tuple[float, EngineEvent | Resync]] = []

    async def collect(stream: EventStream) -> None:
        async for event in stream:
            seen.append((time.monotonic(), event))  # noqa: PERF401 - it is looked at meanwhile

    async with engine.events() as stream, trio.open_nursery() as nursery:
        nursery.start_soon(collect, stream)
        yield seen
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object], timeout: float = 10) -> None:
    with trio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110 - another process is waited for
            await trio.sleep(0.01)


def actions(seen: list[tuple[float, EngineEvent | Resync]], container: str) -> list[str]:
    return [
        event.action
        for _, event in seen
        if isinstance(event, EngineEvent) and event.container == container
    ]


def descriptors() -> set[str]:
    return {str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if fd.exists()}


def event_threads() -> int:
    """Threads that are inside the reading loop."""
    names = []
    for frame in sys._current_frames().values():
        inner: Any = frame
        while inner is not None:
            names.append(inner.f_code.co_name)
            inner = inner.f_back
    return names.count("_read_events")


# Events -------------------------------------------------------------------------------------------


async def test_a_life_in_order(clean: Dockerd, engine: Engine) -> None:
    def life() -> str:
        box = clean.run(healthcheck=health("true", interval=0.2))
        client = clean.client
        deadline = time.monotonic() + 10
        while clean.inspect(box)["State"]["Health"]["Status"] != "healthy":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.pause(box)
        client.unpause(box)
        client.rename(box, "other")
        client.stop(box)
        client.start(box)
        client.kill(box, signal="SIGKILL")
        client.wait(box)
        client.remove_container(box)
        return box

    async with collecting(engine) as seen:
        box = await in_thread(life)
        await until(lambda: "destroy" in actions(seen, box))
    found = [a for a in actions(seen, box) if a != "health_status: healthy"]
    # The engine makes no promise on the order of network events among the container's.
    own = " ".join(a for a in found if a not in ("connect", "disconnect"))
    assert own == "create start pause unpause rename kill die stop start kill die destroy"
    assert found.count("connect") == found.count("disconnect") == 2
    assert "health_status: healthy" in actions(seen, box)
    events = [e for _, e in seen if isinstance(e, EngineEvent)]
    assert [e.signal for e in events if e.action == "kill"] == [15, 9]
    assert [e.attributes["exitCode"] for e in events if e.action == "die"] == ["0", "137"]
    assert not [e for e in events if e.action.startswith("exec")]
    assert all(abs(e.time - time.time()) < 60 for e in events)


async def test_kill_event_comes_while_the_process_still_runs(
    clean: Dockerd, engine: Engine
) -> None:
    """The engine itself takes 12 to 50 ms from the call to the event: it signals first."""
    linger = ("sh", "-c", "trap 'sleep 0.3; exit 0' TERM; sleep 86400 & wait")
    boxes = [await in_thread(clean.run, *linger) for _ in range(8)]
    from_call: list[float] = []
    from_engine: list[float] = []
    async with engine.events() as stream:
        for box in boxes:
            pid = await in_thread(clean.main_pid, box)
            asked = time.time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_thread, clean.client.stop, box)
                with trio.fail_after(10):
                    event = await of_container(stream, box, "kill")
                came = time.time()
                os.kill(pid, 0)  # it is still there
                assert event.signal == signal.SIGTERM
                with trio.fail_after(10):
                    await of_container(stream, box, "die")
            from_call.append((came - asked) * 1000)
            from_engine.append((came - event.time) * 1000)
    print(
        f"kill event: p50 {statistics.median(from_engine):.2f} ms after the engine made it, "
        f"{statistics.median(from_call):.2f} ms after the call"
    )
    assert statistics.median(from_engine) < 20


async def of_container(stream: EventStream, container: str, action: str) -> EngineEvent:
    async for event in stream:
        if isinstance(event, EngineEvent) and (event.container, event.action) == (
            container,
            action,
        ):
            return event
    raise AssertionError("a stream ends by an exception only")


async def test_a_burst_is_complete_or_says_what_it_is_not(clean: Dockerd, engine: Engine) -> None:
    boxes = [await in_thread(clean.run) for _ in range(2)]
    count = 250

    def burst(box: str) -> None:
        for n in range(count):
            clean.client.rename(box, f"{box[:8]}-{n}")

    async with collecting(engine) as seen:
        async with trio.open_nursery() as nursery:
            for box in boxes:
                nursery.start_soon(in_thread, burst, box)
            for _ in range(10):  # trio is away, again and again
                await trio.sleep(0.05)
                time.sleep(0.3)  # noqa: ASYNC251 - that is the point
        await until(
            lambda: lost(seen) or all(actions(seen, b).count("rename") == count for b in boxes), 30
        )
    for box in boxes:
        names = [
            event.attributes["name"]
            for _, event in seen
            if isinstance(event, EngineEvent) and event.container == box
        ]
        assert lost(seen) or names == [f"{box[:8]}-{n}" for n in range(count)]


def lost(seen: list[tuple[float, EngineEvent | Resync]]) -> bool:
    return any(isinstance(event, Resync) for _, event in seen)


async def test_engine_killed_ends_the_stream(clean: Dockerd, engine: Engine) -> None:
    box = await in_thread(clean.run)
    pid = await in_thread(clean.main_pid, box)
    async with engine.events() as stream:
        await in_thread(clean.kill)
        began = time.monotonic()
        with pytest.raises(EngineUnavailable, match=r"docker\.sock: "):
            await anext(stream)
        assert time.monotonic() - began < 1
    with pytest.raises(EngineUnavailable, match="connection refused"):
        await engine.ping()
    os.kill(pid, 0)  # with live-restore the container lives on
    await in_thread(clean.start)
    found = await engine.inspect(box)
    assert found is not None
    assert (found.status, found.pid) == (Status.RUNNING, pid)
    async with collecting(engine) as seen:
        await in_thread(clean.client.kill, box)
        await until(lambda: "die" in actions(seen, box))


async def test_frozen_engine_is_noticed(clean: Dockerd, engine: Engine) -> None:
    async with engine.events() as stream:
        clean.freeze()
        began = time.monotonic()
        with trio.fail_after(6), pytest.raises(EngineUnavailable, match="no answer within 2 s"):
            await anext(stream)
        assert time.monotonic() - began < 4.5
    began = time.monotonic()
    with pytest.raises(EngineUnavailable):
        async with engine.events():
            pytest.fail("it cannot open")
    assert time.monotonic() - began < 3
    clean.thaw()
    await engine.ping()


async def test_absent_engine(tmp_path: Path) -> None:
    engine = Engine(f"unix://{tmp_path}/none.sock")
    with pytest.raises(EngineUnavailable, match=r"none\.sock: no such file or directory"):
        await engine.summaries()
    with pytest.raises(EngineUnavailable):
        async with engine.events():
            pytest.fail("it cannot open")


async def test_leaving_leaves_nothing(clean: Dockerd, engine: Engine) -> None:
    await engine.ping()
    before, took = descriptors(), []
    for _ in range(5):
        async with engine.events() as stream:
            assert event_threads() == 1
            with trio.move_on_after(0.05):
                await anext(stream)
            began = time.monotonic()
        took.append(time.monotonic() - began)
        assert event_threads() == 0
    assert descriptors() <= before
    assert max(took) < 0.1
    with trio.move_on_after(0.2) as scope:
        async with engine.events() as stream:
            await anext(stream)
    assert scope.cancelled_caught, "a cancellation passes through, unchanged"
    assert event_threads() == 0
    with pytest.raises(ZeroDivisionError):  # and so does an exception, not in a group
        async with engine.events():
            raise ZeroDivisionError


# Calls --------------------------------------------------------------------------------------------


async def test_inspect(clean: Dockerd, engine: Engine) -> None:
    box = await in_thread(clean.run, name="web", labels={"SERVICE_NAME": "w"})
    found = await engine.inspect(box)
    assert found is not None
    assert (found.id, found.name, found.status) == (box, "web", Status.RUNNING)
    assert found.pid == await in_thread(clean.main_pid, box)
    assert found.labels == (("SERVICE_NAME", "w"),)
    assert [str(a.ipv4) for a in found.attachments] == [clean.address(box)]
    await in_thread(clean.remove, box)
    assert await engine.inspect(box) is None


async def test_summaries_change_with_what_matters(clean: Dockerd, engine: Engine) -> None:
    flag = "test -e /tmp/ok"
    box = await in_thread(clean.run, healthcheck=health("sh", "-c", flag, interval=0.2))
    other = await in_thread(clean.run)
    client = clean.client
    network = (await in_thread(client.create_network, "side"))["Id"]

    async def becomes(health: Healthcheck) -> None:
        with trio.fail_after(10):
            while True:
                found = await engine.inspect(box)
                if found is not None and found.health is health:
                    return
                await trio.sleep(0.05)

    await becomes(Healthcheck.UNHEALTHY)
    before = await engine.summaries()
    assert set(before) == {box, other}
    await trio.sleep(1.1)  # "Up 1 second" becomes "Up 2 seconds"
    assert await engine.summaries() == before
    steps: list[Callable[[], Any]] = [
        lambda: client.pause(box),
        lambda: client.unpause(box),
        lambda: client.rename(box, "renamed"),
        lambda: client.connect_container_to_network(box, network),
        lambda: client.disconnect_container_from_network(box, network),
        lambda: client.restart(box, timeout=1),
        lambda: client.stop(box),
    ]
    try:
        for number, step in enumerate(steps):
            await in_thread(step)
            after = await engine.summaries()
            assert after[box] != before[box], f"step {number}"
            assert after[other] == before[other]
            before = after
        await in_thread(client.start, box)
        await becomes(Healthcheck.UNHEALTHY)
        before = await engine.summaries()
        assert await engine.execute(box, ["touch", "/tmp/ok"], 5) == (0, "")
        await becomes(Healthcheck.HEALTHY)
        assert (await engine.summaries())[box] != before[box]
    finally:
        await in_thread(clean.remove, box)
        await in_thread(client.remove_network, network)
    assert set(await engine.summaries()) == {other}


async def test_execute(clean: Dockerd, engine: Engine) -> None:
    box = await in_thread(clean.run)
    assert await engine.execute(box, ["echo", "hello"], 5) == (0, "hello\n")
    assert await engine.execute(box, ["sh", "-c", "echo no >&2; exit 3"], 5) == (3, "no\n")
    status, output = await engine.execute(box, ["sh", "-c", "yes | head -c 500000"], 5)
    assert (status, output) == (0, "y\n" * 2048)
    status, output = await engine.execute(box, ["/no/such"], 5)
    assert status in (126, 127)
    assert "no such file" in output
    await in_thread(clean.client.pause, box)
    with pytest.raises(EngineRefused) as refused:
        await engine.execute(box, ["true"], 5)
    assert refused.value.status == 409
    await in_thread(clean.client.unpause, box)
    await in_thread(clean.remove, box)
    with pytest.raises(EngineRefused) as refused:
        await engine.execute(box, ["true"], 5)
    assert refused.value.status == 404


async def test_execute_holds_its_deadline(clean: Dockerd, engine: Engine) -> None:
    box = await in_thread(clean.run)
    await engine.ping()
    before = descriptors()
    for command in (["sleep", "77"], ["sh", "-c", "while :; do echo flood; done"]):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await engine.execute(box, command, 0.5)
        assert 0.4 < time.monotonic() - began < 1

    def left() -> list[str]:
        """What `docker top` lists beyond the container's own two processes."""
        found = clean.client.top(box)["Processes"]
        return [row[-1] for row in found if "77" in row[-1] or "flood" in row[-1]]

    await until(lambda: not left())
    await until(lambda: descriptors() <= before)
    clean.freeze()
    began = time.monotonic()
    with pytest.raises(EngineUnavailable):  # which is no verdict on the command
        await engine.execute(box, ["true"], 0.5)
    assert time.monotonic() - began < 1
    clean.thaw()


async def test_command_check(clean: Dockerd, engine: Engine) -> None:
    box = await in_thread(clean.run)
    endpoint = Endpoint("web", "web-1", ip_address("10.101.1.2"), 80)
    check = Check("cmd", command=("sh", "-c", "echo fine"), timeout=5)
    execute = partial(engine.execute, box)
    result = await probe(check, endpoint, execute=execute)
    assert (result.ok, result.detail) == (True, "exit status 0: fine")
    result = await probe(replace(check, command=("false",)), endpoint, execute=execute)
    assert (result.ok, result.detail) == (False, "exit status 1")
    slow = replace(check, command=("sleep", "9"), timeout=0.3)
    result = await probe(slow, endpoint, execute=execute)
    assert (result.ok, result.ran) == (False, True)
    assert result.detail == "command did not end within 0.3 s"


# Processes ----------------------------------------------------------------------------------------


async def test_pidfd_tells_death_before_the_engine(clean: Dockerd, engine: Engine) -> None:
    pidfds = Pidfds(engine.socket_path)
    assert pidfds.available
    boxes = [await in_thread(clean.run) for _ in range(8)]
    by_pidfd: list[float] = []
    by_event: list[float] = []
    async with collecting(engine) as seen, trio.open_nursery() as nursery:
        nursery.start_soon(pidfds.run)
        for box in boxes:
            pid = await in_thread(clean.main_pid, box)
            died: list[float] = []
            pidfds.watch(box, pid, lambda died=died: died.append(time.monotonic()))  # type: ignore[misc]
            assert pidfds.watches(box, pid)
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            await until(lambda box=box: "die" in actions(seen, box))  # type: ignore[misc]
            assert len(died) == 1
            assert not pidfds.watches(box)
            by_pidfd.append((died[0] - killed) * 1000)
            came = next(
                at
                for at, e in seen
                if isinstance(e, EngineEvent) and e.container == box and e.action == "die"
            )
            by_event.append((came - killed) * 1000)
        nursery.cancel_scope.cancel()
    pidfds.close()
    print(
        f"death by pidfd: p50 {statistics.median(by_pidfd):.2f} ms, max {max(by_pidfd):.2f}; "
        f"by event: p50 {statistics.median(by_event):.2f} ms, max {max(by_event):.2f}"
    )
    assert statistics.median(by_pidfd) < 20
    assert statistics.median(by_pidfd) < statistics.median(by_event)


async def test_processes_of_an_engine_in_our_namespace(clean: Dockerd) -> None:
    assert shares_pids(str(clean.socket))


async def test_calls_do_not_pile_up(clean: Dockerd, engine: Engine) -> None:
    """Many looks at once share eight threads and leave no connection open."""
    box = await in_thread(clean.run)
    await engine.ping()
    before = descriptors()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(engine.inspect, box)
        await trio.sleep(0.01)
        assert threading.active_count() < 20
    assert descriptors() <= before

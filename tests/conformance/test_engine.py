"""What the watcher relies on in an engine, on the fake one and on a real dockerd."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

import pytest
import trio

from announcer.container import Container, Status
from announcer.engine import Engine
from announcer.errors import EngineUnavailable
from announcer.events import EngineEvent, Resync
from tests.fake_engine import FakeEngine
from tests.lab.dockerd import Dockerd, private_namespace

WITHIN = 10.0
"""Seconds, for what should take milliseconds."""


class Docker(Protocol):
    """Docker's commands, as the tests give them."""

    async def do(self, command: str, *args: str) -> str: ...

    async def stop_serving(self) -> None: ...


class FakeDocker:
    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine

    async def do(self, command: str, *args: str) -> str:
        return str(getattr(self._engine, command)(*args))

    async def stop_serving(self) -> None:
        self._engine.stop_serving()


class RealDocker:
    def __init__(self, dockerd: Dockerd) -> None:
        self._dockerd = dockerd

    async def do(self, command: str, *args: str) -> str:
        commands: dict[str, Callable[..., Any]] = {
            "run": lambda name: self._dockerd.run(name=name),
            "pause": lambda id_: self._dockerd.client.pause(id_),
            "unpause": lambda id_: self._dockerd.client.unpause(id_),
            "kill": lambda id_: self._dockerd.client.kill(id_),
            "rename": lambda id_, name: self._dockerd.client.rename(id_, name),
            "remove": self._dockerd.remove,
        }
        return str(await trio.to_thread.run_sync(lambda: commands[command](*args)))

    async def stop_serving(self) -> None:
        await trio.to_thread.run_sync(self._dockerd.kill)


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    if shutil.which("dockerd") is None:
        pytest.skip("dockerd is not installed")  # a failure under CI
    with private_namespace() as prefix, Dockerd(prefix=prefix) as running:
        running.import_busybox()
        yield running


@pytest.fixture(params=["fake", pytest.param("dockerd", marks=pytest.mark.lab)])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def pair(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Any, Docker]]:
    if kind == "fake":
        fake = FakeEngine()
        yield fake, FakeDocker(fake)
        return
    real: Dockerd = request.getfixturevalue("dockerd")
    if not real.running:  # the last test killed it
        await trio.to_thread.run_sync(real.start)
        await trio.to_thread.run_sync(real.remove_all)
    engine = Engine(real.url)
    try:
        yield engine, RealDocker(real)
    finally:
        engine.close()
        if real.running:
            await trio.to_thread.run_sync(real.remove_all)


async def until(events: Any, action: str, container: str) -> EngineEvent:
    """The next event with this action of this container; others are passed over."""
    with trio.fail_after(WITHIN):
        while True:
            event: EngineEvent | Resync = await anext(events)
            assert not isinstance(event, Resync), event
            if (event.action, event.container) == (action, container):
                return event


async def looked_at(engine: Any, id_: str) -> Container:
    container = await engine.inspect(id_)
    assert isinstance(container, Container)
    return container


async def test_what_is_not_there_is_none(pair: tuple[Any, Docker]) -> None:
    engine, _ = pair
    assert await engine.inspect("0" * 64) is None
    assert await engine.summaries() == {}


async def test_a_start_is_told_and_seen(pair: tuple[Any, Docker]) -> None:
    engine, docker = pair
    async with engine.events() as events:
        id_ = await docker.do("run", "web")
        event = await until(events, "start", id_)
    container = await looked_at(engine, id_)
    assert (container.id, container.name, container.status) == (id_, "web", Status.RUNNING)
    assert container.pid > 0
    assert container.attachments[0].ipv4 is not None
    assert 0 < container.started <= event.time, "an event of this run is not older than the run"
    assert set(await engine.summaries()) == {id_}


async def test_a_list_taken_inside_the_stream_misses_nothing(pair: tuple[Any, Docker]) -> None:
    engine, docker = pair
    before = await docker.do("run", "before")
    async with engine.events() as events:
        after = await docker.do("run", "after")
        assert set(await engine.summaries()) == {before, after}
        await until(events, "start", after)


async def test_a_summary_changes_with_what_matters(pair: tuple[Any, Docker]) -> None:
    engine, docker = pair
    id_ = await docker.do("run", "web")
    seen = [(await engine.summaries())[id_]]
    assert (await engine.summaries())[id_] == seen[0], "and only then"
    for command in (("pause", id_), ("unpause", id_), ("rename", id_, "other"), ("kill", id_)):
        await docker.do(*command)
        with trio.fail_after(WITHIN):  # the engine notes an end a little later
            summary = seen[-1]
            while summary == seen[-1]:
                summary = (await engine.summaries())[id_]
        seen.append(summary)


async def test_pause_and_unpause(pair: tuple[Any, Docker]) -> None:
    engine, docker = pair
    id_ = await docker.do("run", "web")
    pid = (await looked_at(engine, id_)).pid
    async with engine.events() as events:
        await docker.do("pause", id_)
        await until(events, "pause", id_)
        paused = await looked_at(engine, id_)
        assert (paused.status, paused.pid) == (Status.PAUSED, pid)
        await docker.do("unpause", id_)
        await until(events, "unpause", id_)
        assert (await looked_at(engine, id_)).status is Status.RUNNING


async def test_a_kill_says_its_signal_and_then_that_it_died(pair: tuple[Any, Docker]) -> None:
    engine, docker = pair
    id_ = await docker.do("run", "web")
    started = (await looked_at(engine, id_)).started
    async with engine.events() as events:
        await docker.do("kill", id_)
        kill = await until(events, "kill", id_)
        assert kill.signal == 9
        assert kill.time > started
        die = await until(events, "die", id_)
        assert die.attributes["exitCode"] == "137"
    ended = await looked_at(engine, id_)
    assert (ended.status, ended.pid, ended.exit_code) == (Status.EXITED, 0, 137)
    assert not any(place.ipv4 for place in ended.attachments)


async def test_a_removal_is_told_and_seen(pair: tuple[Any, Docker]) -> None:
    engine, docker = pair
    id_ = await docker.do("run", "web")
    await docker.do("kill", id_)
    async with engine.events() as events:
        await docker.do("remove", id_)
        await until(events, "destroy", id_)
    assert await engine.inspect(id_) is None
    assert id_ not in await engine.summaries()


async def test_the_stream_ends_by_saying_that_the_engine_is_away(pair: tuple[Any, Docker]) -> None:
    engine, docker = pair
    with trio.fail_after(WITHIN):
        async with engine.events() as events:
            await docker.stop_serving()
            with pytest.raises(EngineUnavailable):
                while True:
                    await anext(events)
        with pytest.raises(EngineUnavailable):
            await engine.ping()
        with pytest.raises(EngineUnavailable):
            await engine.summaries()
        with pytest.raises(EngineUnavailable):
            await engine.inspect("0" * 64)

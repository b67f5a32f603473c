"""Deaths of real processes of the test's own; no engine."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from announcer.pidfd import Pidfds, kill_contained, shares_pids


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = sleeper()
    yield started
    started.kill()
    started.wait()


@pytest.fixture
def pidfds() -> Iterator[Pidfds]:
    made = Pidfds()
    yield made
    made.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_death_is_told_once(pidfds: Pidfds, process: subprocess.Popen[bytes]) -> None:
    died: list[bool] = []
    told = trio.Event()

    def on_death() -> None:
        died.append(pidfds.watches("a"))
        told.set()

    before = open_descriptors()
    pidfds.watch("a", process.pid, on_death)
    assert pidfds.watches("a")
    assert pidfds.watches("a", process.pid)
    assert not pidfds.watches("a", process.pid + 1)
    assert not pidfds.watches("b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pidfds.run)
        await trio.testing.wait_all_tasks_blocked()
        assert died == []
        process.kill()  # a zombie from here on: nobody has waited for it
        with trio.fail_after(5):
            await told.wait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert died == [False], "called once, and not watched any more by then"
    assert open_descriptors() == before


async def test_a_process_that_is_gone(pidfds: Pidfds) -> None:
    process = sleeper()
    process.kill()
    process.wait()
    with pytest.raises(ProcessLookupError):
        pidfds.watch("a", process.pid, lambda: None)
    assert not pidfds.watches("a")


async def test_unwatched_and_replaced_ones_are_not_told(
    pidfds: Pidfds, process: subprocess.Popen[bytes]
) -> None:
    second, third = sleeper(), sleeper()
    died: list[str] = []
    told = trio.Event()

    def on_death() -> None:
        died.append("second")
        told.set()

    pidfds.watch("a", process.pid, lambda: died.append("first"))
    pidfds.watch("a", second.pid, on_death)
    pidfds.watch("b", third.pid, lambda: died.append("third"))
    pidfds.unwatch("b")
    pidfds.unwatch("b")
    process.kill()
    third.kill()
    for gone in (process, third):
        gone.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pidfds.run)
        await trio.testing.wait_all_tasks_blocked()
        second.kill()
        with trio.fail_after(5):
            await told.wait()
        nursery.cancel_scope.cancel()
    second.wait()
    assert died == ["second"]


async def test_a_callback_may_unwatch_another_of_its_batch(pidfds: Pidfds) -> None:
    pair = {"a": sleeper(), "b": sleeper()}
    died: list[str] = []

    def on_death(key: str, other: str) -> None:
        died.append(key)
        pidfds.unwatch(other)

    pidfds.watch("a", pair["a"].pid, lambda: on_death("a", "b"))
    pidfds.watch("b", pair["b"].pid, lambda: on_death("b", "a"))
    for process in pair.values():
        process.kill()
        process.wait()
    with trio.move_on_after(0.1):
        await pidfds.run()
    assert len(died) == 1


def forking(count: int) -> subprocess.Popen[bytes]:
    """A parent of `count` processes, which prints their pids; in a session of its own."""
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os,signal\n"
            f"for _ in range({count}):\n"
            "    pid = os.fork()\n"
            "    if not pid: signal.pause()\n"
            "    print(pid, flush=True)\n"
            "signal.pause()",
        ],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


async def test_many(pidfds: Pidfds) -> None:
    """300 deaths at once: more than one batch."""
    parent = forking(300)
    assert parent.stdout is not None
    died: set[int] = set()
    try:
        pids = {int(parent.stdout.readline()) for _ in range(300)}
        for pid in pids:
            pidfds.watch(str(pid), pid, lambda pid=pid: died.add(pid))  # type: ignore[misc]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pidfds.run)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            with trio.fail_after(10):
                while died != pids:  # noqa: ASYNC110 - other processes are waited for
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()


async def test_without_descriptors_nothing_breaks(
    process: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        pidfds = Pidfds(str(tmp_path / "s"))
        other = sleeper()
        pidfds.watch("other", other.pid, lambda: None)
        assert pidfds.available
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            pidfds.watch("a", process.pid, lambda: None)
            assert not pidfds.watches("a")
            assert not pidfds.available
            assert not shares_pids(str(tmp_path / "s")), "and that cannot be asked either"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert pidfds.available, "there are some again"
        assert pidfds.watches("other")
        pidfds.close()
        other.kill()
        other.wait()


async def test_whose_pids_are_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    assert not shares_pids("")
    assert not shares_pids(path)
    assert not Pidfds("").available
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert not shares_pids(path), "nobody listens yet"
        listener.listen()
        assert shares_pids(path)
    assert not shares_pids(path)


@pytest.mark.lab
def test_pids_of_another_namespace_are_not_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    code = (
        "import socket,sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen();"
        "print(flush=True); sys.stdin.read()"
    )
    engine = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert engine.stdin is not None
    assert engine.stdout is not None
    assert engine.stdout.readline() == b"\n"
    assert not shares_pids(path)
    engine.communicate()


def test_only_processes_of_that_container_are_killed(process: subprocess.Popen[bytes]) -> None:
    kill_contained(process.pid, "f" * 64)
    assert process.poll() is None
    kill_contained(2**22 + 1, "f" * 64)
    # Its own control group stands in for a container's.
    group = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()[0]
    kill_contained(process.pid, group)
    assert process.wait(5) == -signal.SIGKILL

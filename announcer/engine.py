"""The Docker engine, asked through its API.

Rule: the one module that imports the docker SDK. Every call runs in a thread with a deadline and
can be cancelled at once (the thread ends by its own timeout); the SDK's, requests', urllib3's and
the system's exceptions become `announcer.errors` here, in one place.

How the SDK is used, and why:

- A client is lent to one thread at a time, because `requests.Session` is not made for several.
- ``Connection: close``: the SDK keeps a connection pool for every different URL, 25 a client.
- The version is asked for once, not at construction: the engine may be away then.
- The event stream is read here rather than by the SDK's generator, which ends without a word on
  any error, and cannot skip a malformed event.
"""

from __future__ import annotations

import errno
import http.client
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import docker
import docker.constants
import docker.errors
import trio
import urllib3

from announcer.container import Container
from announcer.errors import EngineError, EngineRefused, EngineUnavailable
from announcer.events import FILTERS
from announcer.execution import Execution
from announcer.inspect import local_subnets, parse_container
from announcer.pidfd import kill_contained
from announcer.stream import EventStream
from announcer.summary import Summary, summarise
from discod.log import fields
from discod.model.settings import Network

__all__ = ["Engine", "EngineError", "EngineRefused", "EngineUnavailable", "EventStream", "Summary"]

log = logging.getLogger(__name__)
T = TypeVar("T")

CALLS = 8
"""Threads for calls: the engine takes locks of its own, more do not make it faster."""
EXECUTIONS = 16
"""Threads for `Engine.execute`, apart, so that slow commands hold up nothing else."""
CLOSE_GRACE = 1.0
"""Seconds for the reading thread to end after its connection was cut; it takes about 1 ms."""
PING_PERIOD = 2.0
PING_TIMEOUT = 2.0
"""Seconds. A frozen engine is noticed after at most the sum of both."""


class Engine:
    """One engine. Safe to use from several tasks."""

    def __init__(self, url: str, *, timeout: float = 5.0) -> None:
        """Neither connects nor fails.

        Args:
            url: ``unix:///path`` or ``tcp://host:port``.
            timeout: Deadline of one call, seconds.
        """
        self.url = url
        self._timeout = timeout
        self._calls = trio.CapacityLimiter(CALLS)
        self._executions = trio.CapacityLimiter(EXECUTIONS)
        self._pings = trio.CapacityLimiter(1)
        self._idle: list[docker.APIClient] = []
        self._version = ""

    @property
    def socket_path(self) -> str:
        """Of the engine's Unix socket; empty when it is reached otherwise."""
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else ""

    def close(self) -> None:
        """Let go of idle clients; the engine may still be used afterwards."""
        while self._idle:
            self._idle.pop().close()

    async def ping(self) -> None:
        """Return if the engine answers.

        Raises:
            EngineUnavailable, EngineRefused.
        """
        await self._call(lambda client: client.ping(), limiter=self._pings)

    async def summaries(self) -> Mapping[str, Summary]:
        """All containers by id, stopped ones included, in one request.

        Raises:
            EngineUnavailable, EngineRefused.
        """
        return await self._call(_summaries)

    async def networks(self) -> tuple[Network, ...]:
        """Subnets of the engine's networks that are on this host alone.

        Raises:
            EngineUnavailable, EngineRefused.
        """
        return await self._call(lambda client: local_subnets(client.networks()))

    async def inspect(self, container: str) -> Container | None:
        """A container by id; None when there is none (any more).

        Raises:
            EngineUnavailable, EngineRefused.
        """
        return await self._call(partial(_inspect, container))

    async def execute(self, container: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run a command in a container; exit status and the first 4 KiB of its output.

        At the deadline the command is abandoned, and killed where its process can be seen from
        here: the engine's API cannot end it.

        Args:
            container: Id.
            argv: Program and arguments.
            timeout: Seconds.

        Raises:
            TimeoutError: it still ran at the deadline.
            EngineRefused: no such container, not running, paused; or no such program.
            EngineUnavailable: it is unknown whether it ran.
        """
        run = Execution(container, tuple(argv), timeout)
        try:
            with trio.fail_after(timeout):
                return await trio.to_thread.run_sync(
                    self._lend,
                    run,
                    abandon_on_cancel=True,
                    limiter=self._executions,
                )
        except trio.TooSlowError:
            await self._kill(run)
            raise TimeoutError(f"no end within {timeout:g} s") from None
        finally:
            run.cut()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventStream]:
        """The engine's events from now on; take the list after this, so that nothing falls between.

        The iteration ends by `EngineUnavailable` when the connection breaks or the engine does not
        answer a ping for `PING_PERIOD` + `PING_TIMEOUT` seconds.

        Raises:
            EngineUnavailable, EngineRefused.
        """
        await self.ping()  # a frozen engine accepts connections as well
        stream = EventStream(trio.lowlevel.current_trio_token())
        reading = trio.CancelScope(shield=True)
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            try:
                nursery.start_soon(self._read_in_thread, stream, reading)
                with trio.move_on_after(self._timeout):
                    await stream.ready.wait()
                if not stream.accepted:
                    stream.end(self._too_slow(self._timeout))
                stream.raise_if_ended()
                nursery.start_soon(self._ping_while_open, stream)
                yield stream
            except BaseException as error:  # noqa: BLE001 - raised below, out of the nursery's group
                failure = error
            # A thread with a connection ends now that this is cut; one whose request is still on
            # its way is left alone, and ends by its timeout.
            reading.deadline = trio.current_time() + (CLOSE_GRACE if stream.accepted else 0)
            stream.end("closed")
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    # Threads ----------------------------------------------------------------------------------

    async def _call(
        self, work: Callable[[docker.APIClient], T], limiter: trio.CapacityLimiter | None = None
    ) -> T:
        timeout = PING_TIMEOUT if limiter is self._pings else self._timeout
        try:
            with trio.fail_after(timeout):
                return await trio.to_thread.run_sync(
                    self._lend, work, abandon_on_cancel=True, limiter=limiter or self._calls
                )
        except trio.TooSlowError:
            raise EngineUnavailable(self._too_slow(timeout)) from None

    def _too_slow(self, timeout: float) -> str:
        return f"{self.url}: no answer within {timeout:g} s"

    def _lend(self, work: Callable[[docker.APIClient], T]) -> T:
        """Do `work` with a client of its own, in a thread."""
        with self._mapped():
            self._try_socket()
            try:
                client = self._idle.pop()
            except IndexError:
                client = self._client()
                client.headers["Connection"] = "close"
            try:
                result = work(client)
            except BaseException:  # cleaned up, then raised on
                client.close()
                raise
            if client.api_version == self._version:
                self._idle.append(client)
            else:  # the engine went away meanwhile
                client.close()
            return result

    def _client(self) -> docker.APIClient:
        """A new client; blocks, for the first one has to ask for the engine's version."""
        if not self._version:
            oldest = docker.constants.MINIMUM_DOCKER_API_VERSION
            first = self._bare_client(oldest)
            try:
                self._version = str(first.version(api_version=False)["ApiVersion"])
            finally:
                first.close()
        return self._bare_client(self._version)

    def _try_socket(self) -> None:
        """Fail before the SDK does, which leaves the socket of a failed connection open."""
        if self.socket_path:
            with socket.socket(socket.AF_UNIX) as trial:
                trial.settimeout(self._timeout)
                trial.connect(self.socket_path)

    def _bare_client(self, version: str) -> docker.APIClient:
        client = docker.APIClient(self.url, version=version, timeout=self._timeout)
        client.trust_env = False  # no proxies, no ~/.netrc, between us and the engine
        return client

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except docker.errors.APIError as error:
            status = error.response.status_code if error.response is not None else 0
            raise EngineRefused(str(error.explanation or error), status) from error
        except (
            docker.errors.DockerException,
            OSError,  # of the socket; requests' exceptions are OSErrors as well
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            ValueError,  # an answer that is not what the API promises
            KeyError,
            TypeError,
        ) as error:
            self._version = ""  # another one may come up
            self.close()
            raise EngineUnavailable(f"{self.url}: {_reason(error)}") from error

    # Events -----------------------------------------------------------------------------------

    async def _read_in_thread(self, stream: EventStream, reading: trio.CancelScope) -> None:
        with reading:
            await trio.to_thread.run_sync(
                self._read_events, stream, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1)
            )

    def _read_events(self, stream: EventStream) -> None:
        try:
            with self._mapped():
                self._try_socket()
                client = self._client()
                try:
                    self._read_stream(client, stream)
                finally:
                    client.close()
            stream.end(f"{self.url}: event stream ended")
        except EngineError as error:
            stream.end(str(error))

    def _read_stream(self, client: docker.APIClient, stream: EventStream) -> None:
        with client.get(
            f"{client.base_url}/v{client.api_version}/events",
            params={"filters": json.dumps(FILTERS)},
            stream=True,
            timeout=self._timeout,
        ) as response:
            if response.status_code != 200:
                raise EngineUnavailable(f"{self.url}: events: status {response.status_code}")
            connection = response.raw.connection.sock
            connection.settimeout(None)  # silence is no fault: `_ping_while_open` asks
            stream.opened(connection)
            for chunk in response.raw.read_chunked():
                stream.feed(chunk)

    async def _ping_while_open(self, stream: EventStream) -> None:
        while True:
            before = stream.read
            await trio.sleep(PING_PERIOD)
            if stream.read != before:
                continue  # events came meanwhile
            try:
                await self.ping()
            except EngineError as error:
                stream.end(str(error))
                return

    # Commands ---------------------------------------------------------------------------------

    async def _kill(self, run: Execution) -> None:
        """End a command that outlived its deadline.

        Raises:
            EngineUnavailable: the engine does not answer; then nobody knows how the command fares.
        """
        if not run.id:
            raise EngineUnavailable(self._too_slow(run.timeout))
        try:
            found = await self._call(lambda client: client.exec_inspect(run.id))
        except EngineRefused as error:
            log.debug("check command is gone", extra=fields(exec=run.id, error=error))
            return
        if found.get("Running") and found.get("Pid"):
            kill_contained(int(found["Pid"]), run.container)


def _summaries(client: docker.APIClient) -> Mapping[str, Summary]:
    found = map(summarise, client.containers(all=True))
    return {summary.id: summary for summary in found}


def _inspect(container: str, client: docker.APIClient) -> Container | None:
    try:
        return parse_container(client.inspect_container(container))
    except docker.errors.NotFound:
        return None


def _reason(error: BaseException | None) -> str:
    """What the system said, out of the layers that requests and urllib3 wrap around it."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            hint = " (is this user in the docker group?)" if seen.errno == errno.EACCES else ""
            return os.strerror(seen.errno).lower() + hint
        seen = seen.__cause__ or seen.__context__
    return f"{type(error).__name__}: {error}"[:300]

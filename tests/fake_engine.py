"""An engine in a dict, for tests of what watches one.

Rule: what it does by itself (the operations named as Docker's) is what a real engine does, and one
suite holds both to that (`tests/conformance/test_engine.py`). A test may also `put` states and
`send` events of its own, in orders that a real engine shows only by chance.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, Literal

import trio

from announcer.container import Attachment, Container, Status
from announcer.errors import EngineUnavailable
from announcer.events import EngineEvent, Resync
from announcer.summary import Summary

_ids = itertools.count(1)
BEGAN = 1_700_000_000.0
"""What its clock shows at first; each event is a second later."""


class FakeEngine:
    """The part of `announcer.engine.Engine` that the watcher uses."""

    def __init__(self) -> None:
        self.containers: dict[str, Container] = {}
        self.inspected: list[str] = []
        self.send, self._receive = trio.open_memory_channel[EngineEvent | Resync](1000)
        self.away = False
        self.gate: Callable[[], Any] | None = None
        """Awaited before an inspection answers, with what it saw when it was asked."""
        self.letting_go = 0.0
        """Seconds that it takes to close the event stream."""
        self._clock = itertools.count(int(BEGAN))

    # As `Engine` --------------------------------------------------------------------------------

    async def ping(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise EngineUnavailable("away")

    async def summaries(self) -> Mapping[str, Summary]:
        await self.ping()
        return {c.id: Summary(c.id, repr(c)) for c in self.containers.values()}

    async def inspect(self, container: str) -> Container | None:
        self.inspected.append(container)
        answer = self.containers.get(container)
        await self.ping()
        if self.gate is not None:
            await self.gate()
        return answer

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[EngineEvent | Resync]]:
        async def stream() -> AsyncIterator[EngineEvent | Resync]:
            while True:
                item = await self._receive.receive()
                if self.away:
                    raise EngineUnavailable("stream ended")
                yield item

        generator = stream()
        try:
            yield generator
        finally:
            await generator.aclose()  # type: ignore[attr-defined]
            with trio.CancelScope(shield=True):
                await trio.sleep(self.letting_go)

    # As Docker's commands -----------------------------------------------------------------------

    def put(self, container: Container) -> None:
        self.containers[container.id] = container

    def run(self, name: str) -> str:
        n = next(_ids)
        id_ = f"{n:064x}"
        self.put(Container(id=id_, name=name, image="bb:1", status=Status.CREATED))
        self._tell("create", id_)
        place = Attachment("bridge", "net", IPv4Address(f"10.0.{n // 250}.{n % 250 + 1}"))
        event = self._tell("connect", id_, kind="network")
        self._change(
            id_, status=Status.RUNNING, pid=1000 + n, started=event.time + 0.5, attachments=(place,)
        )
        self._tell("start", id_)
        return id_

    def pause(self, id_: str) -> None:
        self._change(id_, status=Status.PAUSED)
        self._tell("pause", id_)

    def unpause(self, id_: str) -> None:
        self._change(id_, status=Status.RUNNING)
        self._tell("unpause", id_)

    def kill(self, id_: str) -> None:
        self._tell("kill", id_, signal=9)
        self._change(id_, status=Status.EXITED, pid=0, exit_code=137, attachments=())
        self._tell("disconnect", id_, kind="network")
        self._tell("die", id_, exit_code=137)

    def rename(self, id_: str, name: str) -> None:
        self._change(id_, name=name)
        self._tell("rename", id_)

    def remove(self, id_: str) -> None:
        del self.containers[id_]
        self._tell("destroy", id_)

    def stop_serving(self) -> None:
        self.away = True
        self.send.send_nowait(Resync("nobody reads this: the stream ends here"))

    def _change(self, id_: str, **what: Any) -> None:
        self.containers[id_] = replace(self.containers[id_], **what)

    def _tell(
        self,
        action: str,
        id_: str,
        *,
        kind: Literal["container", "network"] = "container",
        signal: int | None = None,
        exit_code: int | None = None,
    ) -> EngineEvent:
        attributes = {} if exit_code is None else {"exitCode": str(exit_code)}
        event = EngineEvent(kind, action, id_, signal, attributes, float(next(self._clock)))
        self.send.send_nowait(event)
        return event

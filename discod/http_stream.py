"""Responses that last: the changes of the Catalog, and an announcement.

Rule: a stream ends as soon as its client is gone: the server sees it close, or a heartbeat cannot
be written. No async generators: a response is one straight function, so that leaving it closes
everything it opened.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import trio
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from discod import api
from discod.model.endpoint import Fault
from discod.model.settings import ServiceSettings
from discod.view import Announcement, View

WATCH_HEARTBEAT = 15.0
"""Seconds between two comments in ``/v1/watch``; proxies cut connections that are silent longer."""
ANNOUNCE_HEARTBEAT = 5.0
"""Seconds between two empty lines of an announcement: how soon a client that vanished without
closing is noticed."""
ANNOUNCEMENTS_MAX = 128
"""Announcements open at once."""

Write = Callable[[bytes], Awaitable[None]]


class Stream(Response):
    """A response that `body` writes for as long as the client stays."""

    def __init__(self, media_type: str, body: Callable[[Write], Awaitable[None]]) -> None:
        super().__init__(media_type=media_type, headers={"cache-control": "no-store"})
        del self.headers["content-length"]
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it (ASGI)."""
        lock = trio.Lock()  # the body and its heartbeat write whole lines

        async def write(data: bytes) -> None:
            async with lock:
                await send({"type": "http.response.body", "body": data, "more_body": True})

        async def leave_with_client() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        if scope["method"] != "HEAD":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave_with_client)
                await self._body(write)
                nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def watch(view: View) -> Response:
    """Every change of the Catalog as a server-sent event.

    https://html.spec.whatwg.org/multipage/server-sent-events.html: the event is named by what
    happened, its id is the revision, its data one JSON document. A reader that falls behind gets an
    event ``behind`` and the end of the stream: it has to read the Catalog again.
    """

    async def body(write: Write) -> None:
        async with view.changes() as changes, trio.open_nursery() as nursery:
            catalog = view.catalog
            await write(f": {catalog.domain} from revision {catalog.revision}\n\n".encode())
            nursery.start_soon(_beat, write, b":\n\n", WATCH_HEARTBEAT)
            async for change in changes:
                lines = [
                    f"id: {news.revision}\nevent: {news.what}\n"
                    f"data: {json.dumps(api.entry(news, catalog.domain))}\n\n"
                    for news in change.entries
                ]
                if lines:
                    await write("".join(lines).encode())
            await write(b"event: behind\ndata: {}\n\n")
            nursery.cancel_scope.cancel()

    return Stream("text/event-stream", body)


async def _beat(write: Write, sign: bytes, period: float) -> None:
    while True:
        await trio.sleep(period)
        await write(sign)


@dataclass(slots=True)
class Announcements:
    """The announcements that are open, by the id their client got."""

    view: View
    open: dict[str, Announcement] = field(default_factory=dict)

    async def serve(
        self, services: tuple[ServiceSettings, ...], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Announce for as long as the client stays connected: one JSON document a line.

        Each has the id and the present status; empty lines are signs of life.
        """
        if len(self.open) >= ANNOUNCEMENTS_MAX:
            expected = f"at most {ANNOUNCEMENTS_MAX} announcements are open at once"
            refused = api.error(Fault("announcements", str(len(self.open)), expected))
            await JSONResponse(refused, 503)(scope, receive, send)
            return
        accepted = False
        try:
            async with self.view.announce(services) as announcement:
                accepted = True
                await self._follow(announcement, scope, receive, send)
        except ValueError as error:
            if accepted:
                raise
            names = ", ".join(service.name for service in services)
            refused = api.error(Fault("services", names, str(error)))
            await JSONResponse(refused, 409)(scope, receive, send)

    async def _follow(
        self, announcement: Announcement, scope: Scope, receive: Receive, send: Send
    ) -> None:
        id_ = token_hex(8)

        def line(status: str) -> bytes:
            return json.dumps({"id": id_, "status": status}).encode() + b"\n"

        async def body(write: Write) -> None:
            async with trio.open_nursery() as nursery:
                await write(line("accepted"))
                nursery.start_soon(_beat, write, b"\n", ANNOUNCE_HEARTBEAT)
                while True:
                    await write(line(await announcement.status()))

        self.open[id_] = announcement
        try:
            await Stream("application/x-ndjson", body)(scope, receive, send)
        finally:
            del self.open[id_]


def line_document(line: bytes) -> Any:
    """What one line of an announcement says; None for a sign of life."""
    return json.loads(line) if line.strip() else None

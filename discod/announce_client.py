"""One announcement, seen from its client: HTTP over the control socket, on trio.

Rule: one exchange a connection; closing the connection is what withdraws, so whoever opens one
closes it. Every wait has a deadline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Self

import h11
import trio

from discod.client import ApiError
from discod.http_stream import ANNOUNCE_HEARTBEAT, line_document

CONNECT_TIMEOUT = 5.0
"""Seconds to connect and to be accepted."""
SILENCE_MAX = 4 * ANNOUNCE_HEARTBEAT
"""Seconds without a sign of life until the daemon counts as gone."""
LINE_MAX = 64 * 1024
"""Octets of one status line."""


class Broken(Exception):
    """The connection failed, or what answers speaks no HTTP."""


@dataclass(slots=True)
class _Exchange:
    """One request and its answer."""

    stream: trio.SocketStream
    http: h11.Connection

    @classmethod
    async def open(cls, socket_path: str, path: str, document: object) -> Self:
        """Send a request and wait for the head of the answer.

        Raises:
            Broken, ApiError, OSError, trio.TooSlowError
        """
        with trio.fail_after(CONNECT_TIMEOUT):
            stream = await trio.open_unix_socket(socket_path)
        exchange = cls(stream, h11.Connection(h11.CLIENT))
        try:
            await exchange._request(path, json.dumps(document).encode())
        except BaseException:  # cleaned up, then raised on
            await trio.aclose_forcefully(stream)
            raise
        return exchange

    async def _request(self, path: str, body: bytes) -> None:
        request = h11.Request(
            method="POST",
            target=path,
            headers=[
                ("host", "localhost"),
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
            ],
        )
        data = b""
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            data += self.http.send(event) or b""
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Broken(str(error.__cause__ or error)) from None
        head = await self._event()
        if not isinstance(head, h11.Response):
            raise Broken("no answer")
        if head.status_code >= 400:
            raise ApiError(head.status_code, await self._json())

    async def _json(self) -> Any:
        data = b""
        while (chunk := await self.receive()) is not None and len(data) < LINE_MAX:
            data += chunk
        try:
            return json.loads(data)
        except ValueError:
            return None

    async def receive(self) -> bytes | None:
        """The next piece of the answer's body; None at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def _event(self) -> object:
        try:
            while (event := self.http.next_event()) is h11.NEED_DATA:
                self.http.receive_data(await self.stream.receive_some(65536))
        except (trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            raise Broken(str(error.__cause__ or error)) from None
        return event


class AnnounceSession:
    """An accepted announcement; leaving it closes the connection, which withdraws.

    Usage: ``async with await AnnounceSession.open(path, document) as session``, then `status` until
    None; `withdraw` at any time from any task.
    """

    def __init__(self, socket_path: str, exchange: _Exchange) -> None:
        self._path = socket_path
        self._exchange = exchange
        self._buffer = b""
        self.id = ""

    @classmethod
    async def open(cls, socket_path: str, document: object) -> Self:
        """Announce.

        Raises:
            Broken, OSError, trio.TooSlowError: no daemon, or none that answers.
            ApiError: it refused.
        """
        with trio.fail_after(CONNECT_TIMEOUT):
            exchange = await _Exchange.open(socket_path, "/v1/announce", document)
            session = cls(socket_path, exchange)
            try:
                await session.status()
            except BaseException:  # cleaned up, then raised on
                await trio.aclose_forcefully(exchange.stream)
                raise
        return session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self._exchange.stream)

    async def status(self) -> str | None:
        """The next status, in words; None when the daemon ended the announcement.

        Raises:
            Broken: the connection failed.
            trio.TooSlowError: no sign of life.
        """
        while True:
            while b"\n" in self._buffer:
                line, self._buffer = self._buffer.split(b"\n", 1)
                try:
                    document = line_document(line)
                    if document is not None:
                        self.id = str(document["id"])
                        return str(document["status"])
                except (ValueError, KeyError, TypeError):
                    raise Broken("a line that is no status") from None
            if len(self._buffer) > LINE_MAX:
                raise Broken("a line without end")
            with trio.fail_after(SILENCE_MAX):
                chunk = await self._exchange.receive()
            if chunk is None:
                return None
            self._buffer += chunk

    async def withdraw(self) -> None:
        """Take the endpoints out of DNS; returns once the store has confirmed it.

        Raises:
            Broken, OSError, trio.TooSlowError, ApiError: it is not confirmed.
        """
        path = f"/v1/announce/{self.id}/withdraw"
        exchange = await _Exchange.open(self._path, path, {})
        await trio.aclose_forcefully(exchange.stream)

"""The octets of a connection, in both directions.

Rule: over a plain socket the kernel is asked first, and trio only where there is something to wait
for: a turn of trio's scheduler takes as long as ten answers from memory. Whoever writes and never
waits has to give other tasks their turn.
"""

from __future__ import annotations

import os

import trio


class Pipe:
    """What is received from a stream, and written to it.

    Args:
        stream: Stays its opener's, who closes it, and sends by it what is not taken at once.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None

    async def receive(self, octets: int) -> bytes:
        """Wait for some octets, at most so many; none: the peer sends no more.

        Raises:
            trio.BrokenResourceError: the connection is.
            trio.ClosedResourceError: it was closed here.
        """
        if self._socket is None:
            return bytes(await self._stream.receive_some(octets))
        while True:
            try:
                await trio.lowlevel.wait_readable(self._socket)
                return os.read(self._socket.fileno(), octets)
            except BlockingIOError:  # the kernel has changed its mind
                continue
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error

    def write(self, data: bytes) -> int:
        """Send what the kernel takes without waiting; how many octets, none if it is not asked.

        Raises:
            trio.BrokenResourceError: the connection is.
        """
        if self._socket is None:
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:  # it has no room at all
            return 0
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error

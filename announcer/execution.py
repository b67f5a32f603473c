"""One command run inside a container by the engine (``docker exec``).

Rule: runs in a thread and may be cut from another one. The answer to a start is the connection
itself, with output in frames of the engine's multiplexed format until the command ends: "Stream
format" in https://docs.docker.com/engine/api/v1.41/#tag/Container/operation/ContainerAttach.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import Any

OUTPUT_MAX = 4096
"""Octets kept of a command's output; what goes beyond is read and dropped."""


class Execution:
    """One run; call it once with an SDK client."""

    def __init__(self, container: str, argv: tuple[str, ...], timeout: float) -> None:
        self.container = container
        self.argv = argv
        self.timeout = timeout
        self.id = ""
        """The engine's name for the run, once the command has been started."""
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._cut = False

    def __call__(self, client: Any) -> tuple[int, str]:
        """Run the command to its end; exit status and output.

        Raises:
            OSError: the connection broke, or was cut.
            docker.errors.APIError: the engine refuses.
        """
        id_ = str(client.exec_create(self.container, list(self.argv))["Id"])
        with self._lock:
            if self._cut:
                raise TimeoutError("cut before its start")
        with client.post(
            f"{client.base_url}/v{client.api_version}/exec/{id_}/start",
            json={"Detach": False, "Tty": False},
            stream=True,
            timeout=self.timeout + 1,  # the caller's deadline comes first
        ) as response:
            client._raise_for_status(response)  # makes the SDK's own exception
            with self._lock:
                self.id = id_
                if self._cut:
                    raise TimeoutError("cut at its start")
                # As the SDK's CancellableStream finds it: the connection object has let go of it.
                self._socket = response.raw._fp.fp.raw._sock
            try:
                output = _output(response.raw)
            finally:
                with self._lock:
                    self._socket = None
        status = client.exec_inspect(id_)["ExitCode"]
        return int(status), output.decode("utf-8", "replace")

    def cut(self) -> None:
        """Let the thread end soon, wherever it is. From any thread; no fault when it has ended."""
        with self._lock:
            self._cut = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # the engine was faster
                    self._socket.shutdown(socket.SHUT_RDWR)


def _output(raw: Any) -> bytes:
    kept = b""
    while len(header := _exactly(raw, 8)) == 8:
        (left,) = struct.unpack(">4xI", header)
        while left and (piece := raw.read(min(left, 65536))):
            left -= len(piece)
            kept += piece[: OUTPUT_MAX - len(kept)]
    return kept


def _exactly(raw: Any, count: int) -> bytes:
    data = b""
    while len(data) < count and (piece := raw.read(count - len(data))):
        data += piece
    return data

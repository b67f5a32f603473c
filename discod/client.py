"""The command line's way to the daemon: HTTP over the control socket or TCP.

Rule: every wait has a deadline, and a daemon that is not there is told in one sentence. Of several
places where a daemon may be, the first that answers is taken.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from discod.paths import FALLBACK_URL, api_sockets, private_tmp

TIMEOUT = 5.0
"""Seconds to connect, and between two pieces of an answer."""
CHANGE_TIMEOUT = 35.0
"""Seconds for what waits until the store confirmed it; the daemon itself gives up after 30."""
STREAM_TIMEOUT = 40.0
"""Seconds without a sign of life in a stream; the daemon sends one every 15."""
ANSWER_MAX = 256 << 20
"""Octets of one document; 100,000 endpoints make about 60 MB."""


class Unreachable(Exception):
    """No daemon answers."""


class ApiError(Exception):
    """The daemon answered, and refused."""

    def __init__(self, status: int, document: Any) -> None:
        self.status = status
        self.document = document
        super().__init__("\n".join(self._lines()))

    def _lines(self) -> list[str]:
        if not isinstance(self.document, dict):
            return [f"the daemon answered with status {self.status}"]
        errors = self.document.get("errors") or [self.document.get("error")]
        return [
            f"{one.get('subject')} = {one.get('value')}: {one.get('expected')}"
            if one.get("value")
            else f"{one.get('subject')}: {one.get('expected')}"
            for one in errors
            if isinstance(one, dict)
        ] or [f"the daemon answered with status {self.status}"]


class Client:
    """Asks one daemon.

    Args:
        targets: ``unix:/PATH`` or ``http://HOST:PORT``, in the order in which to try them.
        timeout: Seconds to connect, and between two pieces of an answer.

    Raises:
        ValueError: a target is neither.
    """

    def __init__(self, targets: Sequence[str], timeout: float = TIMEOUT) -> None:
        self._targets = tuple(targets)
        self._timeout = timeout
        for target in self._targets:
            _connection(target, timeout)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The document at `path`.

        Raises:
            Unreachable: no daemon answers, or not in time.
            ApiError: it refused.
        """
        if query:
            path = f"{path}?{urlencode(query)}"
        with self._open("GET", path, None, self._timeout) as response:
            return _document(response)

    def post(self, path: str, document: object) -> Any:
        """Ask for a change; over a control socket if there is one among the targets.

        Raises:
            Unreachable: no daemon answers, or not in time.
            ApiError: it refused.
        """
        with self._open("POST", path, document, max(self._timeout, CHANGE_TIMEOUT)) as response:
            return _document(response)

    @contextmanager
    def lines(self, path: str) -> Iterator[Iterator[str]]:
        """The lines of a stream, without their ends, until the daemon ends it.

        Raises:
            Unreachable: no daemon answers, or it fell silent.
            ApiError: it refused.
        """
        with self._open("GET", path, None, STREAM_TIMEOUT) as response:
            yield _lines(response)

    @contextmanager
    def _open(
        self, method: str, path: str, document: object, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        targets = self._targets
        if method == "POST":
            targets = tuple(t for t in targets if t.startswith("unix:")) or targets
        connection = self._connect(targets, timeout)
        try:
            body = None if method == "GET" else json.dumps(document).encode()
            headers = {"Accept": "application/json, */*"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                with response:
                    if response.status >= 400:
                        raise ApiError(response.status, _document(response))
                    yield response
            except TimeoutError:
                raise Unreachable(
                    f"the daemon at {_where(connection)} does not answer within {timeout:.0f} s"
                ) from None
            except (OSError, http.client.HTTPException) as error:
                text = str(error) or type(error).__name__
                raise Unreachable(f"the daemon at {_where(connection)} broke off: {text}") from None
        finally:
            connection.close()

    def _connect(self, targets: Sequence[str], timeout: float) -> http.client.HTTPConnection:
        failures = []
        for target in targets:
            connection = _connection(target, min(timeout, self._timeout))
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                failures.append(f"{target} ({_reason(error)})")
                continue
            connection.sock.settimeout(timeout)
            return connection
        raise Unreachable(
            f"no daemon answers at {', '.join(failures)}; is it running? systemctl status discod"
        )


def default_targets(uid: int, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where to look for this machine's daemon when nothing is said: control sockets, then TCP."""
    found = []
    for path in api_sockets(uid, environ):
        if path.parent == private_tmp(uid) and not _owned(path.parent, uid):
            continue  # whoever made that directory could answer in the daemon's place
        found.append(f"unix:{path}")
    return (*found, FALLBACK_URL)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


def _connection(target: str, timeout: float) -> http.client.HTTPConnection:
    if target.startswith("unix:/"):
        return _UnixConnection(target.removeprefix("unix:"), timeout)
    try:
        parts = urlsplit(target)
        port = parts.port or 80
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError(f"{target!r}: expected http://HOST:PORT or unix:/PATH")
    return http.client.HTTPConnection(parts.hostname, port, timeout=timeout)


def _where(connection: http.client.HTTPConnection) -> str:
    if isinstance(connection, _UnixConnection):
        return f"unix:{connection.path}"
    return f"http://{connection.host}:{connection.port}"


def _reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "permission denied: be root, or in the daemon's group"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error)).lower()


def _owned(directory: Path, uid: int) -> bool:
    try:
        return os.lstat(directory).st_uid == uid
    except OSError:
        return False


def _document(response: http.client.HTTPResponse) -> Any:
    data = response.read(ANSWER_MAX)
    try:
        return json.loads(data)
    except ValueError:
        if response.status >= 400:
            return data.decode("utf-8", "replace").strip()
        raise Unreachable(
            f"what answers is not discod: {data[:60].decode('utf-8', 'replace')!r}"
        ) from None


def _lines(response: http.client.HTTPResponse) -> Iterator[str]:
    while line := response.readline():
        yield line.decode("utf-8", "replace").rstrip("\r\n")

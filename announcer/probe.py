"""Runs one check once.

Rule: whatever the target does, the answer is a `ProbeResult` within ``check.timeout``; nothing is
raised for it. Whether an endpoint is up is decided elsewhere, from several results.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import h11
import trio

from announcer.errors import EngineRefused, EngineUnavailable
from discod.model.endpoint import Address, Endpoint
from discod.model.settings import Check

HEADERS_MAX = 16384
"""Octets of status line and headers; h11's own default, and what most servers allow."""
OUTPUT_MAX = 4096
DETAIL_MAX = 200
"""Characters of a command's output that are shown."""

OUT_OF_MEANS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What is wrong with this host, and says nothing of the endpoint."""

Execute = Callable[[Sequence[str], float], Awaitable[tuple[int, str]]]
"""Runs argv within a deadline in seconds; exit status and output.

Raises TimeoutError at the deadline, EngineRefused or OSError where it cannot run, and
EngineUnavailable where that is unknown.
"""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """How a check went."""

    ok: bool
    detail: str
    """For people, e.g. ``status 503, expected 200-399``."""
    ran: bool = True
    """False: the check itself could not be run (the engine is away), which says nothing about the
    endpoint; then `ok` is False, and not to be counted."""


async def probe(check: Check, endpoint: Endpoint, *, execute: Execute) -> ProbeResult:
    """Check `endpoint` once.

    Args:
        check: What to do; `Check.port` 0 means the endpoint's.
        endpoint: The target.
        execute: For ``cmd``: in the endpoint's container, or `run_local`.
    """
    if check.kind == "cmd":
        return await _command(check, execute)
    where = _authority(endpoint.address, check.port or endpoint.port)
    with trio.move_on_after(check.timeout):
        try:
            async with await _connect(endpoint.address, check.port or endpoint.port) as stream:
                if check.kind == "tcp":
                    return ProbeResult(ok=True, detail=f"connected to {where}")
                return await _http(check, where, stream)
        except OSError as error:
            return ProbeResult(
                ok=False, detail=_refusal(error, where), ran=error.errno not in OUT_OF_MEANS
            )
        except trio.BrokenResourceError as error:
            cause = error.__cause__
            detail = _refusal(cause, where) if isinstance(cause, OSError) else str(error)
            return ProbeResult(ok=False, detail=detail)
    return ProbeResult(ok=False, detail=f"no answer from {where} within {check.timeout:g} s")


async def run_local(argv: Sequence[str], timeout: float) -> tuple[int, str]:
    """Run a command on this host, for services that no container stands behind.

    Returns:
        Exit status (negative: the signal that ended it), and the first 4 KiB of its output.

    Raises:
        TimeoutError: it was killed at the deadline.
        OSError: there is no such program, or it may not be run.
    """
    output = bytearray()
    process = await trio.lowlevel.open_process(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        with trio.fail_after(timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep, process.stdout, output)
                status = await process.wait()
                # A child of it may hold the pipe open; what the command itself said is there.
                nursery.cancel_scope.deadline = trio.current_time() + 0.1
    except trio.TooSlowError:
        raise TimeoutError(f"no end within {timeout:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and what it left behind
        with trio.CancelScope(shield=True):  # a killed process ends
            await process.wait()
            await process.stdout.aclose()
    return status, output.decode("utf-8", "replace")


async def _keep(pipe: trio.abc.ReceiveStream, output: bytearray) -> None:
    async for piece in pipe:
        output += piece[: OUTPUT_MAX - len(output)]


async def _connect(address: Address, port: int) -> trio.SocketStream:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        await sock.connect((str(address), port))
    except BaseException:  # cleaned up, then raised on
        sock.close()
        raise
    return trio.SocketStream(sock)


async def _http(check: Check, where: str, stream: trio.SocketStream) -> ProbeResult:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADERS_MAX)
    try:
        request = connection.send(
            h11.Request(
                method="GET",
                target=quote(check.path, safe="/?#[]@!$&'()*+,;=:%-._~"),
                headers=[
                    ("Host", where.removesuffix(":80")),
                    ("User-Agent", "discod"),
                    ("Accept", "*/*"),
                    ("Connection", "close"),
                ],
            )
        )
        assert request is not None
        await stream.send_all(request)
        left = HEADERS_MAX
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await stream.receive_some(4096)
                if not data:
                    how = "without an answer" if left == HEADERS_MAX else "amid its headers"
                    return ProbeResult(ok=False, detail=f"{where} closed {how}")
                left -= len(data)
                if left < 0:
                    return ProbeResult(
                        ok=False, detail=f"more than {HEADERS_MAX} octets of headers from {where}"
                    )
                connection.receive_data(data)
            elif isinstance(event, h11.Response):
                break
    except h11.RemoteProtocolError as error:
        return ProbeResult(ok=False, detail=f"no HTTP from {where}: {error}"[:DETAIL_MAX])
    low, high = check.status
    if low <= event.status_code <= high:
        return ProbeResult(ok=True, detail=f"status {event.status_code}")
    expected = f"{low}-{high}" if low != high else f"{low}"
    return ProbeResult(ok=False, detail=f"status {event.status_code}, expected {expected}")


async def _command(check: Check, execute: Execute) -> ProbeResult:
    try:
        status, output = await execute(check.command, check.timeout)
    except TimeoutError:
        return ProbeResult(ok=False, detail=f"command did not end within {check.timeout:g} s")
    except EngineUnavailable as error:
        return ProbeResult(ok=False, detail=f"command not run: {error}", ran=False)
    except EngineRefused as error:
        detail = f"command not run: {error}"[:DETAIL_MAX]
        return ProbeResult(ok=False, detail=detail, ran=error.status < 500)
    except OSError as error:
        detail = f"command not run: {error}"[:DETAIL_MAX]
        return ProbeResult(ok=False, detail=detail, ran=error.errno not in OUT_OF_MEANS)
    said = " ".join(output.split())[:DETAIL_MAX]
    ended = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
    return ProbeResult(ok=status == 0, detail=f"{ended}: {said}" if said else ended)


def _authority(address: Address, port: int) -> str:
    """``10.1.2.3:80`` or ``[2001:db8::1]:80`` (RFC 3986, section 3.2.2)."""
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _refusal(error: OSError, where: str) -> str:
    words = {
        errno.ECONNREFUSED: "connection refused by",
        errno.ECONNRESET: "connection reset by",
        errno.EPIPE: "connection closed by",
        errno.EHOSTUNREACH: "no route to",
        errno.ENETUNREACH: "no route to",
        errno.ETIMEDOUT: "connection timed out to",
    }
    if error.errno in words:
        return f"{words[error.errno]} {where}"
    said = os.strerror(error.errno).lower() if error.errno else str(error)
    return f"{said} ({where})"

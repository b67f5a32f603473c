"""Serving an ASGI application on TCP and on the control socket.

Rule: sockets are bound before anything is served, every connection is counted, and no client can
delay the shutdown. hypercorn's connection (`TCPServer`: HTTP/1.1) is used below an accept
loop of our own, for three things that `hypercorn.trio.serve` does not give: its writes are shielded
from cancellation, so that one client that stopped reading would hold the shutdown for ever; a fault
in one connection would end the whole daemon; and the number of connections is not bounded.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Event, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from discod.api import socket_address
from discod.log import fields
from discod.model.places import Places, holder_of
from discod.model.settings import ListenAddress

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
"""At once, on TCP and on the control socket each. Two counts, so that clients on TCP cannot lock
out the control socket; for one more, a place is made as `discod.model.places` says."""
SOCKET_MODE = 0o660
"""The control socket is for the daemon's user and group."""
GRACE = 0.5
"""Seconds that a write in progress gets at shutdown; then its connection is cut."""
IDLE = 30.0
"""Seconds that a connection may be open without a request."""


class _Connection(TCPServer):
    """One connection, which tells whether a request is under way."""

    def __init__(self, told: Callable[[bool], None], *given: Any) -> None:
        super().__init__(*given)
        self._told = told
        self._gone = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "protocol":
            # HTTP/2 without TLS is asked for by attackers only, and hypercorn keeps a connection
            # that was upgraded and then closed by its client for ever.
            value.protocol._check_protocol = _stay_with_http1
        super().__setattr__(name, value)

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, Updated):
            if self._gone:
                return  # else one that ends with its client's request is kept for IDLE
            self._told(event.idle)
        await super().protocol_send(event)

    async def _read_data(self) -> None:
        await super()._read_data()
        self._gone = True
        await self.idle_task.stop()  # else a connection that its client closed is kept for IDLE


async def _stay_with_http1(_: object) -> None:
    """Stands for hypercorn's look at what a request wants to change to."""


class _Connections:
    """The open connections of one kind of listener."""

    def __init__(self, app: Any, *, local: bool) -> None:
        self._wrapper = ASGIWrapper(app)
        self._state = {"local": local}
        self._config = Config()
        self._config.errorlog = logging.getLogger("discod.http")
        self._config.accesslog = None
        self._config.include_server_header = False
        self._config.keep_alive_timeout = IDLE
        self._context = WorkerContext(None)
        self._open: set[trio.SocketStream] = set()
        self._places: Places[trio.SocketStream] = Places()
        self._busy: set[trio.SocketStream] = set()
        self._empty = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        # The control socket has one holder: whoever may use it is trusted, and an announcement
        # under way, which is a service in DNS, is never ended for a newcomer.
        holder = "" if self._state["local"] else _holder(stream)
        if holder is None or not self._admit(stream, holder):
            return  # trio.serve_listeners closes it

        def told(idle: bool) -> None:
            if idle:
                self._busy.discard(stream)
            else:
                self._busy.add(stream)
            if stream.socket.fileno() >= 0:  # else its place was given away
                self._places.take(stream, holder)

        self._open.add(stream)
        try:
            await _Connection(
                told,
                self._wrapper,
                self._config,
                self._context,
                ConnectionState(self._state),
                stream,  # its annotation forgets plain connections
            )
        except Exception as error:  # noqa: BLE001 - one client's connection is not the daemon's end
            _log_fault(error)
        except BaseExceptionGroup as group:
            cancelled, rest = group.split(trio.Cancelled)
            if rest is not None:
                _log_fault(rest)
            if cancelled is not None:
                raise cancelled from None
        finally:
            self._open.discard(stream)
            self._busy.discard(stream)
            self._places.give_up(stream, holder)
            if not self._open:
                self._empty.set()

    def _admit(self, stream: trio.SocketStream, holder: str) -> bool:
        """Give it a place, another's if need be."""
        if len(self._places) >= CONNECTIONS_MAX:
            found = self._places.victim(holder, lambda one: one not in self._busy)
            if found is None:
                log.warning(
                    "connection refused: too many are open", extra=fields(limit=CONNECTIONS_MAX)
                )
                return False
            victim, theirs = found
            self._places.give_up(victim, theirs)
            victim.socket.close()  # wakes whoever reads or writes it
        self._places.take(stream, holder)
        return True

    async def cut_off(self) -> None:
        """Wait until cancelled; then see to it that the connections end."""
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await self._context.terminated.set()
                if self._open:
                    self._empty = trio.Event()
                    with trio.move_on_after(GRACE):
                        await self._empty.wait()
            for stream in tuple(self._open):
                stream.socket.close()  # wakes a shielded write


def _holder(stream: trio.SocketStream) -> str | None:
    """Whom a connection counts for; None: it was reset before we got to it."""
    try:
        return holder_of(str(stream.socket.getpeername()[0]))
    except OSError:
        return None


def _log_fault(error: BaseException) -> None:
    log.warning(
        "connection ended by a fault",
        extra=fields(kind=type(error).__name__, error=error),
        exc_info=error if log.isEnabledFor(logging.DEBUG) else None,
    )


async def serve_http(
    app: Any,
    listen: Sequence[ListenAddress],
    socket_path: Path | None,
    *,
    task_status: trio.TaskStatus[tuple[str, ...]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` until cancelled.

    Requests that came over the control socket have ``scope["state"]["local"]`` set to True.

    Args:
        app: An ASGI application.
        listen: TCP addresses; port 0 takes any free one.
        socket_path: Of the control socket, in an existing directory; None for none. A socket that
            nobody serves any more is replaced, and ours is removed at the end.
        task_status: Started, when everything is bound, with what was bound, as URLs:
            ``http://127.0.0.1:9353``, ``unix:/run/discod/api.sock``.

    Raises:
        OSError: an address cannot be bound; its text names the address.
    """
    tcp, local = _Connections(app, local=False), _Connections(app, local=True)
    bound: list[str] = []
    listeners: list[tuple[_Connections, trio.SocketListener]] = []
    identity: tuple[int, int] | None = None
    try:
        for address in listen:
            sock = _bind_tcp(address)
            listeners.append((tcp, _listener(sock)))
            bound.append(f"http://{socket_address(address.address, sock.getsockname()[1])}")
        if socket_path is not None:
            sock = bind_unix(socket_path)
            identity = _identity(socket_path)
            listeners.append((local, _listener(sock)))
            bound.append(f"unix:{socket_path}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tcp.cut_off)
            nursery.start_soon(local.cut_off)
            for connections, listener in listeners:
                nursery.start_soon(trio.serve_listeners, connections.serve, [listener])
            task_status.started(tuple(bound))
    finally:
        for _, listener in listeners:
            listener.socket.close()
        if socket_path is not None and identity is not None:
            _remove(socket_path, identity)


def _listener(sock: socket.socket) -> trio.SocketListener:
    sock.listen(128)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _bind_tcp(listen: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if listen.address.version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((str(listen.address), listen.port))
    except OSError as error:
        sock.close()
        where = socket_address(listen.address, listen.port)
        raise _named(error, f"http.listen {where}") from None
    return sock


def bind_unix(path: Path) -> socket.socket:
    """Bind `path` with mode 0660, in the place of a socket that nobody serves any more.

    Raises:
        OSError: it cannot be bound, something else than a socket stands there, or another process
            serves it.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        # The mode of a socket before bind() is, less the umask, that of the file: the file is at no
        # time more open than it is to be, and the umask of the process stays as it is.
        os.fchmod(sock.fileno(), SOCKET_MODE)
        sock.bind(str(path))
        path.chmod(SOCKET_MODE)
    except OSError as error:
        sock.close()
        raise _named(error, f"control socket {path}") from None
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "exists, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
    raise OSError(errno.EADDRINUSE, "another process serves it")


def _remove(path: Path, identity: tuple[int, int]) -> None:
    """Remove our socket, but not that of a daemon that took our place."""
    if identity == _identity(path):
        path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _named(error: OSError, what: str) -> OSError:
    return OSError(error.errno, f"{what}: {error.strerror or error}")

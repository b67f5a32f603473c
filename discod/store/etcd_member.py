"""One etcd endpoint: its gRPC channel, our token there, calls and streams on it.

Rule: the one module that imports gRPC; its exceptions leave as `RpcFailure`. Unary calls are gRPC
futures whose callback wakes trio. Threads: while something is under way, gRPC runs one per channel;
a stream adds one of gRPC's (requests) and one of ours (responses). All end with the call or stream.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any

import grpc
import trio

from discod.store.etcd_auth import Login
from discod.store.etcd_errors import RpcFailure
from discod.store.etcd_proto import Method, Proto

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 6000),  # etcd answers GOAWAY too_many_pings below 5000
    ("grpc.keepalive_timeout_ms", 3000),
    ("grpc.http2.ping_timeout_ms", 3000),  # without it a frozen peer took 65 s to notice
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", -1),  # a page of 10,000 keys passes 4 MB
    ("grpc.max_send_message_length", -1),  # etcd says no by itself (1.5 MB)
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),  # also the limit of one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # two stores of one process share no backoff
)

STREAM_QUEUE = 256
"""Responses read ahead of the consumer; when full, the reader stops and gRPC's flow control makes
the server hold back."""

REAP = 1.0
"""Seconds that closing a stream waits for its reader thread, which needs about one millisecond."""


class Member:
    """One endpoint. gRPC connects at the first call, and again by itself."""

    def __init__(self, url: str, target: str, credentials: Any, proto: Proto, login: Login | None):
        self.url = url
        self._proto = proto
        self._login = login
        self._token: str | None = None  # not known; empty: no user, or authentication is off
        self._logging_in = trio.Lock()
        self._target = target
        self._secure = credentials is not None
        self._channel = self._connect(credentials)
        self._callables: dict[str, Any] = {}

    def _connect(self, credentials: Any) -> Any:
        if credentials is None:
            return grpc.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(self._target, credentials, options=CHANNEL_OPTIONS)

    def reconnect(self, credentials: Any) -> None:
        """Connect anew with other credentials; calls and streams under way end as unavailable."""
        if self._secure:
            old, self._channel = self._channel, self._connect(credentials)
            self._callables.clear()
            old.close()

    def close(self) -> None:
        """End every call and stream."""
        self._channel.close()

    async def call(self, name: str, request: Any, timeout: float) -> Any:
        """Call a method, e.g. ``KV/Range``; a stale token is replaced and the call repeated once.

        Raises:
            RpcFailure: within about `timeout` seconds.
        """
        deadline = trio.current_time() + timeout
        for last in (False, True):
            token = await self._authenticated(deadline)
            try:
                left = max(0.0, deadline - trio.current_time())
                return await self._unary(name, request, left, token)
            except RpcFailure as failure:
                if last or self._login is None or not failure.log_in_again:
                    raise
                self.forget_token(token)
        raise AssertionError("unreachable")

    def forget_token(self, token: str | None = None) -> None:
        """Log in before the next call (unless `token`, the one that failed, was replaced since)."""
        if token is None or self._token == token:
            self._token = None

    def stream(self, name: str) -> Stream:
        """Open a stream of a method, e.g. ``Watch/Watch``, with the token of the last call."""
        method = self._proto.method(name)
        callable_ = self._callables.get(name)
        if callable_ is None:
            callable_ = self._callables[name] = self._channel.stream_stream(
                method.path, method.serialize, method.parse
            )
        metadata = _metadata(self._token or "")
        return Stream(lambda requests: callable_(requests, metadata=metadata))

    async def _unary(self, name: str, request: Any, timeout: float, token: str) -> Any:
        callable_ = self._callables.get(name)
        if callable_ is None:
            method: Method = self._proto.method(name)
            # Lease/LeaseKeepAlive is a stream by declaration, but one request, one response and
            # the end of both is what a unary call is on the wire.
            callable_ = self._callables[name] = self._channel.unary_unary(
                method.path, method.serialize, method.parse
            )
        home = trio.lowlevel.current_trio_token()
        done = trio.Event()

        def wake(_: object) -> None:
            with contextlib.suppress(trio.RunFinishedError):  # nobody is left to wake
                home.run_sync_soon(done.set)

        future = callable_.future(request, timeout=timeout, metadata=_metadata(token))
        future.add_done_callback(wake)
        try:
            await done.wait()  # gRPC's own deadline ends it
        finally:
            if not done.is_set():
                future.cancel()
        code = future.code()
        if code is not grpc.StatusCode.OK:
            raise RpcFailure(code.name, future.details() or "no details")
        return future.result()

    async def _authenticated(self, deadline: float) -> str:
        """The token to use; empty without a user, or where etcd has authentication off."""
        if self._login is None:
            return ""
        if self._token is not None:
            return self._token
        with trio.move_on_at(deadline):
            async with self._logging_in:
                if self._token is None:
                    self._token = await self._authenticate(self._login, deadline)
                return self._token
        raise RpcFailure("DEADLINE_EXCEEDED", "no answer to the login", not_sent=True)

    async def _authenticate(self, login: Login, deadline: float) -> str:
        request = await login.request()
        left = max(0.0, deadline - trio.current_time())
        try:
            response = await self._unary("Auth/Authenticate", request, left, "")
        except RpcFailure as failure:
            if failure.no_auth:
                return ""
            raise RpcFailure(failure.code, failure.details, not_sent=True) from None
        return str(response.token)


class Stream:
    """A bidirectional stream. Close it with `aclose`, whatever happened."""

    def __init__(self, start: Callable[[Any], Any]) -> None:
        # Unbounded, but the watch sends a few requests at its start and then about one a second.
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._slots = threading.Semaphore(STREAM_QUEUE)
        self._put, self._get = trio.open_memory_channel[Any](STREAM_QUEUE)
        self._home = trio.lowlevel.current_trio_token()
        self._failure = RpcFailure("UNAVAILABLE", "the server ended the stream")
        self._closed = False
        self._ended = trio.Event()
        self._call = start(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, name="discod-watch", daemon=True)
        self._reader.start()

    def send(self, request: Any) -> None:
        """Send a request; never blocks."""
        self._requests.put(request)

    def receive_nowait(self) -> Any | None:
        """A response that is here already, or None."""
        try:
            response = self._get.receive_nowait()
        except (trio.WouldBlock, trio.EndOfChannel):
            return None
        self._slots.release()
        return response

    async def receive(self) -> Any:
        """The next response.

        Raises:
            RpcFailure: the stream is over.
        """
        try:
            response = await self._get.receive()
        except trio.EndOfChannel:
            raise self._failure from None
        self._slots.release()
        return response

    async def aclose(self) -> None:
        """End the stream and its threads."""
        self._closed = True
        self._call.cancel()
        self._requests.put(None)
        self._slots.release()
        with trio.move_on_after(REAP, shield=True):
            await self._ended.wait()

    def _read(self) -> None:
        """The reader thread."""
        try:
            for response in self._call:
                self._slots.acquire()
                if self._closed:
                    break
                self._soon(self._arrived, response)
        except grpc.RpcError:
            code = self._call.code()
            self._failure = RpcFailure(code.name, self._call.details() or "no details")
        finally:
            self._soon(self._over)

    def _soon(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._home.run_sync_soon(function, *args)

    def _arrived(self, response: Any) -> None:
        if not self._closed:
            self._put.send_nowait(response)  # has room: `_slots` counts

    def _over(self) -> None:
        self._requests.put(None)
        self._put.close()
        self._ended.set()


def tls_credentials(ca: bytes | None, cert: bytes | None, key: bytes | None) -> Any:
    """Channel credentials from PEM data; without `ca`, gRPC's own list of roots."""
    return grpc.ssl_channel_credentials(ca, key, cert)


def _metadata(token: str) -> tuple[tuple[str, str], ...]:
    """For every call. `hasleader`: refuse us when you have no leader, rather than hang."""
    return (("hasleader", "true"), ("token", token)) if token else (("hasleader", "true"),)

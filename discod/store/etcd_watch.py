"""One watch on etcd: a stream, kept honest by progress requests and a deadline of our own.

Rule: no task and no timer of its own; all of it happens while the caller waits in ``__anext__``.
The first call opens the stream, after one linearizable read on the same member, which proves that
the member is alive and connected to a leader, that our token is good, and that the store's history
is still the one that `after` belongs to. The stream's end is final; a caller opens another watch.
"""

from __future__ import annotations

from typing import Any, Protocol

import trio

from discod.store.base import Compacted, Delta, StoreRejected, StoreUnavailable
from discod.store.etcd_errors import RpcFailure
from discod.store.etcd_events import Assembler, prefix_range, span
from discod.store.etcd_member import Member, Stream
from discod.store.etcd_proto import Proto

PROGRESS_INTERVAL = 2.0
"""Seconds of silence after which progress is requested (etcd's own notifications: 10 minutes)."""
PATIENCE = 3.0
"""Seconds without any response to a request until the stream counts as dead: 5 in all."""
REPEAT = 1.0
"""Seconds between unanswered progress requests: etcd drops them while a watch catches up."""
FENCE_REPEAT = 0.1
"""The same while events wait for the answer."""
SETTLE = 0.3
"""Seconds for which split watches that begin in the past are left to catch up before the first
fence; etcd serves such watches each 0.1 s."""

_STALE_TOKEN = ("invalid auth token", "user name is empty", "auth store is old")


class Owner(Protocol):
    """What a watch needs of the store."""

    proto: Proto

    async def verify(self, prefixes: tuple[str, ...], after: int) -> Member:
        """A member that is up to date, in the history that `after` belongs to."""
        ...

    def avoid(self, member: Member) -> None:
        """Prefer another member from now on."""
        ...

    def must_split(self, prefixes: tuple[str, ...], learned: bool = False) -> bool:
        """Whether the span of these prefixes may not be read; `learned`: remember that."""
        ...


class EtcdWatch:
    """An open watch."""

    def __init__(self, owner: Owner, prefixes: tuple[str, ...], after: int) -> None:
        self._owner = owner
        self._prefixes = prefixes
        self._after = after
        self._member: Member | None = None
        self._stream: Stream | None = None
        self._split = owner.must_split(prefixes)
        self._assembler = Assembler(prefixes, after, split=self._split)
        self._uncreated = 0
        self._settled = 0.0  # when fences make sense
        self._heard = 0.0  # when the last response came
        self._asked: float | None = None  # when the oldest unanswered request was sent
        self._repeated = 0.0  # when the latest one was
        self._spoke = 0.0  # when the caller last got a Delta

    def __aiter__(self) -> EtcdWatch:
        """Itself."""
        return self

    async def __anext__(self) -> Delta:
        """The next changes or sign of life.

        Raises:
            Compacted, StoreUnavailable, StoreRejected.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._stream is None:
                self._member, self._stream = await self._open()
            response = self._stream.receive_nowait()
            if response is None:
                try:
                    with trio.move_on_at(self._next_tick()):
                        response = await self._stream.receive()
                except RpcFailure as failure:
                    raise self._lost(failure) from None
            if response is None:
                self._tick()
            elif self._is_denied(response) and not self._split and len(self._prefixes) > 1:
                self._split = self._owner.must_split(self._prefixes, learned=True)
                self._assembler = Assembler(self._prefixes, self._after, split=True)
                await self.aclose()
            else:
                delta = self._take(response)
                if delta is not None:
                    self._spoke = trio.current_time()
                    return delta

    async def aclose(self) -> None:
        """End the stream and its threads."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    async def _open(self) -> tuple[Member, Stream]:
        member = await self._owner.verify(self._prefixes, self._after)
        stream = member.stream("Watch/Watch")
        request = self._owner.proto.message("WatchRequest")
        ranges = (
            [prefix_range(prefix) for prefix in self._prefixes]
            if self._split
            else [span(self._prefixes)]
        )
        for key, end in ranges:
            create = {
                "key": key,
                "range_end": end,
                "start_revision": self._after + 1,
                "progress_notify": True,
            }
            stream.send(request(create_request=create))
        self._uncreated = len(ranges)
        self._heard = self._spoke = self._asked = self._repeated = trio.current_time()
        return member, stream

    def _next_tick(self) -> float:
        if self._assembler.waiting:
            tick = max(self._settled, self._repeated + FENCE_REPEAT)
        elif self._asked is None:
            tick = self._heard + PROGRESS_INTERVAL
        else:
            tick = self._repeated + REPEAT
        return tick if self._asked is None else min(tick, self._asked + PATIENCE)

    def _tick(self) -> None:
        now = trio.current_time()
        if self._asked is not None and now >= self._asked + PATIENCE:
            silence = now - self._heard
            raise self._lost(RpcFailure("DEADLINE_EXCEEDED", f"watch silent for {silence:.1f} s"))
        if now >= self._next_tick():
            self._ask(again=True)

    def _ask(self, again: bool = False) -> None:
        assert self._stream is not None
        if self._uncreated == 0:
            self._assembler.asked(again)
            self._stream.send(self._owner.proto.progress_request())
        self._repeated = trio.current_time()
        if self._asked is None:
            self._asked = self._repeated

    def _take(self, response: Any) -> Delta | None:
        self._heard = trio.current_time()
        self._asked = None
        if response.canceled or response.compact_revision:
            raise self._cancelled(response)
        if response.created:
            self._uncreated -= 1
            if response.header.revision > self._after:
                self._settled = self._heard + SETTLE
            return Delta(self._after) if self._uncreated == 0 else None
        delta = None
        if response.events:
            delta = self._assembler.take(response.events)
        elif response.watch_id < 0:  # the answer to a progress request
            delta = self._assembler.answered() or Delta(self._assembler.revision)
        else:
            self._assembler.notified(response.header.revision)
        if self._assembler.wants_fence and self._heard >= self._settled:
            self._ask()
        if delta is None and self._heard >= self._spoke + PROGRESS_INTERVAL:
            delta = Delta(self._assembler.revision)  # busy with what is not ours
        return delta

    @staticmethod
    def _is_denied(response: Any) -> bool:
        return bool(response.canceled and "permission denied" in response.cancel_reason)

    def _cancelled(self, response: Any) -> Exception:
        assert self._member is not None
        reason = response.cancel_reason or "no reason given"
        text = f"{self._member.url}: watch cancelled: {reason}"
        if response.compact_revision or "compacted" in reason:
            return Compacted(f"{text}; compacted up to {response.compact_revision}")
        if self._is_denied(response):
            return StoreRejected(text)
        if any(part in reason for part in _STALE_TOKEN):
            self._member.forget_token()
        return StoreUnavailable(text)

    def _lost(self, failure: RpcFailure) -> Exception:
        assert self._member is not None
        if failure.log_in_again:
            self._member.forget_token()
        if failure.transient:
            self._owner.avoid(self._member)
        return failure.as_store_error(self._member.url)

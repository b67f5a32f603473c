"""``discod announce -- CMD``: a command that is announced while it lives.

Rule: the command comes first. It starts whether or not a daemon is there, it is never touched
because of the daemon, and its exit status is ours. It runs in a process group of its own, so that a
Ctrl-C at the terminal reaches it only after the withdrawal; signals are passed on to that group.
Killing ``discod announce`` itself (SIGKILL) leaves the command running and unannounced.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from discod.announce_client import AnnounceSession, Broken
from discod.backoff import Backoff
from discod.client import ApiError

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
"""Withdraw first, then pass on."""
OTHER_SIGNALS = frozenset(
    {signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)
"""Passed on at once."""
CONFIRM_TIMEOUT = 10.0
"""Seconds that a withdrawal gets before the command is stopped all the same."""
RETRY_FIRST = 0.25
"""Seconds until the first new try to announce; doubled each time, with jitter."""
RETRY_MAX = 15.0
"""Seconds between two tries at most."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit statuses as the shell has them."""


@dataclass(slots=True)
class Companion:
    """Runs one command and announces it.

    Args:
        argv: The command.
        document: Body of the announcement.
        sockets: Paths of control sockets, in the order in which to try them.
        drain: Seconds between the confirmed withdrawal and the signal to the command.
        say: Takes one line for the person who started it.
    """

    argv: Sequence[str]
    document: object
    sockets: Sequence[str]
    drain: float
    say: Callable[[str], None]
    _session: AnnounceSession | None = field(default=None, init=False)
    _announcing: trio.CancelScope = field(default_factory=trio.CancelScope, init=False)
    _withdrawn: bool = field(default=False, init=False)

    async def run(self) -> int:
        """Run the command to its end; its exit status, or 128 and the signal that ended it."""
        with trio.open_signal_receiver(*STOP_SIGNALS, *OTHER_SIGNALS) as signals:
            try:
                process = await trio.lowlevel.open_process(list(self.argv), process_group=0)
            except FileNotFoundError:
                self.say(f"{self.argv[0]}: not found")
                return NOT_FOUND
            except OSError as error:
                self.say(f"{self.argv[0]}: {error.strerror}")
                return NOT_EXECUTABLE
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announce)
                nursery.start_soon(self._pass_on, signals, process)
                status = await process.wait()
                nursery.cancel_scope.cancel()
        return status if status >= 0 else 128 - status

    async def _announce(self) -> None:
        """Announce, and again whenever the daemon was away; until a stop."""
        backoff, said = Backoff(random.Random(), RETRY_FIRST, RETRY_MAX), ""
        with self._announcing:
            while True:
                trouble = ""
                for path in self.sockets:
                    try:
                        await self._one_session(path)
                        trouble, said = "the daemon ended the announcement", ""
                        backoff.reset()
                    except (Broken, OSError, ApiError, trio.TooSlowError) as error:
                        if self._session is not None:
                            said = ""
                            backoff.reset()
                        trouble = _text(path, error)
                        if not isinstance(error, FileNotFoundError | ConnectionRefusedError):
                            break
                    finally:
                        self._session = None
                if trouble != said:
                    self.say(f"not announced: {trouble}; the command goes on, trying again")
                    said = trouble
                await trio.sleep(backoff.pause())

    async def _one_session(self, path: str) -> None:
        async with await AnnounceSession.open(path, self.document) as session:
            self._session = session
            self.say("announced")
            while (status := await session.status()) is not None:
                self.say(status)

    async def _pass_on(self, signals: AsyncIterator[int], process: trio.Process) -> None:
        async with trio.open_nursery() as nursery:
            async for number in signals:
                if number in STOP_SIGNALS and not self._withdrawn:
                    self._withdrawn = True
                    nursery.start_soon(self._stop, number, process)
                else:  # the second one does not wait any more
                    _kill(process, number)

    async def _stop(self, number: int, process: trio.Process) -> None:
        session = self._session
        if session is not None:
            try:
                with trio.fail_after(CONFIRM_TIMEOUT):
                    await session.withdraw()
                self.say("withdrawn")
            except (Broken, OSError, ApiError, trio.TooSlowError) as error:
                self.say(f"withdrawal not confirmed: {_text('the daemon', error)}")
        self._announcing.cancel()  # nor is it announced again
        if session is not None:
            await trio.sleep(self.drain)
        _kill(process, number)


def _kill(process: trio.Process, number: int) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):  # it ended by itself just now
            os.killpg(process.pid, number)


def _text(where: str, error: Exception) -> str:
    if isinstance(error, trio.TooSlowError):
        return f"{where}: no answer in time"
    if isinstance(error, OSError):
        return f"{where}: {error.strerror or error}"
    return f"{where}: {error}"

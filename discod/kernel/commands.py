"""Programs of the system that are run for the packet filter: nft, iptables.

Rule: one run has a deadline, its input at once, and its output whole; what it says when it fails is
in the error.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

DEADLINE = 15.0
"""Seconds; includes waiting for the lock of iptables (`LOCK`)."""
LOCK = 10
"""Seconds that iptables waits while another has its lock."""

Run = Callable[[Sequence[str], str], Awaitable[str]]
"""Runs a program with arguments and input; returns its output, raises `CommandFailed`."""


class CommandFailed(Exception):
    """A program is missing, failed, or took too long; the text says which, and its own words."""


async def run(argv: Sequence[str], stdin: str = "") -> str:
    """Run one program.

    Raises:
        CommandFailed: it is not there, ended with another status than 0, or took too long.
    """
    with trio.move_on_after(DEADLINE):
        try:
            done = await trio.run_process(
                list(argv), stdin=stdin.encode(), capture_stdout=True, capture_stderr=True,
                check=False,
            )  # fmt: skip
        except OSError as error:
            raise CommandFailed(f"{argv[0]}: {error.strerror}") from error
        if done.returncode:
            words = done.stderr.decode(errors="replace").strip()
            raise CommandFailed(f"{' '.join(argv)}: status {done.returncode}: {words[:500]}")
        return done.stdout.decode(errors="replace")
    raise CommandFailed(f"{' '.join(argv)}: not done within {DEADLINE:g} s")

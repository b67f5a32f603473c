"""What every implementation checks before it looks at its keys. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from discod.store.base import MAX_OPS, Op, StoreRejected, Unchanged


def check_commit(ops: Sequence[Op], guards: Sequence[Unchanged]) -> None:
    """Refuse a transaction that no store takes.

    Raises:
        StoreRejected: too many operations or guards, or two operations on one key.
    """
    for what, count in (("operations", len(ops)), ("guards", len(guards))):
        if count > MAX_OPS:
            raise StoreRejected(f"{count} {what} in one transaction, at most {MAX_OPS} are allowed")
    seen: set[str] = set()
    for op in ops:
        if op.key in seen:
            raise StoreRejected(f"two operations on key {op.key!r} in one transaction")
        if not op.key:
            raise StoreRejected("an empty key")
        seen.add(op.key)


def whole_seconds(ttl: float) -> int:
    """A lease's TTL in whole seconds, at least 1."""
    return max(1, math.ceil(ttl))


def normal_prefixes(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Sorted, without those that another one already covers.

    Raises:
        ValueError: there is none.
    """
    kept: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    if not kept:
        raise ValueError("no prefix given")
    return tuple(kept)

"""Changes of endpoints into as few transactions as the store takes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from discod.store.base import MAX_OPS, Op

KEYS_EACH = 2
"""Keys of one endpoint: so many operations at most, and so many guards."""


def packed(groups: Iterable[list[Op]]) -> Iterator[list[Op]]:
    """Transactions of whole groups, in their order.

    Args:
        groups: Each of one endpoint or one single key; never torn apart.
    """
    batch: list[Op] = []
    guards = 0
    for group in groups:
        if guards + KEYS_EACH > MAX_OPS:
            yield batch
            batch, guards = [], 0
        batch = batch + group
        guards += KEYS_EACH
    if batch:
        yield batch

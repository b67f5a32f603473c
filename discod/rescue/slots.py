"""Shares of targets in a table of slots, of which one is drawn for each connection.

Rule: the same targets with the same weights fill the same slots, on every host and whatever was
before; when one goes, most of the others stay where they are. Maglev's way (Eisenbud et al., NSDI
2016, section 3.4): each target has an order of its own over all slots, and in turn each takes the
next free one of it until it has its share; the shares are worked out first, so they are exact. Of
the slots of those that stay, up to 15 % change hands when one goes; rendezvous hashing would move
none, but with so few slots its shares are wrong by half and more. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from discod.model.endpoint import Address

Target = tuple[Address, int]
"""Address and port."""

LEAST: Final = 16
MOST: Final = 4096
"""Slots of a table, powers of two."""
EACH: Final = 4
"""Slots for each target at least, where weights are alike."""
LIGHTEST: Final = 2
"""Slots for the lightest target, as long as the table stays below `LIGHTEST_MOST`."""
LIGHTEST_MOST: Final = 1024


def spread(weights: Mapping[Target, int]) -> tuple[Target, ...]:
    """Fill the slots: a power of two of them, or none where there is no target.

    Weight 0 gets none, unless nobody has more. Of more than `MOST` targets so many have a slot.
    """
    wanted = {target: weight for target, weight in weights.items() if weight > 0}
    if not wanted:
        wanted = dict.fromkeys(weights, 1)
    if not wanted:
        return ()
    order = sorted(wanted, key=_number)[:MOST]
    size = _size([wanted[target] for target in order])
    shares = _shares([wanted[target] for target in order], size)
    return _fill(order, shares, size)


def _size(weights: list[int]) -> int:
    light = LIGHTEST * sum(weights) // min(weights)
    least = max(LEAST, EACH * len(weights), min(light, LIGHTEST_MOST))
    return min(1 << (least - 1).bit_length(), MOST)


def _shares(weights: list[int], size: int) -> list[int]:
    """How many slots each gets: in proportion, at least one, `size` together."""
    total = sum(weights)
    shares = [max(1, weight * size // total) for weight in weights]
    spare = size - sum(shares)
    if spare > 0:  # to those that the division took most from
        by_rest = sorted(range(len(weights)), key=lambda i: -(weights[i] * size % total))
        for i in by_rest[:spare]:
            shares[i] += 1
    while spare < 0:  # many light ones were given one each
        largest = max(range(len(shares)), key=shares.__getitem__)
        taken = min(-spare, max(1, shares[largest] // 2))
        shares[largest] -= taken
        spare += taken
    return shares


def _fill(order: list[Target], shares: list[int], size: int) -> tuple[Target, ...]:
    numbers = [_number(target) for target in order]
    slots: list[Target | None] = [None] * size
    at = [number % size for number in numbers]
    steps = [number >> 32 | 1 for number in numbers]
    last = size - 1
    turns = list(range(len(order)))
    while turns:
        for i in turns:
            # An odd step through a power of two comes by every slot once.
            here, step = at[i], steps[i]
            while slots[here] is not None:
                here = (here + step) & last
            slots[here] = order[i]
            at[i] = here
            shares[i] -= 1
        turns = [i for i in turns if shares[i]]
    return tuple(slot for slot in slots if slot is not None)


@lru_cache(maxsize=16384)
def _number(target: Target) -> int:
    """What stands for a target in place of chance, 64 bits; the same on every host."""
    address, port = target
    packed = address.packed + port.to_bytes(2, "big")
    return int.from_bytes(blake2b(packed, digest_size=8).digest(), "big")

"""Random octets, and good messages made bad at random: the targets without coverage guidance."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutate
from tests.fuzz.seeds import RD, D, name, query, seeds
from tests.fuzz.targets import TARGETS

ask = TARGETS["query"].run
MUTATED = 4000
"""Mutations of each target's seeds."""
QUESTION = name(f"web.{D}") + b"\0\1\0\1"

# A busy machine is no fault of the examples.
quiet = settings(suppress_health_check=[HealthCheck.too_slow])


@given(st.binary(max_size=300))
@example(b"")
@settings(quiet, max_examples=600)
def test_random_octets(raw: bytes) -> None:
    ask(raw)


@given(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 3), st.integers(0, 65535))
@settings(quiet, max_examples=600)
def test_random_bodies_behind_a_sound_header(body: bytes, qd: int, ar: int, id_: int) -> None:
    ask(struct.pack(">6H", id_, RD, qd, 0, 0, ar) + body)


@given(st.binary(max_size=100), st.integers(0, 4))
@settings(quiet, max_examples=600)
def test_random_records_behind_a_sound_question(body: bytes, ar: int) -> None:
    ask(struct.pack(">6H", 7, RD, 1, 0, 0, ar) + QUESTION + body)


def cut_or_grown(data: bytes, most: int) -> bytes:
    """Stands for libFuzzer's own mutator, which changes lengths."""
    half = len(data) // 2
    return (data[:half] + data[half // 2 :])[:most] if len(data) % 2 else data[: half + 1]


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_mutated_seeds(target: str) -> None:
    found = list(TARGETS[target].seeds())
    assert found
    run = TARGETS[target].run
    for number in range(MUTATED):
        data = found[number % len(found)]
        for step in range(1 + number % 3):
            data = mutate(data, 1500, number * 8 + step, cut_or_grown)
        run(data)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_seeds_themselves(target: str) -> None:
    for seed in TARGETS[target].seeds():
        TARGETS[target].run(seed)


# Large packets --------------------------------------------------------------------------------


def heavy() -> dict[str, bytes]:
    """Packets made to be dear."""
    rng = random.Random(3)
    head = struct.pack(">6H", 1, 0, 1, 0xFFFF, 0xFFFF, 0xFFFF)
    pointers = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0"
    return {
        "counts": head + QUESTION,
        "noise": head + QUESTION + rng.randbytes(65_000),
        "pointers": struct.pack(">6H", 1, 0, 1, 0, 0, 5_000) + QUESTION + pointers * 5_000,
        "options": query(extra=(b"\0\0\x29" + bytes(6) + b"\xff\xfc" + b"\xfd\xe9\0\0" * 16_383,)),
        "labels": struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\1a" * 32_000,
    }


@pytest.mark.parametrize("kind", sorted(heavy()))
def test_packets_made_to_be_dear_get_the_right_answer(kind: str) -> None:
    """What they cost is in test_wire_cost.py."""
    ask(heavy()[kind])


def test_each_seed_is_another() -> None:
    assert len(set(seeds())) == len(seeds())

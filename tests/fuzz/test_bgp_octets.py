"""Every seed of BGP, wrong in every place, cut off everywhere, and followed by other octets."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from calico_bgp.message import UPDATE, frame
from tests.fuzz.bgp import one, seeds

SEEDS = seeds()


def test_each_octet_set_to_other_values() -> None:
    tried = 0
    for seed in SEEDS[:-1]:
        for at in range(16, len(seed)):
            for value in {0, 1, 255, seed[at] ^ 1, seed[at] ^ 0x10, seed[at] ^ 0x80} - {seed[at]}:
                one(seed[:at] + bytes((value,)) + seed[at + 1 :])
                tried += 1
    assert tried > 4000


def test_cut_off_at_every_length() -> None:
    for seed in SEEDS[:-1]:
        for end in range(19, len(seed)):
            one(seed[:end])
            # As a message of that length, whose inside promises what is cut off.
            one(seed[:16] + end.to_bytes(2, "big") + seed[18:end])


def test_octets_behind_the_message() -> None:
    for seed in SEEDS:
        for tail in (b"\0", b"\xff" * 30, SEEDS[5]):
            one(seed + tail)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_update(body: bytes) -> None:
    one(frame(UPDATE, body))


@given(st.binary(max_size=120), st.binary(max_size=20))
@settings(max_examples=200)
def test_any_attributes(field: bytes, nlri: bytes) -> None:
    one(frame(UPDATE, b"\0\0" + len(field).to_bytes(2, "big") + field + nlri))

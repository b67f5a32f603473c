"""All that is fuzzed: DNS (`tests.fuzz.targets`) and every other input.

Rule: whoever adds a way into discod adds a line here; `make fuzz` runs all of them, and so does the
test suite in short.
"""

from __future__ import annotations

from tests.fuzz import bgp, cluster, containers, streams, texts
from tests.fuzz.mutate import Fallback, mutate
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.words import mutate_words

INPUTS: dict[str, Target] = {
    "labels": Target(containers.labels, containers.label_seeds, 4),
    "inspect": Target(containers.inspect, containers.inspect_seeds, 4),
    "events": Target(containers.events, containers.event_seeds),
    "store": Target(cluster.store, cluster.store_seeds, 8),
    "hints": Target(cluster.hints, cluster.hint_seeds, 2),
    "config": Target(texts.config, texts.config_seeds, 4),
    "announce": Target(texts.announce, texts.announce_seeds, 2),
    "explain": Target(texts.explain, texts.explain_seeds),
    "framing": Target(streams.framing, streams.framing_seeds, 2),
    "http": Target(streams.http, streams.http_seeds, 4),
    "bgp": Target(bgp.one, bgp.seeds, 8),
}
ALL: dict[str, Target] = {**TARGETS, **INPUTS}
GROUPS = {"dns": tuple(TARGETS), "inputs": tuple(INPUTS), "all": tuple(ALL)}

WORDS: dict[str, tuple[bytes, ...]] = {
    "labels": containers.LABEL_WORDS,
    "inspect": containers.INSPECT_WORDS,
    "events": containers.EVENT_WORDS,
    "store": cluster.STORE_WORDS,
    "hints": cluster.HINT_WORDS,
    "config": texts.CONFIG_WORDS,
    "announce": texts.ANNOUNCE_WORDS,
    "explain": texts.EXPLAIN_WORDS,
    "http": streams.HTTP_WORDS,
}
"""Of the targets whose input is text."""
SIZE_MAX = {
    "labels": 4096,
    "inspect": 6000,
    "store": 4096,
    "config": 4096,
    "http": 4096,
    "bgp": 4200,
}
"""Octets of an input, where it is not `SIZE`."""
SIZE = 1500


def changed(name: str, data: bytes, seed: int, fallback: Fallback) -> bytes:
    """`data` mutated as fits the target `name`."""
    most = SIZE_MAX.get(name, SIZE)
    if name in WORDS:
        return mutate_words(data, most, seed, fallback, WORDS[name])
    return mutate(data, most, seed, fallback)

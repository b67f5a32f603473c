"""All inputs but DNS: seeds, and seeds made bad at random, each bounded in time and memory."""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from collections.abc import Callable

import pytest

from announcer.reading import read
from discod.config_fault import ConfigError
from discod.config_parse import parse_config
from discod.model.catalog import CatalogState
from tests.fuzz import cluster, containers
from tests.fuzz.registry import ALL, GROUPS, INPUTS, SIZE, SIZE_MAX, changed
from tests.resolving import KEYS

MUTATED = {"http": 150, "framing": 400, "store": 700, "labels": 1500, "inspect": 1500}
"""Mutations of seeds in the suite, where they are not `MUTATIONS`: a second or two for each."""
MUTATIONS = 2000
CPU_MAX = 1.0
"""Seconds of processor for one input of a few thousand octets; measured 0.001 to 0.06."""
MEMORY_MAX = 16 << 20
"""Octets that one such input may hold at a time; measured below 1 MiB."""


def cut_or_grown(data: bytes, most: int) -> bytes:
    """Stands for libFuzzer's own mutator, which changes lengths."""
    half = len(data) // 2
    return (data[:half] + data[half // 2 :])[:most] if len(data) % 2 else data[: half + 1]


@pytest.mark.parametrize("target", sorted(INPUTS))
def test_the_seeds_themselves(target: str) -> None:
    found = list(INPUTS[target].seeds())
    assert len(set(found)) == len(found) >= 3
    assert max(map(len, found)) <= SIZE_MAX.get(target, SIZE), "libFuzzer would cut it"
    for seed in found:
        INPUTS[target].run(seed)


@pytest.mark.parametrize("target", sorted(INPUTS))
def test_mutated_seeds(target: str) -> None:
    found = list(INPUTS[target].seeds())
    run = INPUTS[target].run
    worst = 0.0
    for number in range(MUTATED.get(target, MUTATIONS)):
        data = found[number % len(found)]
        for step in range(1 + number % 4):
            data = changed(target, data, number * 8 + step, cut_or_grown)
        start = time.thread_time()
        run(data)
        worst = max(worst, time.thread_time() - start)
    assert worst <= CPU_MAX


@pytest.mark.parametrize("target", sorted(set(INPUTS) - {"http"}))
def test_memory_of_one_input(target: str) -> None:
    found = list(INPUTS[target].seeds())
    run = INPUTS[target].run
    tracemalloc.start()
    try:
        for number in range(40):
            data = changed(target, found[number % len(found)], number, cut_or_grown)
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            run(data)
            assert tracemalloc.get_traced_memory()[1] - before <= MEMORY_MAX
    finally:
        tracemalloc.stop()


def test_random_octets() -> None:
    rng = random.Random(11)
    for number in range(300):
        data = rng.randbytes(rng.randrange(200))
        for target in sorted(set(INPUTS) - {"http", "framing"}):
            INPUTS[target].run(data)
        if number % 10 == 0:
            INPUTS["framing"].run(data)
            INPUTS["http"].run(data)


def test_groups_name_every_target() -> None:
    assert set(GROUPS["dns"]) | set(GROUPS["inputs"]) == set(GROUPS["all"]) == set(ALL)
    assert not set(GROUPS["dns"]) & set(GROUPS["inputs"])


# The controls: what is asserted above would notice --------------------------------------------


def test_the_store_target_notices_a_changed_record() -> None:
    state = CatalogState(KEYS)
    key = next(iter(cluster.GOOD))
    present = [(k, v, 1) for k, v in cluster.GOOD.items() if k != key]
    state.reset(present, 8, cluster.NOW)
    with pytest.raises(AssertionError, match="changed"):
        cluster.untouched(state.catalog, set())
    cluster.untouched(state.catalog, {key})


def test_the_framing_target_notices_a_lost_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resolver.tcp._end", lambda data, at: 0)
    with pytest.raises(AssertionError):
        INPUTS["framing"].run(b"\x10\0\3abc")


def test_the_http_target_notices_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("boom")

    monkeypatch.setattr("discod.api.hosts", fail)
    with pytest.raises(AssertionError):
        INPUTS["http"].run(b"\0GET /v1/hosts HTTP/1.1\r\nHost: x\r\n\r\n")


# Inputs made to be dear -----------------------------------------------------------------------


def _labels() -> None:
    wrong = tuple((f"discod.{number}x.nmae-{number}", "x" * 300) for number in range(20_000))
    one = containers._container("a", wrong)
    reading = read(one, containers.SCOPES[0])
    containers.check_reading(one, reading)


def _unknown_labels() -> None:
    wrong = tuple((f"discod.nmae-{number}", "x") for number in range(20_000))
    reading = read(containers._container("a", wrong), containers.SCOPES[0])
    assert reading.faults


def _record() -> None:
    state = CatalogState(KEYS)
    tags = [f"t{number}" for number in range(100_000)]
    meta = {"v": 1, "producer": "foreign", "protocol": "tcp", "tags": tags}
    value = json.dumps({"host": "192.0.2.9", "discod": meta}).encode()
    state.apply([(KEYS.records + "web/x", value, 8)], 8, cluster.NOW)
    state.apply([(KEYS.records + "web/y", b"[" * 1_500_000, 9)], 9, cluster.NOW)
    state.apply([(KEYS.records + "web/z", b"9" * 1_500_000, 10)], 10, cluster.NOW)


def _config() -> None:
    text = "[dns]\n" + "".join(f"listne{number} = 1\n" for number in range(5_000))
    with pytest.raises(ConfigError) as caught:
        parse_config(text, origin="f")
    assert len(caught.value.faults) >= 100


@pytest.mark.parametrize("act", [_labels, _unknown_labels, _record, _config])
def test_inputs_made_to_be_dear(act: Callable[[], None]) -> None:
    start = time.thread_time()
    act()
    assert time.thread_time() - start <= DEAR_MAX


DEAR_MAX = 3.0
"""Seconds of processor for thousands of mistakes at once."""

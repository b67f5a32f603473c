"""The corpus of the fuzzer: what BIRD, FRR and GoBGP really send, octet by octet.

`python -m tests.lab.bgp.test_corpus` (as root) records it anew; the test is that today's peers send
what the core reads without a fault, and that what is kept in the tree still does.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from calico_bgp.actions import Faulty
from calico_bgp.message import OPEN, UPDATE, Stream, frame
from tests.fuzz.bgp import CORPUS, one
from tests.lab.bgp.fabric import Fabric
from tests.lab.bgp.plain import Plain, peer
from tests.lab.bgp.router import Router, prefixes
from tests.lab.bgp.routers import ALL, Neighbor, Told

OURS, THEIRS = 4_200_000_000, 65001
RICH = Told((65010, 4_200_000_001), 5, frozenset({"65000:1"}), frozenset({"65000:1:2"}))
NAMES = {OPEN: "open", UPDATE: "update"}


def capture(kind: type[Router], *, wide: bool = True) -> dict[str, bytes]:
    """Each different OPEN and UPDATE of one peer: announced, withdrawn, End-of-RIB."""
    with Fabric(2) as fabric:
        ours, theirs = fabric.hosts
        asn = OURS if wide else 64700
        neighbor = Neighbor(ours.ipv4, asn, wide=wide)
        wanted: dict[str, Told] = {}
        for version in (4, 6):
            plain_one, rich = prefixes(2, version)
            wanted |= {plain_one: Told(), rich: RICH}
        router = fabric.use(kind(theirs, THEIRS, [neighbor], wanted))
        plain = fabric.use(Plain(ours, peer(ours, asn, THEIRS), theirs.ipv4))
        plain.start().until(lambda: len(plain.learned) == 4, what="learned")
        router.withdraw(list(wanted))
        plain.until(lambda: not plain.learned, what="withdrawn")
        assert not [action for action in plain.actions if isinstance(action, Faulty)]
        found: dict[str, bytes] = {}
        for kind_, body in Stream().feed(b"".join(plain.heard)):
            message = frame(kind_, body)
            if kind_ in NAMES and message not in found.values():
                number = sum(name.startswith(NAMES[kind_]) for name in found)
                found[f"{NAMES[kind_]}{number}"] = message
        return found


def record() -> None:
    """Write the corpus anew; what several of them send alike, once."""
    kept: set[bytes] = set()
    CORPUS.mkdir(exist_ok=True)
    for old in CORPUS.glob("*.bin"):
        old.unlink()
    for kind in ALL:
        for wide in (True, False) if kind.program == "bird" else (True,):
            for name, octets in capture(kind, wide=wide).items():
                stem = f"{kind.program}{'' if wide else '-old'}-{name}"
                if octets not in kept:
                    (CORPUS / f"{stem}.bin").write_bytes(octets)
                kept.add(octets)


@pytest.mark.lab
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.program))
def test_what_is_sent_today_is_sound(kind: type[Router]) -> None:
    found = capture(kind)
    assert {"open0", "update0", "update1"} <= found.keys()
    for octets in found.values():
        one(octets)


def test_what_is_kept_is_sound() -> None:
    kept: list[Path] = sorted(CORPUS.glob("*.bin"))
    assert {path.name.split("-")[0] for path in kept} == {kind.program for kind in ALL}
    for path in kept:
        one(path.read_bytes())


if __name__ == "__main__":
    record()

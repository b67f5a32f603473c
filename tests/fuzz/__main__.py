"""Coverage-guided fuzzing: ``make fuzz``, ``make fuzz-dns``, ``python -m tests.fuzz [TARGET ...]``.

A target is one of `tests.fuzz.registry`, or ``dns`` (which goes without saying), ``inputs`` (all
but DNS), ``all``. Arguments that start with a dash go to libFuzzer
(https://llvm.org/docs/LibFuzzer.html); the time ``-max_total_time`` is for all targets together. A
corpus grows in ``build/fuzz/<target>``; what a target fails on is written to
``tests/fuzz/crashes/<target>``, where `test_crashes.py` replays it.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.fuzz.crashes import FOLDER

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "build" / "fuzz"
DEFAULT_TIME = 60
"""Seconds for all targets."""
WORDS = (
    "web", "blue", "discod", "internal", "_http", "_tcp", "node", "in-addr", "arpa", "version",
    "bind", r"\xc0\x0c", r"\x00\x00\x29", r"\x00\x0a\x00\x08", r"\x00\xfa\x00\xff", r"\x00\x00\xfb",
)  # fmt: skip
"""For libFuzzer's dictionary: what random octets take long to spell."""


def main(arguments: list[str]) -> int:
    """Fuzz the targets named (all when none is); the exit status."""
    given = [word for word in arguments if word.startswith("-")]
    names = [word for word in arguments if not word.startswith("-")]
    if names[:1] == ["--one"] or "--one" in given:
        given.remove("--one")
        _fuzz(names[0], given)
        return 0  # libFuzzer ends the process itself
    from tests.fuzz.registry import ALL, GROUPS

    names = [one for name in names or ["dns"] for one in GROUPS.get(name, (name,))]
    unknown = set(names) - ALL.keys()
    if unknown:
        print(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
        return 2
    options = dict(word.lstrip("-").partition("=")[::2] for word in given)
    total = int(options.pop("max_total_time", DEFAULT_TIME))
    share = total / sum(ALL[name].weight for name in names)
    failed = []
    for name in names:
        # A process each: libFuzzer never comes back, and coverage is that of one target.
        passed = [f"-{key}={value}" for key, value in options.items()]
        passed.append(f"-max_total_time={max(1, round(share * ALL[name].weight))}")
        print(f"--- {name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, *passed]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    for name in failed:
        print(f"{name} failed; see {FOLDER / name}")
    return 1 if failed else 0


def _fuzz(name: str, options: list[str]) -> None:
    """Fuzz one target in this process, until its time is over or it fails."""
    try:
        # Not a dependency of the tests: imported by name, so that nothing else wants it.
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris (Linux, x86-64 or arm64)")
    with atheris.instrument_imports(include=["resolver", "discod", "announcer", "calico_bgp"]):
        registry = importlib.import_module("tests.fuzz.registry")
    target = registry.ALL[name]
    corpus, crashes = CORPUS / name, FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    words = CORPUS / "words"
    words.write_text("".join(f'"{word}"\n' for word in _words(registry.WORDS.get(name))))
    most = registry.SIZE_MAX.get(name, registry.SIZE)
    # With the value profile a comparison that nearly holds counts as something new.
    limits = ["-use_value_profile=1", "-timeout=5", "-rss_limit_mb=2048", f"-max_len={most}"]
    argv = [sys.argv[0], *limits, f"-dict={words}", f"-artifact_prefix={crashes}/", *options]

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        return bytes(registry.changed(name, data, seed, atheris.Mutate)[:max_size])

    atheris.Setup([*argv, str(corpus)], target.run, custom_mutator=mutator)
    atheris.Fuzz()


def _words(own: tuple[bytes, ...] | None) -> list[str]:
    """The dictionary of one target, in libFuzzer's form."""
    if own is None:
        return list(WORDS)
    return ["".join(f"\\x{octet:02x}" for octet in word) for word in own]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

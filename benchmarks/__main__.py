"""`make bench`: every benchmark, one after the other, in its short form."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from benchmarks.results import need_lab


def names() -> list[str]:
    """Modules of this package that are benchmarks: those that can be run (as in the Makefile)."""
    folder = Path(__file__).parent
    runs = [path.stem for path in folder.glob("*.py") if "\nif __name__" in path.read_text()]
    return sorted(name for name in runs if name != "__main__")


def main() -> None:
    """Run all, or those named."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(names())}; default: all")
    parser.add_argument("--long", action="store_true", help="in full length")
    args = parser.parse_args()
    if unknown := set(args.name) - set(names()):
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}")
    need_lab()
    for name in args.name or names():
        print(f"\n== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main([] if args.long else ["--short"])


if __name__ == "__main__":
    main()

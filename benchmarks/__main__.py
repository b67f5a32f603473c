"""`make bench`: every benchmark, one after the other, in its short form."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

import benchmarks
from benchmarks.results import need_lab


def names() -> list[str]:
    """Modules of this package that are benchmarks: those with a `main` that takes arguments."""
    found = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return [name for name in sorted(found) if name not in ("__main__", "results")]


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

"""Run the demo; ``--record`` also writes it as a picture and as text."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from rich.console import Console

from demo.story import tell
from tests.lab.needs import missing

WIDTH = 100
"""Columns of the recording."""


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument(
        "--record",
        metavar="DIR",
        nargs="?",
        const=Path("docs"),
        type=Path,
        help="also write demo.svg and demo.txt (default DIR: docs)",
    )
    args = parser.parse_args()
    if lack := missing():
        sys.stderr.write(f"the demo cannot run: {lack}\n")
        return 1
    record: Path | None = args.record
    console = (
        Console(record=True, width=WIDTH, force_terminal=True, color_system="truecolor")
        if record
        else Console()
    )
    try:
        tell(console)
    except KeyboardInterrupt:
        console.print("\n[yellow]interrupted; everything is taken down again[/]")
        return 130
    if record:
        record.mkdir(parents=True, exist_ok=True)
        (record / "demo.txt").write_text(console.export_text(clear=False))
        svg = console.export_svg(title="make demo", clear=False)
        # A picture should not make its readers' browsers fetch fonts from elsewhere.
        svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
        (record / "demo.svg").write_text(svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a target once failed on, kept for ever: ``tests/fuzz/crashes/<target>/<name>``."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_suffix("")


def saved(target: str) -> list[Path]:
    """Files of one target."""
    folder = FOLDER / target
    return sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []

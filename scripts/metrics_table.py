"""Writes docs/metrics.md from the metrics that the daemon really has.

Usage: python scripts/metrics_table.py docs/metrics.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from discod.metrics import Durations, Metrics

HEAD = """\
# Metrics

Made by `make docs` from `discod/metrics.py`; a test compares. Beside these, `/metrics` has the
usual `process_*` and `python_*` of the Prometheus client. A counter's samples end in `_total`, a
histogram's in `_bucket`, `_sum` and `_count`; `_created` tells when counting began (Unix seconds).

| name | type | labels | meaning |
|---|---|---|---|
"""


def render() -> str:
    """The whole page."""
    rows = []
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase | Durations):
            (family,) = metric.describe()
            name = family.name + ("_total" if family.type == "counter" else "")
            # The client has no public way to ask for label names.
            names = (metric.label,) if isinstance(metric, Durations) else metric._labelnames
            labels = ", ".join(f"`{label}`" for label in names)
            rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |\n")
    return HEAD + "".join(sorted(rows))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")

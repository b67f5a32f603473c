"""Rules for the whole test run.

Under ``CI=true`` nothing may be left out: a skip is a failure, and without root the run ends at
once. Elsewhere, lab tests are left out where they cannot run, and the last lines say so.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

CI = os.environ.get("CI") == "true"
NO_LAB = "not root: the lab tests (real dockerd, etcd, network namespaces) were NOT run"

# One and the same examples in each run; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("default", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("explore", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_left_out = pytest.StashKey[int]()


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and so would all that the tests start: not here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the lab out where there is no root; under CI refuse to."""
    lab = [item for item in items if item.get_closest_marker("lab")]
    if not lab or os.geteuid() == 0:
        return
    if CI:
        raise pytest.UsageError(f"{NO_LAB}; under CI that is a failure")
    items[:] = [item for item in items if item not in lab]
    config.hook.pytest_deselected(items=lab)
    config.stash[_left_out] = len(lab)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out."""
    if left_out := config.stash.get(_left_out, 0):
        terminalreporter.write_line(f"{NO_LAB} ({left_out} tests)", yellow=True, bold=True)


def forbid_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure; an expected failure (xfail) is none."""
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI no test may be skipped."""
    report = yield
    if CI:
        forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Under CI no module may be skipped."""
    report = yield
    if CI:
        forbid_skip(report)
    return report

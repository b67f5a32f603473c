"""discod.log: one line an event, whatever the values are."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from discod.log import VALUE_MAX, LogfmtFormatter, Sparingly, fields, setup


def line(message: str = "it happened", **values: object) -> str:
    record = logging.LogRecord("announcer.pump", logging.INFO, __file__, 1, message, None, None)
    record.__dict__.update({"fields": fields(**values)["fields"]})
    record.created, record.msecs = 1764000000.0, 7.9
    return LogfmtFormatter().format(record)


def test_an_event_is_time_level_logger_message_and_fields_in_order() -> None:
    assert line("endpoint announced", service="web", port=80, up=True, host=None) == (
        "2025-11-24T16:00:00.007Z info announcer.pump "
        '"endpoint announced" service=web port=80 up=True host=None'
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("web", "web"),
        ("http://[2001:db8::1]:80/a,b*@%+", '"http://[2001:db8::1]:80/a,b*@%+"'[1:-1]),
        ("", '""'),
        ("a b", '"a b"'),
        ('say "x"', '"say \\"x\\""'),
        ("a=b", '"a=b"'),
        ("back\\slash", '"back\\\\slash"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("plain\n", '"plain\\n"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("bücher", '"bücher"'),
        ("\x9b31m", '"\\u009b31m"'),  # a control sequence introducer in one character
        ("a\u2028b", '"a\\u2028b"'),
        ("a\u202eb", '"a\\u202eb"'),  # would print the rest backwards
        ("\x7f", '"\\u007f"'),
        ("\ud800", '"\\ud800"'),
        (["a"], "\"['a']\""),
        (1.5, "1.5"),
    ],
)
def test_values_are_quoted_where_they_must_be(value: object, shown: str) -> None:
    assert line(k=value).split(" k=", 1)[1] == shown


@given(st.text(), st.text())
def test_any_text_stays_on_one_line_and_can_be_read_back(message: str, value: str) -> None:
    shown = line(message, k=value)
    assert shown.splitlines() == [shown]
    assert "\x1b" not in shown
    tail = shown.split(" k=")[-1] if " k=" not in value else None
    if tail is not None and len(value) <= VALUE_MAX:
        assert (json.loads(tail) if tail.startswith('"') else tail) == value


def test_a_long_value_is_cut() -> None:
    shown = line(k="x" * 10_000).split(" k=", 1)[1]
    assert shown == "x" * (VALUE_MAX - 3) + "..."


def test_an_exception_is_one_field() -> None:
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    shown = LogfmtFormatter().format(record)
    assert shown.splitlines() == [shown]
    traceback = json.loads(shown.split(" traceback=", 1)[1])
    assert traceback.startswith("Traceback (most recent call last):\n")
    assert traceback.endswith("ValueError: one\ntwo")


@pytest.fixture
def restored_logging() -> Iterator[None]:
    names = ("", "discod", "announcer", "resolver", "calico_bgp")
    loggers = [logging.getLogger(name) for name in names]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.usefixtures("restored_logging")
def test_setup_sends_ours_from_the_level_on_and_others_from_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    setup("debug")
    setup("info")  # a reload replaces, it does not add
    logging.getLogger("announcer.engine").info("ours", extra=fields(n=1))
    logging.getLogger("announcer.engine").debug("too fine")
    logging.getLogger("somebody.else").info("not ours")
    logging.getLogger("somebody.else").warning("not ours but grave")
    lines = stream.getvalue().splitlines()
    assert [re.sub(r"^\S+Z ", "", text) for text in lines] == [
        "info announcer.engine ours n=1",
        'warning somebody.else "not ours but grave"',
    ]


def test_what_is_said_ten_times_a_second_is_said_once_a_minute() -> None:
    once = Sparingly(60.0)
    passed: list[int] = []
    for tenth in range(1300):
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "again", None, None)
        record.created = tenth / 10
        record.exc_info = (OSError, OSError(), None)
        if once.filter(record):
            assert record.exc_info is None
            passed.append(tenth)
    assert passed == [0, 600, 1200]

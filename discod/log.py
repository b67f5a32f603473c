"""Structured logging: one line an event, to standard error, `key=value` (logfmt).

Rule: whoever logs writes ``log.info("what happened", extra=fields(container=..., service=...))``:
a fixed message and named fields, never a formatted sentence, and never a secret.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,*\[\]-]+\Z")
ACCEPT_PAUSE = 60.0
"""Seconds between two events on connections that cannot be accepted."""
VALUE_MAX = 400
"""Characters of one field's value; foreign input must not flood the journal."""


def fields(**values: object) -> Mapping[str, object]:
    """The named fields of one event, for `extra=`."""
    return {"fields": values}


class LogfmtFormatter(logging.Formatter):
    """``2026-11-22T10:00:00.123Z info announcer "endpoint announced" service=web port=80``."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one event as one line; newlines in values are escaped."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = [
            f"{stamp}.{int(record.msecs):03d}Z",
            record.levelname.lower(),
            record.name,
            _quote(record.getMessage()),
        ]
        parts += [f"{k}={_quote(v)}" for k, v in getattr(record, "fields", {}).items()]
        if record.exc_info:
            parts.append(f"traceback={json.dumps(self.formatException(record.exc_info))}")
        return " ".join(parts)


def _quote(value: object) -> str:
    text = str(value)
    if len(text) > VALUE_MAX:
        text = text[: VALUE_MAX - 3] + "..."
    if _PLAIN.match(text):
        return text
    # JSON itself leaves line separators, C1 controls and bidirectional marks as they are.
    return json.dumps(text, ensure_ascii=not text.isprintable())


class Sparingly(logging.Filter):
    """Lets one event in `pause` seconds of a logger pass, and without its traceback.

    For what another library says ten times a second for as long as a fault lasts.
    """

    def __init__(self, pause: float) -> None:
        super().__init__()
        self._pause = pause
        self._last = -pause

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        if record.created - self._last < self._pause:
            return False
        self._last = record.created
        record.exc_info = None
        return True


def setup(level: str) -> None:
    """Send all of discod's events from `level` on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # Out of descriptors, trio says so at each try to accept a connection.
    logging.getLogger("trio.serve_listeners").filters[:] = [Sparingly(ACCEPT_PAUSE)]
    for name in ("discod", "announcer", "resolver", "calico_bgp"):
        logging.getLogger(name).setLevel(level.upper())

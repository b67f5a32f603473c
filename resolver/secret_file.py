"""The secrets of DNS Cookies, from where they are kept.

Rule: a file is for hosts that answer at one address and have to know each other's cookies; every
other host makes a secret of its own at each start, which no copy of a disk can give away (a client
with a cookie of before gets the next one with its answer).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from resolver.cookies import parse_secrets
from resolver.siphash import KEY_OCTETS


def load(path: str) -> tuple[bytes, ...]:
    """The secrets in the file at `path`, the first makes cookies; one of our own without a path.

    Raises:
        OSError: the file cannot be read, or has something else in it or nothing; the message names
            it.
    """
    if not path:
        return (os.urandom(KEY_OCTETS),)
    try:
        secrets = parse_secrets(Path(path).read_text())
    except ValueError as error:
        raise OSError(errno.EINVAL, f"{path}: {error}") from None
    if not secrets:
        raise OSError(errno.EINVAL, f"{path}: expected a line of 32 hexadecimal digits")
    return secrets

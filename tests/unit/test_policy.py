"""`announcer.policy`: who may claim which name."""

from __future__ import annotations

import pytest

from announcer.policy import policy_fault
from discod.model.settings import AnnounceSettings


@pytest.mark.parametrize(
    ("allow", "deny", "service", "fault"),
    [
        (("*",), (), "web", None),
        ((), (), "web", "announce.allow has only nothing"),
        (("web", "api-*"), (), "api-v2", None),
        (("web", "api-*"), (), "db", "announce.allow has only 'web', 'api-*'"),
        (("*",), ("db*",), "db-main", "announce.deny has 'db*'"),
        (("db-main",), ("db*",), "db-main", "announce.deny has 'db*'"),
        (("we[bc]",), (), "web", None),
        (("WEB",), (), "web", "announce.allow has only 'WEB'"),
    ],
)
def test_policy(
    allow: tuple[str, ...], deny: tuple[str, ...], service: str, fault: str | None
) -> None:
    found = policy_fault(service, AnnounceSettings(allow=allow, deny=deny))
    assert found == (f"this host's {fault}" if fault else None)

"""Who may claim which name: ``announce.allow``, ``announce.deny``, ``announce.require_label``.

Rule: a name is claimed where a glob of `allow` matches it and none of `deny` does. Pure.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from discod.model.settings import AnnounceSettings


def policy_fault(service: str, announce: AnnounceSettings) -> str | None:
    """Why containers of this host may not claim `service`, in words; None when they may."""
    for glob in announce.deny:
        if fnmatchcase(service, glob):
            return f"this host's announce.deny has {glob!r}"
    if any(fnmatchcase(service, glob) for glob in announce.allow):
        return None
    globs = ", ".join(map(repr, announce.allow)) or "nothing"
    return f"this host's announce.allow has only {globs}"

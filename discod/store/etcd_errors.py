"""What etcd's and gRPC's errors mean: the one mapping to the store's own exceptions.

Rule: values and tables only; no gRPC. Codes and texts are those of etcd's
``etcdserver/api/v3rpc/rpctypes/error.go`` (3.4 to 3.6). Pure.
"""

from __future__ import annotations

from discod.store.base import (
    Compacted,
    LeaseNotFound,
    StoreError,
    StoreRejected,
    StoreUnavailable,
)

_REJECTED = frozenset(
    {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FAILED_PRECONDITION",
        "RESOURCE_EXHAUSTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
    }
)
"""Codes by which a server that works says no. All others are worth a retry."""

_BUSY = ("too many requests", "too many pings", "no leader")
"""Refusals that pass by themselves, whatever their code."""

_LOG_IN_AGAIN = ("invalid auth token", "user name is empty", "revision of auth store is old")
"""The token is unknown to this member (simple tokens live 5 minutes), or predates a change."""

_NOT_SENT = (
    "failed to connect",
    "connections to all backends failing",
    "dns resolution failed",
    "no leader",
)
"""UNAVAILABLE with one of these was not executed, so that even a commit may go elsewhere."""


class RpcFailure(Exception):
    """A call that failed, as gRPC reported it; never leaves the adapter."""

    def __init__(self, code: str, details: str, *, not_sent: bool = False) -> None:
        super().__init__(f"{details} ({code})")
        self.code = code
        self.details = details
        text = details.lower()
        self.transient = code not in _REJECTED or any(part in text for part in _BUSY)
        """Another endpoint, or the same one later, may well say yes."""
        self.not_sent = not_sent or (
            code == "UNAVAILABLE" and any(part in text for part in _NOT_SENT)
        )
        self.log_in_again = code == "UNAUTHENTICATED" or any(p in text for p in _LOG_IN_AGAIN)
        self.no_auth = "authentication is not enabled" in text

    def as_store_error(self, endpoint: str) -> StoreError:
        """The exception that features see; its text names the endpoint and the cause."""
        text = f"{endpoint}: {self}"
        if self.transient:
            return StoreUnavailable(text)
        if self.code == "NOT_FOUND" and "lease not found" in self.details:
            return LeaseNotFound(text)
        if self.code == "OUT_OF_RANGE" and "compacted" in self.details:
            return Compacted(text)
        return StoreRejected(text)

"""What names are made from: an endpoint, as far as DNS is concerned. An interface only.

`discod.model.endpoint.Endpoint` is one, and so are the rows in which workers are told of endpoints.
"""

from __future__ import annotations

from typing import Protocol

from discod.model import endpoint


class Served(Protocol):
    """What a record of a port is made from: an endpoint, or a service's port as a whole."""

    @property
    def instance(self) -> str: ...  # noqa: D102 - as in Endpoint, and so are all below
    @property
    def port(self) -> int: ...  # noqa: D102
    @property
    def weight(self) -> int: ...  # noqa: D102
    @property
    def priority(self) -> int: ...  # noqa: D102
    @property
    def target(self) -> str: ...  # noqa: D102
    @property
    def srv_target(self) -> str: ...  # noqa: D102
    @property
    def alpn(self) -> tuple[str, ...]: ...  # noqa: D102


class Offered(Served, Protocol):
    """One endpoint; see `Endpoint` for what each field means."""

    @property
    def packed(self) -> bytes: ...  # noqa: D102
    @property
    def protocol(self) -> endpoint.Protocol: ...  # noqa: D102
    @property
    def port_name(self) -> str: ...  # noqa: D102
    @property
    def tags(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def attributes(self) -> tuple[tuple[str, str], ...]: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def host(self) -> str: ...  # noqa: D102
    @property
    def ttl(self) -> int: ...  # noqa: D102
    @property
    def prefer(self) -> endpoint.Prefer | None: ...  # noqa: D102
    @property
    def vip(self) -> tuple[endpoint.Address, ...]: ...  # noqa: D102

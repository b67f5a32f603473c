"""Which name servers a name is asked of.

Rule: the longest domain that fits wins, and its servers alone are asked; what no route names goes
to the upstreams. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from discod.model.settings import ListenAddress, Route
from resolver.record import Name, to_name


class Routes:
    """The table of `dns.routes`."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._servers = {to_name(route.domain): route.servers for route in routes}
        self._longest = max(map(len, self._servers), default=0)

    def match(self, name: Name) -> Name | None:
        """The domain of the route that `name` takes; None: it goes to the upstreams."""
        if not self._servers:
            return None
        for count in range(min(len(name), self._longest), -1, -1):
            domain = name[len(name) - count :]
            if domain in self._servers:
                return domain
        return None

    def servers(self, domain: Name) -> tuple[ListenAddress, ...]:
        """The servers of a domain that `match` returned."""
        return self._servers[domain]

    def all(self) -> Iterable[tuple[Name, tuple[ListenAddress, ...]]]:
        """Every route."""
        return self._servers.items()

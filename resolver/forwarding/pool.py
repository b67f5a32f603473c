"""The upstreams in force, by the name that is asked.

Rule: what is known of a server outlives a reload and a change of resolv.conf for as long as it is
named somewhere. Discod itself is never asked, wherever it is named.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NamedTuple

from discod.model.settings import DnsSettings, ListenAddress
from resolver.forwarding.health import Upstream
from resolver.forwarding.resolv_conf import ResolvConf
from resolver.forwarding.routes import Routes
from resolver.forwarding.sending import COOKIE_OCTETS
from resolver.forwarding.upstreams import Upstreams
from resolver.record import Name

ATTEMPTS = 2
"""Rounds through upstreams that are configured; resolv.conf says its own."""


class OwnUpstreamError(ValueError):
    """Discod is named as its own upstream; the message says where."""


class Group(NamedTuple):
    """Those that a name is asked of."""

    upstreams: tuple[Upstream, ...]
    timeout: float
    """Seconds for one try."""
    attempts: int


class Pool:
    """All upstreams.

    Args:
        is_own: Whether discod listens there.
        changed: Called when names may have other answers, since others are asked.
        gone: Called with the label of a server that is no longer named.
    """

    def __init__(
        self,
        is_own: Callable[[ListenAddress], bool],
        changed: Callable[[], None],
        gone: Callable[[str], None],
    ) -> None:
        self._is_own = is_own
        self._changed = changed
        self._gone = gone
        self._known: dict[ListenAddress, Upstream] = {}
        self._settings = DnsSettings()
        self._routes = Routes(())
        self._conf: ResolvConf | None = None
        self._found = Upstreams()

    def configure(self, settings: DnsSettings) -> None:
        """Put other settings in force.

        Raises:
            OwnUpstreamError: an upstream or a route's server is discod. Everything else of the
                settings is in force, and that server will not be asked.
        """
        old = self._settings
        self._settings = settings
        self._routes = Routes(settings.routes)
        if settings.upstreams:
            self._conf = None
            self._found = Upstreams(settings.upstreams, None, ATTEMPTS)
        elif self._conf is None or settings.resolv_conf != old.resolv_conf:
            self._conf = ResolvConf(settings.resolv_conf, self._is_own)
            self._found = Upstreams()
        self._prune()
        if (settings.upstreams, settings.routes) != (old.upstreams, old.routes):
            self._changed()
        named = [("dns.upstreams", server) for server in settings.upstreams]
        named += [
            (f"dns.routes.{r.domain}", server) for r in settings.routes for server in r.servers
        ]
        for where, server in named:
            if settings.forward and self._is_own(server):
                raise OwnUpstreamError(
                    f"{where}: {server.address} port {server.port} is discod itself"
                )

    def group(self, name: Name) -> Group:
        """Whom to ask for a name; none when nobody is configured."""
        timeout = self._settings.forward_timeout
        domain = self._routes.match(name)
        if domain is not None:
            return Group(self._members(self._routes.servers(domain)), timeout, ATTEMPTS)
        self.refresh()
        found = self._found
        if found.timeout is not None:
            timeout = min(timeout, found.timeout)
        return Group(self._members(found.servers), timeout, found.attempts)

    def refresh(self) -> None:
        """Take a change of resolv.conf; costs less than a microsecond, once a second a stat."""
        if self._conf is None:
            return
        found = self._conf.current()
        if found is not self._found:
            different = found.servers != self._found.servers
            self._found = found
            self._prune()
            if different:
                self._changed()

    def route(self, name: Name) -> Name | None:
        """The domain of the route that a name takes, if any."""
        return self._routes.match(name)

    def is_known(self, upstream: Upstream) -> bool:
        """Whether it is still named."""
        return self._known.get(upstream.server) is upstream

    def _members(self, servers: tuple[ListenAddress, ...]) -> tuple[Upstream, ...]:
        return tuple([self._get(server) for server in servers if not self._is_own(server)])

    def _get(self, server: ListenAddress) -> Upstream:
        found = self._known.get(server)
        if found is None:
            found = self._known[server] = Upstream(server, secrets.token_bytes(COOKIE_OCTETS))
        return found

    def _prune(self) -> None:
        named = {*self._found.servers, *(s for _, servers in self._routes.all() for s in servers)}
        for server in [server for server in self._known if server not in named]:
            self._gone(self._known.pop(server).label)

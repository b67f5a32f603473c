"""The names of the domain below its apex: services, aliases, hosts.

Rule: what is at a name depends on the present Catalog, this host and the settings only. A change of
the Catalog drops what it touched, and costs no more than that; a service is compiled at the first
question for it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from discod.model.catalog import Catalog, Change
from discod.model.endpoint import Host
from discod.model.settings import DnsSettings
from resolver import consul, hosts
from resolver.alias import CHAIN_MAX, Aliases, AliasNode, Followers, Lead
from resolver.hosts import HostNames
from resolver.locality import view_of
from resolver.record import RR, Name, cname, fits
from resolver.rrset import EMPTY, Node
from resolver.service import ServiceNames

COMPILED_MAX = 5_000
"""Endpoints of compiled services kept (about 1 KB each); beyond it the oldest service goes."""


class Domain:
    """The names of the domain.

    Args:
        apex: The domain.
        settings: ``[dns]``.
        own: This host.
        fronted: See `set_fronted`.
    """

    def __init__(self, apex: Name, settings: DnsSettings, own: Host, *, fronted: bool) -> None:
        self.apex = apex
        self.fronted = fronted
        self._own = own
        self._datacenters = frozenset({consul.DEFAULT_DATACENTER, own.zone.encode()} - {b""})
        self._view = view_of(settings.prefer, own, ())
        self._compiled: dict[str, ServiceNames] = {}
        self._compiled_size = 0
        self._catalog = Catalog(settings.domain)
        self.hosts = HostNames(apex, {}, own)
        self._aliases = Aliases(apex, {})
        self._followers: Followers | None = None
        self.configure(settings)

    def configure(self, settings: DnsSettings) -> None:
        """Put other settings in force."""
        self._prefer = settings.prefer
        self._consul = settings.consul_names
        self._set_view()

    def update(self, catalog: Catalog, change: Change | None) -> None:
        """Take a new Catalog; `change` is the difference to the last one, None: unknown."""
        self._catalog = catalog
        self._aliases = Aliases(self.apex, catalog.aliases)
        if change is None:
            self._forget()
            self._followers = None
        else:
            for service in change.services:
                compiled = self._compiled.pop(service, None)
                self._compiled_size -= len(compiled) if compiled else 0
                if self._followers is not None:
                    self._followers.set(service, self._aliases.get(service))
        if change is None or change.hosts:
            self.hosts = HostNames(self.apex, catalog.hosts, self._own)
            self._set_view()

    def set_fronted(self, fronted: bool) -> None:
        """Say whether services' own addresses stand for their endpoints.

        Costs what is compiled of services that have some.
        """
        if fronted == self.fronted:
            return
        self.fronted = fronted
        for service in [name for name, names in self._compiled.items() if names.may_front]:
            self._compiled_size -= len(self._compiled.pop(service))

    def _set_view(self) -> None:
        view = view_of(self._prefer, self._own, self._catalog.hosts.values())
        if view != self._view:
            self._view = view
            self._forget()

    def _forget(self) -> None:
        self._compiled = {}
        self._compiled_size = 0

    @property
    def subtrees(self) -> frozenset[bytes]:
        """Labels right below the domain that exist though no service or alias is named so.

        With Consul's names, those that begin with an underscore may exist as well.
        """
        found = frozenset((hosts.SUBTREE,))
        return found | {consul.SUBTREE, *self._datacenters} if self._consul else found

    def node(self, name: Name) -> Node | None:
        """What is at a name below the apex; None: it does not exist."""
        below = name[: -len(self.apex)]
        if below[-1] == hosts.SUBTREE:
            return self.hosts.node(name, below[:-1])
        service = below[-1].decode("latin-1")
        names = self._service(service)
        if names is not None:
            return names.node(below[:-1])
        lead = self._aliases.get(service)
        if lead is not None:
            return self._alias_node(name, below[:-1], service, lead)
        return self._consul_node(name, below) if self._consul else None

    def _alias_node(self, name: Name, below: Name, service: str, lead: Lead) -> Node | None:
        if not below:
            return AliasNode(name, lead.target, lead.ttl)
        # A CNAME covers its own name only (RFC 1034, section 3.6.2), but SRV is asked for below it.
        end = self._end(service)
        if end is None or not end.has_port(below):
            return None
        return EMPTY if len(below) == 1 else AliasNode(name, below + end.apex, lead.ttl)

    def _end(self, service: str) -> ServiceNames | None:
        """The service at the end of a chain of aliases that stays among services."""
        for _ in range(CHAIN_MAX + 1):
            names = self._service(service)
            lead = self._aliases.get(service)
            if names is not None or lead is None:
                return names
            service = lead.service
        return None

    def _consul_node(self, name: Name, below: Name) -> Node | None:
        if below[-1] in self._datacenters:
            below = below[:-1]
            if not below:
                return EMPTY
            if below[-1] == hosts.SUBTREE:
                return self.hosts.node(name, below[:-1])
        form = consul.parse(below)
        if form is None:
            return None
        if not form.service:
            return EMPTY
        service = form.service.decode("latin-1")
        names = self._service(service)
        if names is not None:
            return consul.node(names, name, form)
        lead = self._aliases.get(service) if not form.tag else None
        return AliasNode(name, lead.target, lead.ttl) if lead is not None else None

    def _service(self, name: str) -> ServiceNames | None:
        compiled = self._compiled.get(name)
        if compiled is not None:
            return compiled
        compiled = self._compile(name)
        if compiled is None:
            return None
        self._compiled[name] = compiled
        self._compiled_size += len(compiled)
        while self._compiled_size > COMPILED_MAX and len(self._compiled) > 1:
            self._compiled_size -= len(self._compiled.pop(next(iter(self._compiled))))
        return compiled

    def _compile(self, name: str) -> ServiceNames | None:
        instances = self._catalog.services.get(name)
        if not instances:
            return None
        apex = (name.encode(), *self.apex)
        return ServiceNames(apex, instances.values(), self._view, fronted=self.fronted)

    # All of it, for zone transfers --------------------------------------------------------------

    def host_rrs(self) -> tuple[RR, ...]:
        """The records of all hosts, none twice, in a fixed order."""
        return self.hosts.rrs()

    def service_rrs(self, service: str) -> tuple[RR, ...]:
        """All records of a service or an alias, none twice, in a fixed order; () when it is gone.

        As on every host: nothing preferred, limited or flattened, and of the names of Consul's kind
        those without a data centre.
        """
        names = self._compiled.get(service) or self._compile(service)
        if names is not None:
            return (*names.rrs(), *(consul.rrs(names) if self._consul else ()))
        lead = self._aliases.get(service)
        if lead is None:
            return ()
        owner = (service.encode(), *self.apex)
        owners = [owner]
        if self._consul:
            owners.append((owner[0], consul.SUBTREE, *self.apex))
        found = [cname(name, lead.target, lead.ttl) for name in owners]
        end = self._end(service)
        if end is not None:
            ports = sorted(end.index.ports)
            found += [cname(port + owner, port + end.apex, lead.ttl) for port in ports]
        return tuple(rr for rr in found if fits(rr.owner))

    def affected(self, services: Iterable[str]) -> frozenset[str]:
        """Whose `service_rrs` may differ when `services` change: theirs, and those of aliases."""
        if self._followers is None:
            self._followers = Followers(self._aliases)
        return self._followers.of(services)

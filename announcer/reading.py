"""What one container offers: from its labels, its ports and its networks to endpoints.

Rule: a *fault* is about what somebody wrote, and refuses the whole container; all of them are
found. What follows from defaults, or from the container's state, is a *silent* reason. The result
depends on the values given, never on their order. `docs/labels.md` is this module in words. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from announcer import address, discod_labels, registrator
from announcer.address import Place, Places
from announcer.check_terms import check_of, find_idle_details
from announcer.container import Attachment, Container, Status
from announcer.default_name import default_name
from announcer.discod_labels import DiscodWords
from announcer.metadata import Faults, PortKey, Said, Terms
from announcer.offer import Offer, Reading, Scope
from announcer.policy import policy_fault
from announcer.registrator import RegistratorWords
from announcer.values import PORTS_MAX
from discod.model.endpoint import DEFAULT_PRIORITY, DEFAULT_WEIGHT, Address, Endpoint, Producer
from discod.model.names import instance_label, service_fault
from discod.model.vip import VipWish, granted

SHARED = "container:"
"""Network mode of a container that lives in another one's network."""


def read(container: Container, scope: Scope, *, borrowed: Container | None = None) -> Reading:
    """Everything a container offers, or why it offers nothing.

    It reads what the container would offer if it were up: whether it is, `announcer.verdict` says.

    Args:
        container: The container.
        scope: This host and its settings.
        borrowed: The container whose network it uses, where its network mode is
            ``container:<id>``.
    """
    return _Reader(container, scope, borrowed).read()


@dataclass(frozen=True, slots=True)
class _Named:
    """One port to offer, with all that was said of it."""

    port: PortKey
    terms: Terms
    service: str
    port_name: str


class _Reader:
    """One reading; holds what its steps share."""

    def __init__(self, container: Container, scope: Scope, borrowed: Container | None) -> None:
        self.container = container
        self.scope = scope
        self.net = borrowed if container.network_mode.startswith(SHARED) else container
        self.faults = Faults()
        self.reasons: dict[str, None] = {}  # an ordered set
        env, labels = dict(sorted(container.env)), dict(sorted(container.labels))
        self.labels = labels
        own, theirs = Faults(), Faults()
        self.discod: DiscodWords = discod_labels.parse(labels, own)
        self.registrator: RegistratorWords = registrator.parse(env, labels, theirs)
        find_idle_details(self.registrator, self.discod, own)
        self.faults.take(own)
        # A container that never asked to be offered may have SERVICE_* of its own.
        if self._names_itself() or not scope.announce.require_label:
            self.faults.take(theirs)

    def read(self) -> Reading:
        ignored = self.discod.general.over(self.registrator.general).ignore
        if ignored is not None and ignored.value:
            return Reading(silent=f"ignored by {ignored.label}")
        offers = self._offers()
        if self.faults:
            return Reading(faults=self.faults.sorted())
        if not offers:
            return Reading(silent="; ".join(self.reasons))
        return Reading(offers=offers)

    def _names_itself(self) -> bool:
        own = (self.discod.general, *self.discod.ports.values())
        return self.registrator.claims or any(terms.name is not None for terms in own)

    def _terms(self, port: PortKey) -> Terms:
        return self.discod.of(port).over(self.registrator.of(port.port))

    def _offers(self) -> tuple[Offer, ...]:
        attachment = self._attachment()
        if self.scope.announce.require_label and not self._names_itself():
            self.reasons["no label names a service, and this host's announce.require_label"] = None
            return ()
        ports = self._ports()
        named = self._without_clashes([n for port in ports if (n := self._named(port, len(ports)))])
        offers: list[Offer] = []
        for one in named:
            places = self._places(one, attachment)
            if places:
                offers += self._of_port(one, places)
            else:
                self.reasons[f"port {one.port}: {places.missing}"] = None
        return tuple(offers)

    # Ports -------------------------------------------------------------------------------------

    def _ports(self) -> list[PortKey]:
        """The ports to offer, ignored ones included: those count for Registrator's names."""
        asked = self.discod.named_ports
        if len(asked) > PORTS_MAX:
            self.faults.add("discod.<port>", str(len(asked)), f"expected at most {PORTS_MAX} ports")
            return []
        if asked:
            return sorted(asked)
        exposed = {PortKey(*port) for port in self.container.exposed}
        published: set[PortKey] = set()
        if self.net is not None and self.net.network_mode != "host":
            published = {PortKey(p.port, p.protocol) for p in self.net.published}
        if self.net is not self.container:
            published &= exposed  # the others are the lender's own
        named = {PortKey(n, "tcp") for n, terms in self.registrator.ports.items() if terms.name}
        found = published or exposed or named
        if not found:
            self.reasons["it publishes and exposes no port; name one with discod.port"] = None
        if len(found) > PORTS_MAX:
            self.reasons[
                f"it has {len(found)} ports, more than {PORTS_MAX}; choose with discod.port"
            ] = None
            return []
        return sorted(found)

    # Names -------------------------------------------------------------------------------------

    def _named(self, port: PortKey, ports: int) -> _Named | None:
        terms = self._terms(port)
        if terms.ignore is not None and terms.ignore.value:
            self.reasons[f"port {port}: ignored by {terms.ignore.label}"] = None
            return None
        service = self._service(port, terms.name, bool(terms.grouped), ports)
        if service is None:
            return None
        if terms.anycast is not None:
            self._allow(terms.anycast)
        port_name = terms.port_name.value if terms.port_name else str(port.port)
        return _Named(port, terms, service, port_name)

    def _service(
        self, port: PortKey, name: Said[str] | None, grouped: bool, ports: int
    ) -> str | None:
        announce = self.scope.announce
        suffix = f"-{port.port}" if ports > 1 else ""
        if name is not None:
            service = name.value + (suffix if grouped else "")
            fault = service_fault(service)
            if fault is not None:
                fault = f"with several ports the name is {service[:80]!r}: {fault}"
            fault = fault or policy_fault(service, announce)
            if fault is not None:
                self.faults.add(name.label, name.raw, fault)
                return None
            return service
        if announce.require_label:
            self.reasons[f"port {port}: no label names its service"] = None
            return None
        service = default_name(self.container.image, self.labels, suffix)
        if not service:
            self.reasons["no name can be made from its image; name it with discod.name"] = None
            return None
        fault = service_fault(service) or policy_fault(service, announce)
        if fault is not None:
            self.reasons[f"its default name {service!r} is refused: {fault}"] = None
            return None
        return service

    def _allow(self, anycast: Said[tuple[Address, ...]]) -> None:
        """Note fixed addresses that this host's policy does not leave to labels."""
        allowed = self.scope.anycast_allow
        if allowed is None:
            return
        for one in anycast.value:
            if not any(one.version == n.version and one in n for n in allowed):
                nets = ", ".join(map(str, allowed)) or "empty"
                expected = f"{one} is not in this host's bgp.anycast_allow ({nets[:200]})"
                self.faults.add(anycast.label, anycast.raw, expected)

    def _without_clashes(self, named: list[_Named]) -> list[_Named]:
        """Note ports of one service that no SRV query could tell apart."""
        seen: dict[tuple[str, str, str], PortKey] = {}
        for one in named:
            key = (one.service, one.port.protocol, one.port_name)
            other = seen.setdefault(key, one.port)
            if other != one.port:
                said = one.terms.port_name or self._terms(other).port_name
                assert said is not None  # default port names differ as the ports do
                self.faults.add(
                    said.label,
                    said.raw,
                    f"ports {other} and {one.port} of service {one.service!r} need different "
                    "port names: use discod.<port>.port-name",
                )
        return named

    # Addresses ---------------------------------------------------------------------------------

    def _attachment(self) -> Attachment | None:
        """The network for container addresses; a label that names another one is a fault."""
        if self.net is None:
            return None
        wanted = self.discod.network
        found = address.choose_network(
            self.net.attachments,
            self.scope.announce.networks,
            wanted.value if wanted else None,
        )
        if wanted is not None and found is None:
            names = ", ".join(a.network for a in self.net.attachments)[:200] or "none"
            expected = f"expected a network that the container is in: {names}"
            self.faults.add(wanted.label, wanted.raw, expected)
        return found

    def _places(self, one: _Named, attachment: Attachment | None) -> Places:
        if self.net is None or self.net.network_mode.startswith(SHARED):
            lender = self.container.network_mode.removeprefix(SHARED)[:12]
            return Places(missing=f"it uses the network of container {lender}, which is not there")
        if self.net.network_mode == "host":
            return address.on_host(self.scope.addresses, one.port.port)
        mode = one.terms.address.value if one.terms.address else self.scope.announce.address
        bindings = [p for p in self.net.published if (p.port, p.protocol) == one.port]
        if mode == "published" or (mode == "auto" and bindings):
            return address.published(bindings, self.scope.addresses)
        if attachment is None:
            return Places(missing="it is in no network")
        places = address.in_container(attachment, one.port.port)
        if not places and self.net.status not in (Status.RUNNING, Status.PAUSED):
            return Places(missing="it does not run, so it has no address")
        return places

    # Endpoints ---------------------------------------------------------------------------------

    def _of_port(self, one: _Named, places: Places) -> list[Offer]:
        offers: list[Offer] = []
        if places.v4 is not None:
            offers.append(self._offer(one, places.v4, target=""))
        if places.v6 is not None:
            # One SRV target for both only where both have one port: an SRV record has one.
            shared = places.v4 is not None and places.v4.port == places.v6.port
            offers.append(self._offer(one, places.v6, self._instance(one, 4) if shared else ""))
        return offers

    def _instance(self, one: _Named, family: int) -> str:
        number, protocol = one.port
        unit = self.container.short_id
        return instance_label(self.scope.host, unit, number, protocol=protocol, family=family)

    def _offer(self, one: _Named, place: Place, target: str) -> Offer:
        terms = one.terms
        tags = terms.tags.value if terms.tags else ()
        if terms.id is not None:
            tags = tuple(dict.fromkeys((*tags, terms.id.value)))
        wish = None
        if terms.vip is not None and terms.vip.value:
            wish = VipWish(one.service, terms.vip.value, terms.vip.label, terms.vip.raw)
        endpoint = Endpoint(
            service=one.service,
            instance=self._instance(one, place.address.version),
            address=place.address,
            port=place.port,
            protocol=one.port.protocol,
            port_name=one.port_name,
            tags=tags,
            weight=terms.weight.value if terms.weight else DEFAULT_WEIGHT,
            priority=terms.priority.value if terms.priority else DEFAULT_PRIORITY,
            attributes=tuple(sorted(terms.attributes.items())),
            host=self.scope.host,
            container=self.container.id,
            container_name=self.container.name,
            producer=Producer.DOCKER,
            since=self.container.started,
            target=target,
            ttl=terms.ttl.value if terms.ttl else 0,
            alpn=terms.alpn.value if terms.alpn else (),
            prefer=terms.prefer.value if terms.prefer else None,
            anycast=terms.anycast.value if terms.anycast else (),
            rescue=terms.rescue.value if terms.rescue else True,
            vip=granted(wish, self.scope.vips),
            affinity=terms.affinity.value if terms.affinity else False,
        )
        return Offer(endpoint, check_of(terms, self.scope.checks), wish)

"""What rescue keeps account of: which places are stale, and what each leads to instead.

Rule: a place in use is never stale. Whoever takes it, an endpoint anywhere, a container here, a
neighbour that answers, ends what was stale there for good, and `Step.revoked` names it first. The
outcome depends on what is so now, and on when; on the way to it only in that what was used in
between stays ended. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from discod.model.catalog_values import Catalog, Change
from discod.model.endpoint import Address, Endpoint, Prefer, Reason
from discod.model.rescue import Bridge, Place, Plan, Stale, Unit
from discod.model.rescue_settings import RescueSettings
from discod.rescue import telling
from discod.rescue.dead import LINGERING, MOVED, Dead, Deads, why_of
from discod.rescue.past import Past
from discod.rescue.pools import Outlook, outlook, pool_of
from discod.rescue.sheet import Sheet
from discod.rescue.uses import Uses
from discod.rescue.vips import Vips, places_of


@dataclass(frozen=True, slots=True)
class Step:
    """From the last Plan to a new one."""

    plan: Plan
    revoked: tuple[Place, ...] = ()
    """Left because they are used again: they must leave the kernel before anything else happens.
    Places behind published ports are among them."""
    cut: tuple[Place, ...] = ()
    """Places whose established connections end now; those behind published ports are among them."""


class Book:
    """Follows the Catalog, this host's containers, and time. Not safe for threads.

    Args:
        settings: See there.
        host: Name of this host.
        prefer: ``dns.prefer``.
        zone: Of this host; empty: it has none.
    """

    def __init__(
        self, settings: RescueSettings, host: str, prefer: Prefer = "none", zone: str = ""
    ) -> None:
        self.dropped = 0
        """Stale places that were forgotten too early, as there were more than `max_entries`."""
        self._settings = settings
        self._host = host
        self._prefer: Prefer = prefer
        self._zone = zone
        self._look = Outlook(host, prefer)
        self._catalog: Catalog | None = None
        self._uses = Uses(host)
        self._local = self._uses.local
        self._deads = Deads(host)
        self._vips = Vips()
        self._past = Past()
        self._sheet = Sheet(settings.refuse)
        self._expiry: float | None = None  # not later than the first one
        # What this step has to look at again, and to tell:
        self._touched: dict[Place, None] = {}
        self._touched_vips: set[Place] = set()
        self._dirty: dict[str, None] = {}  # services
        self._revoked: dict[Place, None] = {}
        self._cut: dict[Place, None] = {}

    @property
    def plan(self) -> Plan:
        """The present Plan; the same object until something changes."""
        return self._sheet.plan

    @property
    def next_expiry(self) -> float | None:
        """When to call `expire`, Unix seconds; None: nothing is to expire.

        May be too early, never too late; exact after `expire`.
        """
        return self._expiry

    # The Catalog --------------------------------------------------------------------------------

    def reset(self, catalog: Catalog, now: float) -> Plan:
        """Take a whole Catalog; `update` without a Change does so too, and says what ended."""
        return self.update(catalog, None, now).plan

    def update(self, catalog: Catalog, change: Change | None, now: float) -> Step:
        """Take the Catalog that came of `change`; None: not clear which, all of it is looked at."""
        before = self._catalog
        whole = before is None or change is None
        self._catalog = catalog
        if whole or (change is not None and change.hosts):
            self._look_around()
        pairs = telling.pairs(before, catalog, None if whole else change)
        services = {one.service: None for pair in pairs if (one := pair[0] or pair[1])}
        self._dirty.update(services)
        moved = telling.moved(pairs)
        came = self._uses.take(moved)
        for endpoint in came:
            self._revive(Place(*endpoint.place))
        if any(endpoint.host == self._host for endpoint in came):
            self._look_at_own()
        for old, new in moved:
            if old is not None and Place(*old.place) not in self._uses:
                self._die(old, new, now)
        if (
            before is None
            or catalog.withdrawn is not before.withdrawn
            or catalog.lost is not before.lost
        ):
            self._end_lingering(catalog)
        for service in services:
            places = self._vips.take(service, catalog.services.get(service, {}).values(), now)
            if places:
                self._touched_vips |= places
                self._soon(now)
        if whole:
            self._hear_all(catalog, now)
            return self.expire(now)
        return self._step()

    def _revive(self, place: Place) -> None:
        if self._deads.pop(place) is not None:
            self._revoke(place)

    def _die(self, old: Endpoint, new: Endpoint | None, now: float) -> None:
        assert self._catalog is not None
        if not old.port:
            return
        self._past.note(Place(*old.place), old.service, now)
        if not self._kept(old):
            return
        dead = Dead.of(old, telling.said_of(self._catalog, old.id), now)
        if new is not None:
            dead.why, dead.cut = MOVED, telling.over_where_it_was(old, new)
        self._put(dead, now)
        self._soon(now)

    def _put(self, dead: Dead, now: float) -> None:
        of_late = now - self._settings.hold
        dead.shared = self._past.shared(dead.place, dead.endpoint.service, of_late)
        dead.closed = self._local.taken(dead.place, dead.endpoint.container)
        self._deads.put(dead)
        self._refresh(dead)
        if dead.cut or self._uses.departed(dead.endpoint):
            self._cut_off(dead)

    def _end_lingering(self, catalog: Catalog) -> None:
        for dead in self._deads.lingering():
            said = telling.said_of(catalog, dead.endpoint.id)
            if said is not None and (why := why_of(said)) not in LINGERING:
                dead.why = why
                self._cut_off(dead)

    def _cut_off(self, dead: Dead) -> None:
        self._deads.cut(dead)
        self._touched[dead.place] = None
        if not dead.closed:
            self._cut[dead.place] = None
            if dead.backend is not None:
                self._cut[dead.backend] = None

    def _hear_all(self, catalog: Catalog, now: float) -> None:
        """Take what the Catalog tells of the time before, and look at everything again."""
        for said in telling.ends(catalog):
            if said.endpoint.port and why_of(said) != Reason.STARTING:
                place = Place(*said.endpoint.place)
                self._past.note(place, said.endpoint.service, min(said.at, now))
        for said in telling.newest(catalog):
            dead = Dead.of(said.endpoint, said, min(said.at, now))
            if dead.place not in self._uses:
                self._hear(dead, now)
        self._deads.sort()
        self._touched.update((dead.place, None) for dead in self._deads)
        self._look_at_own()
        for said in telling.ends(catalog):
            if why_of(said) != Reason.STARTING:
                for place, pool in places_of((said.endpoint,)).items():
                    self._vips.leave(place, pool, min(said.at, now))
                    self._touched_vips.add(place)
        self._dirty.update(dict.fromkeys(self._sheet.pools.services()))

    def _hear(self, dead: Dead, now: float) -> None:
        """One that the Catalog tells, beside what is known of its place."""
        known = self._deads.get(dead.place)
        if known is not None and known.endpoint.id == dead.endpoint.id:
            if dead.cut and not known.cut:
                known.why = dead.why
                self._cut_off(known)
            return
        if known is not None and known.life >= dead.life:
            return
        if known is not None:
            self._revive(dead.place)
        # What is STARTING need not have lived; but the place is not for who had it before.
        lived = dead.why != Reason.STARTING
        if lived and self._kept(dead.endpoint) and dead.until(self._settings) > now:
            self._put(dead, now)

    # This host ----------------------------------------------------------------------------------

    def units(self, units: Mapping[str, Unit], bridges: tuple[Bridge, ...], now: float) -> Step:
        """Take this host's running containers, by full id, and its bridges."""
        moved = self._local.take(units, bridges)
        if not moved.any:
            return self._step()
        for address in moved.addresses:
            for dead in self._deads.at(address):
                self._close_if_taken(dead)
        for place in moved.published:
            if (at := self._deads.get(place)) is not None:
                self._close_if_taken(at)
            self._dirty.update(dict.fromkeys(self._uses.services(place)))
        self._look_at_own()
        return self._step()

    def claimed(self, address: Address, now: float) -> Step:
        """Somebody on a bridge answers for an address.

        That says nothing of a published port, nor of a container that is still there.
        """
        for dead in self._deads.at(address):
            if self._uses.may_be_claimed(dead.endpoint, dead.backend):
                self._close(dead)
        return self._step()

    def _close_if_taken(self, dead: Dead) -> None:
        if self._local.taken(dead.place, dead.endpoint.container):
            self._close(dead)

    def _close(self, dead: Dead) -> None:
        dead.closed = True
        self._revoke(dead.place)

    def _look_at_own(self) -> None:
        """What is known of this host's containers has changed."""
        for dead in self._deads.own():
            self._refresh(dead)
            if not dead.cut and self._uses.departed(dead.endpoint):
                self._cut_off(dead)

    def _refresh(self, dead: Dead) -> None:
        """Take what is known of one's container; the plan is made anew for its place."""
        dead.backend, dead.mac = self._uses.behind(dead.endpoint)
        self._touched[dead.place] = None
        shown = self._sheet.stale(dead.place)
        if shown is not None and shown.backend is not None and dead.backend != shown.backend:
            self._revoked[shown.backend] = None

    def _look_around(self) -> None:
        assert self._catalog is not None
        look = outlook(self._host, self._zone, self._prefer, self._catalog.hosts)
        if look != self._look:
            self._look = look
            self._dirty.update(dict.fromkeys(self._sheet.pools.services()))
        if self._uses.hosts(self._catalog):
            self._look_at_own()

    # Time and settings --------------------------------------------------------------------------

    def used(self, places: Iterable[Place], now: float) -> Step:
        """Clients still use these places."""
        for place in places:
            dead = self._deads.get(place)
            if dead is not None and not dead.closed:
                self._deads.use(dead, now)
                self._touched[place] = None
            self._vips.use(place, now)
        return self._step()

    def expire(self, now: float) -> Step:
        """Forget what was not used for long enough."""
        self._past.forget(now - self._settings.hold)
        for dead in self._deads:
            if dead.until(self._settings) <= now:
                self._deads.pop(dead.place)
                self._touched[dead.place] = None
        self._touched_vips.update(self._vips.expire(now, self._settings))
        self._drop_oldest()
        first = [dead.until(self._settings) for dead in self._deads]
        if (vip := self._vips.next_expiry(self._settings)) is not None:
            first.append(vip)
        self._expiry = min(first, default=None)
        return self._step()

    def configure(self, settings: RescueSettings, prefer: Prefer, zone: str, now: float) -> Step:
        """Take other settings."""
        self._settings, self._prefer, self._zone = settings, prefer, zone
        if self._catalog is None:
            return self._step()
        return self.update(self._catalog, None, now)

    def _soon(self, now: float) -> None:
        """Something is to be forgotten from now on."""
        at = now + min(self._settings.hold, self._settings.max_hold)
        if self._expiry is None or at < self._expiry:
            self._expiry = at

    # The plan -----------------------------------------------------------------------------------

    def _rescued(self, endpoint: Endpoint) -> bool:
        return self._settings.enabled and endpoint.rescue

    def _kept(self, endpoint: Endpoint) -> bool:
        """Whether the end of an endpoint matters: also when only a service address led to it."""
        return bool(endpoint.vip) or self._rescued(endpoint)

    def _revoke(self, place: Place) -> None:
        self._touched[place] = None
        shown = self._sheet.stale(place)
        if shown is not None:
            self._revoked[place] = None
            if shown.backend is not None:
                self._revoked[shown.backend] = None

    def _shown(self, place: Place) -> Stale | None:
        dead = self._deads.get(place)
        if dead is None or dead.closed or not self._rescued(dead.endpoint):
            return None
        return Stale(
            place,
            dead.endpoint.id,
            pool_of(dead.endpoint),
            dead.cut,
            dead.why,
            dead.since,
            dead.until(self._settings),
            dead.backend,
            dead.mac,
            dead.shared,
        )

    def _drop_oldest(self) -> None:
        while len(self._deads) > self._settings.max_entries:
            dead = self._deads.oldest()
            self._deads.pop(dead.place)
            self._touched[dead.place] = None
            self.dropped += not dead.closed

    def _step(self) -> Step:
        self._drop_oldest()
        settings, catalog = self._settings, self._catalog
        if catalog is not None and (self._touched or self._touched_vips or self._dirty):
            self._sheet.write(
                {place: self._shown(place) for place in self._touched},
                {place: self._vips.get(place) for place in self._touched_vips},
                self._dirty,
                catalog,
                self._look,
                self._local.inside,
            )
        plan = self._sheet.finish(self._local.bridges, settings.refuse)
        # What only changed hands is put right by the plan.
        revoked = tuple(place for place in self._revoked if self._sheet.stale(place) is None)
        step = Step(plan, revoked, tuple(self._cut))
        self._touched, self._touched_vips, self._dirty = {}, set(), {}
        self._revoked, self._cut = {}, {}
        return step

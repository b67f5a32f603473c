"""What the store says besides endpoints and aliases: hosts, refusals, services' own addresses.

Rule: the outcome depends on the present value of each key only. Part of `discod.model.catalog`,
which alone writes it. Pure.
"""

from __future__ import annotations

from discod.model import schema, vip_records
from discod.model.catalog_values import Entry, What
from discod.model.endpoint import Address, Host, Refusal
from discod.model.schema import HostKey, Keyspace, RefusedKey, VipKey, VipOwnerKey
from discod.model.shards import Kept
from discod.model.vip import VipTable

DirectoryKey = HostKey | RefusedKey | VipKey | VipOwnerKey


class Directory:
    """The present values of these keys."""

    def __init__(self, keys: Keyspace) -> None:
        self._keys = keys
        self._table = VipTable()
        self._hosts_touched = False
        self._renamed: dict[str, None] = {}  # services with other addresses of their own
        self.hosts = Kept[str, Host]()
        self.refused = Kept[tuple[str, str], Refusal]()
        self.vips = Kept[str, tuple[Address, ...]]()

    def known(self) -> set[str]:
        """Every key that has a value."""
        return (
            {self._keys.host(name) for name in self.hosts.now}
            | {self._keys.refused(*pair) for pair in self.refused.now}
            | {self._keys.vip(service) for service in self._table.services}
            | {self._keys.vip_owner(address) for address in self._table.owners}
        )

    def changed(self) -> tuple[bool, list[str]]:
        """Whether any host changed, and which services' own addresses did, since the last call."""
        found = self._hosts_touched, list(self._renamed)
        self._hosts_touched, self._renamed = False, {}
        return found

    def take(
        self, key: str, parsed: DirectoryKey, value: bytes | None, changed: int
    ) -> list[Entry]:
        """Set one key; None: it was deleted. Returns what a person would call news.

        Raises:
            RecordError: the value is malformed; nothing is changed.
        """
        match parsed:
            case HostKey(name):
                return self._host(key, name, value, changed)
            case RefusedKey(host, container):
                return self._refusal(key, host, container, value, changed)
            case VipKey(service):
                record = None
                if value is not None:
                    record = vip_records.decode_vip(key, service, value, changed)
                self._table.put_service(service, record)
                self._look(service)
            case VipOwnerKey(address):
                owner = None if value is None else vip_records.decode_vip_owner(key, value)
                before = self._table.owners.get(address)
                self._table.put_owner(address, owner)
                for either in (before, owner):
                    if either is not None:
                        self._look(either)
        return []

    def _look(self, service: str) -> None:
        now = self._table.of(service)
        if now == self.vips.now.get(service, ()):
            return
        self._renamed[service] = None
        if now:
            self.vips.put(service, now)
        else:
            self.vips.drop(service)

    def _host(self, key: str, name: str, value: bytes | None, changed: int) -> list[Entry]:
        before = self.hosts.now.get(name)
        after = None if value is None else schema.decode_host(key, name, value)
        if before == after:
            return []
        self._hosts_touched = True
        if after is None:
            self.hosts.drop(name)
            return [Entry(What.HOST_GONE, changed, host=name)]
        self.hosts.put(name, after)
        what = What.HOST_CHANGED if before else What.HOST_UP
        return [Entry(what, changed, host=name)]

    def _refusal(
        self, key: str, host: str, container: str, value: bytes | None, changed: int
    ) -> list[Entry]:
        if value is None:
            self.refused.drop((host, container))
            return []
        refusal = schema.decode_refusal(key, host, container, value)
        known = self.refused.now.get((host, container)) == refusal
        self.refused.put((host, container), refusal)
        return [] if known else [Entry(What.REFUSED, changed, host=host, detail=container)]

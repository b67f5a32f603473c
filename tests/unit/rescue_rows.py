"""A rescue that is none: rows as the daemon has them, set by the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from discod.model.endpoint import Endpoint, EndpointId
from tests.unit.fake_view import NOW, WEB3

STATUS: dict[str, Any] = {
    "enabled": True,
    "fault": "",
    "entries": 2,
    "max_entries": 4096,
    "dropped": 0,
    "hold": 600.0,
    "services": (
        {"service": "web", "rescued": 41, "reset": 3, "refused": 0, "cut": 2, "clients": 1},
    ),
}
ENTRY: dict[str, Any] = {
    "address": "10.101.1.9",
    "port": 80,
    "protocol": "tcp",
    "service": "web",
    "instance": WEB3.instance,
    "reason": "crashed",
    "since": NOW - 20,
    "until": NOW + 590,
    "goes_to": ("10.101.1.2:80", "10.101.2.2:80"),
    "refused": False,
    "cut": True,
    "clients": 1,
}
FORGOTTEN: dict[str, Any] = {
    **ENTRY,
    "address": "2001:db8:7::7",
    "service": "old",
    "instance": "beta-ffffffffffff-80",
    "reason": "lost",
    "goes_to": (),
    "refused": True,
    "cut": False,
    "clients": 0,
}
CLIENT: dict[str, Any] = {
    "client": "10.101.1.7",
    "name": "shop-1",
    "address": "10.101.1.9",
    "port": 80,
    "protocol": "tcp",
    "service": "web",
    "rescued": 41,
    "reset": 3,
    "refused": 0,
    "last": NOW - 5,
}
VIP: dict[str, Any] = {
    "service": "web",
    "address": "10.96.0.10",
    "port": 80,
    "protocol": "tcp",
    "affinity": True,
    "endpoints": ("10.101.1.2:80",),
}


@dataclass
class FakeRescue:
    """What the API sees."""

    found: dict[str, Any] = field(default_factory=lambda: dict(STATUS))
    stale: list[dict[str, Any]] = field(default_factory=lambda: [ENTRY, FORGOTTEN])
    users: list[dict[str, Any]] = field(default_factory=lambda: [CLIENT])
    addresses: list[dict[str, Any]] = field(default_factory=lambda: [VIP])
    words: dict[EndpointId, str] = field(
        default_factory=lambda: {WEB3.id: "new connections to 10.101.1.9:80 go to 10.101.1.2:80"}
    )

    def status(self) -> dict[str, Any]:
        return self.found

    def entries(self) -> list[dict[str, Any]]:
        return self.stale

    def clients(self) -> list[dict[str, Any]]:
        return self.users

    def vips(self) -> list[dict[str, Any]]:
        return self.addresses

    def word(self, endpoint: Endpoint) -> str:
        return self.words.get(endpoint.id, "")

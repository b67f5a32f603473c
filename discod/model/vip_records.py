"""The JSON behind the keys of services' own addresses, and who gets which in one transaction.

Rule: as in `discod.model.schema`, of which this is a part. Both keys of an address are written
together or not at all, so each says what the other says. Pure.
"""

from __future__ import annotations

import json
from typing import Literal

from discod.model.endpoint import Fault
from discod.model.fields import Fields, RecordError
from discod.model.keyspace import SCHEMA
from discod.model.names import service_fault
from discod.model.vip import VipRecord

_REQUESTED: tuple[Literal["auto", "fixed"], ...] = ("auto", "fixed")


def encode_vip(record: VipRecord) -> bytes:
    """The value of a service's own addresses."""
    return _dump(
        {
            "v": SCHEMA,
            "addresses": [str(address) for address in record.addresses],
            "requested": record.requested,
            "since": record.since,
        }
    )


def decode_vip(key: str, service: str, value: bytes, revision: int = 0) -> VipRecord:
    """The addresses behind a value.

    Raises:
        RecordError: the value is not what `encode_vip` writes.
    """
    fields = Fields.load(key, value)
    addresses = fields.vip("addresses")
    if not addresses:
        raise RecordError(key, Fault("addresses", "", "expected one or two addresses"))
    requested = fields.choice("requested", _REQUESTED)
    return VipRecord(service, addresses, requested, fields.number("since"), revision)


def encode_vip_owner(service: str) -> bytes:
    """The value of one address: who has it."""
    return _dump({"v": SCHEMA, "service": service})


def decode_vip_owner(key: str, value: bytes) -> str:
    """The service behind a value.

    Raises:
        RecordError: the value is not what `encode_vip_owner` writes.
    """
    service = Fields.load(key, value).text("service", "")
    fault = service_fault(service)
    if fault is not None:
        raise RecordError(key, Fault("service", service, fault))
    return service


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

"""etcd's v3 messages and methods, from the descriptors inside etcd3 0.12.0.

Rule: the one module that knows of protobuf. etcd3's generated modules were made for protobuf 3.x
and do not import with a current one, but each carries its file's serialized descriptor. Those are
read out of the source text (nothing of etcd3 is executed) into a private pool, which gives message
classes at the speed of the installed protobuf (upb), from 4.25 on.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory

FILES = ("kv", "auth", "rpc")
"""In the order of their imports."""

PACKAGE = "etcdserverpb"

_SERIALIZED = re.compile(r"serialized_pb=_b\(('(?:[^'\\]|\\.)*')\)")


@dataclass(frozen=True, slots=True)
class Method:
    """What gRPC has to know of one method."""

    path: str
    serialize: Callable[[Any], bytes]
    parse: Callable[[bytes], Any]


class Proto:
    """Message classes and methods by name."""

    def __init__(self, files: tuple[bytes, ...]) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        for file in files:
            self._pool.AddSerializedFile(file)

    @functools.cache  # noqa: B019 (one Proto lives as long as the process)
    def message(self, name: str) -> Any:
        """The class of a message, e.g. ``RangeRequest``."""
        found = self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}")
        return message_factory.GetMessageClass(found)

    def progress_request(self) -> Any:
        """A ``WatchRequest`` for progress: field 3, an empty message.

        etcd3's definitions are older than it (etcd 3.4); protobuf carries unknown fields through.
        """
        return self.message("WatchRequest").FromString(b"\x1a\x00")

    @functools.cache  # noqa: B019 (as above)
    def method(self, name: str) -> Method:
        """A method, e.g. ``KV/Range``."""
        service, _, method = name.partition("/")
        found = self._pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(method)
        return Method(
            f"/{PACKAGE}.{name}",
            message_factory.GetMessageClass(found.input_type).SerializeToString,
            message_factory.GetMessageClass(found.output_type).FromString,
        )


@functools.cache
def load() -> Proto:
    """Read etcd3's descriptors.

    Raises:
        RuntimeError: etcd3 is not installed, or is not the release that this was written for.
    """
    spec = find_spec("etcd3")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("etcd3 is not installed: the etcd store needs etcd3 0.12.0")
    folder = Path(spec.submodule_search_locations[0]) / "etcdrpc"
    return Proto(tuple(_descriptor(folder / f"{name}_pb2.py") for name in FILES))


def _descriptor(path: Path) -> bytes:
    found = _SERIALIZED.search(path.read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError(f"no descriptor in {path}: the etcd store needs etcd3 0.12.0")
    text = ast.literal_eval(found[1])
    assert isinstance(text, str)
    return text.encode("latin-1")

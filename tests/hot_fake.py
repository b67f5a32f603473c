"""A worker that does as it is told by its clients, for tests of the daemon's side.

The first octet of a query says what to do: ``?`` answer with what is known (JSON), ``p`` answer,
``d`` hand the query to the daemon, ``n`` count an A query with NXDOMAIN and answer, ``x`` end with
status 3, ``l`` loop for ever, ``z`` sleep for ever. The heart beats as often as a real worker's.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resolver.hot import slots
from resolver.hot.protocol import (
    Delegated,
    Kind,
    delegated,
    frames,
    read_config,
    read_services,
    unpack,
)
from resolver.hot.shared import Shared
from resolver.record import NXDOMAIN, A

ROOT = str(Path(__file__).resolve().parents[1])
BOOT = (
    f"import sys; sys.path.insert(0, {ROOT!r}); from tests import hot_fake; "
    "hot_fake.main(sys.argv[1:])"
)


class Fake:
    """What it was told."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {"services": {}, "steps": 0, "configs": 0, "go": False}
        self.buffer = bytearray()

    def hear(self, chunk: bytes, row: memoryview) -> None:
        known = self.known
        self.buffer += chunk
        for kind, payload in frames(self.buffer):
            match kind:
                case Kind.CONFIG:
                    config = read_config(payload)
                    known["configs"] += 1
                    known["domain"] = config.settings.domain
                    known["udp_size"] = config.settings.udp_size
                    known["own"] = config.own.name
                    known["secrets"] = len(config.secrets)
                case Kind.SERVICES:
                    step = read_services(payload)
                    known["steps"] += 1
                    known["revision"], known["stale"] = step.revision, step.stale
                    for name, packed in step.services:
                        known["services"].pop(name, None)
                        if packed is not None:
                            known["services"][name] = sorted(unpack(name, packed)[0])
                    row[slots.APPLIED] = step.number
                case Kind.GO:
                    known["go"] = True
                    row[slots.STATE] = slots.SERVING


def main(arguments: Sequence[str]) -> None:
    stats, control_fd, queries_fd, *fds = map(int, arguments)
    # What lists them is one of them, for a moment.
    inherited = sorted(int(fd.name) for fd in Path("/proc/self/fd").iterdir() if fd.exists())
    row = Shared(stats).slots
    control = socket.socket(fileno=control_fd)
    queries = socket.socket(fileno=queries_fd)
    sockets = [socket.socket(fileno=fd) for fd in fds]
    fake = Fake()
    fake.known["fds"] = inherited
    fake.known["given"] = sorted([stats, control_fd, queries_fd, *fds])
    while True:
        readable, _, _ = select.select(
            [control, *(sockets if fake.known["go"] else ())], [], [], slots.IDLE
        )
        row[slots.HEARTBEAT] = time.monotonic_ns()
        if control in readable:
            chunk = control.recv(65536)
            if not chunk:
                return
            fake.hear(chunk, row)
        for index, sock in enumerate(sockets):
            if sock in readable:
                serve(index, sock, queries, row, fake)


def serve(
    index: int, sock: socket.socket, queries: socket.socket, row: memoryview, fake: Fake
) -> None:
    try:
        packet, ancillary, _, source = sock.recvmsg(2048, 64)
    except BlockingIOError:
        return  # somebody else took it
    match packet[:1]:
        case b"?":
            sock.sendto(json.dumps(fake.known).encode(), source)
        case b"p":
            sock.sendto(b"worker", source)
        case b"n":
            row[slots.kind(A, NXDOMAIN, False)] += 1
            row[slots.bucket(300_000)] += 1
            row[slots.SECONDS] += 300_000
            sock.sendto(b"worker", source)
        case b"d":
            raw, local = sockaddr(source), b""
            for _, _, data in ancillary:
                local = data if len(source) == 4 else data[4:8] + data[:4]
            queries.send(delegated(Delegated(index, raw, local, packet)))
        case b"x":
            os._exit(3)
        case b"l":
            while True:
                pass
        case b"z":
            time.sleep(3600)


def sockaddr(source: Any) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    port: bytes = source[1].to_bytes(2, "big")
    if len(source) == 2:
        return b"\2\0" + port + socket.inet_aton(source[0]) + bytes(8)
    packed = socket.inet_pton(socket.AF_INET6, source[0])
    flow: bytes = source[2].to_bytes(4, "big")
    scope: bytes = source[3].to_bytes(4, "little")
    return b"\x0a\0" + port + flow + packed + scope

"""A program that asks DNS and connects at once, and in between uses addresses of long ago.

Rule: one thread, one request at a time. Started as a module inside a network namespace with its
task as JSON; writes each request as it ends, a line of JSON each (see `Seen` in reuse.py), and ends
when its standard input does.

    {"server": "192.0.2.1", "services": ["sa", "sb"], "port": 8080, "rate": 40, "seed": 1}
"""

from __future__ import annotations

import errno
import json
import random
import select
import socket
import sys
import time

from tests.lab.dnspoll import AAAA, A, ask

WAIT = 0.3
"""Seconds for an answer."""
KEPT = 60
"""Addresses remembered for requests of the second kind."""


def request(kind: str, address: str, port: int) -> str:
    """The name that answered, or ``!`` and why nobody did."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    type_ = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, type_) as sock:
        sock.settimeout(WAIT)
        try:
            sock.connect((address, port))
            sock.send(b"?")
            said = sock.recv(256)
        except TimeoutError:
            return "!timeout"
        except OSError as error:
            return f"!{errno.errorcode.get(error.errno or 0, error.errno)}"
    return said.decode().split()[-1] if said else "!EOF"


def main() -> None:
    task = json.loads(sys.argv[1])
    rng = random.Random(task["seed"])
    old: list[tuple[str, str]] = []
    every = 1.0 / task["rate"]
    due = time.monotonic()
    print("ready", flush=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dns:
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            due = max(due + every, time.monotonic() - 1.0)
            kind = rng.choice(("tcp", "udp"))
            asked = time.monotonic()
            fresh = not old or rng.random() < 0.5
            if fresh:
                service = rng.choice(task["services"])
                qtype = rng.choice((A, AAAA))
                try:
                    found = ask(dns, (task["server"], 53), f"{service}.discod.internal.", qtype)
                except OSError:
                    continue
                if not found.addresses:
                    continue
                address = rng.choice(found.addresses)
                if (service, address) not in old:
                    old = [*old, (service, address)][-KEPT:]
            else:
                service, address = rng.choice(old)
            start = time.monotonic()
            outcome = request(kind, address, task["port"])
            row = [asked, start, time.monotonic(), fresh, service, address, kind, outcome]
            print(json.dumps(row))


if __name__ == "__main__":
    main()

"""Other people's name servers, for a zone file: BIND, Knot and NSD, and a small world above us.

Rule: each runs in the foreground as a child, from its own folder, at the address that it is told;
nothing of the machine's own configuration is read.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.lab.daemon import until

BIND = """options {{
    directory "{folder}"; pid-file "{folder}/pid"; session-keyfile "{folder}/key";
    listen-on port {port} {{ {address}; }}; listen-on-v6 {{ none; }};
    recursion no; notify no; dnssec-validation no; allow-transfer {{ none; }};
}};
controls {{ }};
{zones}
"""
KNOT = """server:
    rundir: "{folder}"
    listen: {address}@{port}
log:
  - target: stderr
    any: warning
database:
    storage: "{folder}"
template:
  - id: default
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
zone:
{zones}
"""
NSD = """server:
    ip-address: {address}@{port}
    username: ""
    chroot: ""
    pidfile: "{folder}/pid"
    xfrdfile: "{folder}/xfrd"
    xfrdir: "{folder}"
    zonelistfile: "{folder}/list"
    database: ""
    server-count: 1
    hide-version: yes
remote-control:
    control-enable: no
{zones}
"""
_ZONE = {
    "bind": 'zone "{zone}" {{ type primary; file "{file}"; }};',
    "knot": '  - domain: "{zone}"\n    file: "{file}"',
    "nsd": 'zone:\n    name: "{zone}"\n    zonefile: "{file}"',
}
_COMMANDS = {
    "bind": ["named", "-g", "-n", "1", "-c"],
    "knot": ["knotd", "-c"],
    "nsd": ["nsd", "-d", "-c"],
}
KINDS = ("bind", "knot", "nsd")


@contextmanager
def server(
    kind: str,
    folder: Path,
    zones: dict[str, str],
    address: str,
    port: int,
    prefix: Sequence[str] = (),
) -> Iterator[None]:
    """One name server that serves `zones` (name -> master file), for as long as the context lasts.

    Args:
        kind: One of `KINDS`.
        folder: Its own; made here.
        zones: ``.`` is the root.
        address: Where it listens (``any`` for all, BIND only).
        port: UDP and TCP.
        prefix: Command prefix that enters its host's namespace.
    """
    folder.mkdir()
    listed = []
    for i, (zone, text) in enumerate(zones.items()):
        file = folder / f"zone-{i}"
        file.write_text(text)
        listed.append(_ZONE[kind].format(zone=zone, file=file))
    template = {"bind": BIND, "knot": KNOT, "nsd": NSD}[kind]
    config = folder / "config"
    config.write_text(
        template.format(folder=folder, address=address, port=port, zones="\n".join(listed))
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*prefix, *_COMMANDS[kind], str(config)], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log,
        )  # fmt: skip
        try:
            asked = "127.0.0.1" if address == "any" else address
            until(
                lambda: (
                    process.poll() is not None
                    or all(_serves(zone, asked, port, prefix) for zone in zones)
                ),
                deadline=20,
                what=f"{kind} serves",
            )
            assert process.poll() is None, (folder / "log").read_text()[-3000:]
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _serves(zone: str, address: str, port: int, prefix: Sequence[str]) -> bool:
    done = subprocess.run(
        [*prefix, "dig", f"@{address}", "-p", str(port), "+norec", "+tries=1", "+time=1", zone,
         "SOA"],
        capture_output=True, text=True, check=False, timeout=10,
    )  # fmt: skip
    return "status: NOERROR" in done.stdout and "ANSWER: 1," in done.stdout

"""What the lab needs of a machine.

Rule: asked before anything is built, by tests, demo and benchmarks alike, so that the answer is one
sentence and not a traceback.
"""

from __future__ import annotations

import os
import shutil

PACKAGES = {
    "dockerd": "docker.io",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "dig": "dnsutils",
    "kdig": "knot-dnsutils",
    "dnsmasq": "dnsmasq-base",
    "named": "bind9",
    "nsd": "nsd",
    "knotd": "knot",
    "unbound": "unbound",
    "ldns-compare-zones": "ldnsutils",
    "dnsperf": "dnsperf",
    "bird": "bird2",
    "vtysh": "frr",
    "gobgpd": "gobgpd",
    "host": "bind9-host",
    "delv": "bind9-dnsutils",
    "dnsviz": "dnsviz",
    "zonemaster-cli": "zonemaster-cli",
    "gcc": "gcc",
    "musl-gcc": "musl-tools",
    "ip": "iproute2",
    "iptables": "iptables",
    "nsenter": "util-linux",
    "/bin/busybox": "busybox-static",
}
"""Program -> the Debian 12 package that has it."""


def missing() -> str:
    """What is not there, in words; empty when the lab can be built."""
    if os.geteuid() != 0:
        return "it needs root: network namespaces and dockerds of its own"
    absent = [package for name, package in PACKAGES.items() if shutil.which(name) is None]
    if absent:
        return f"Debian packages are missing: apt-get install {' '.join(absent)}"
    return ""

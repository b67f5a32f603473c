"""Three whole hosts with a router between them: dockerd, etcd and discod, and BIRD as top-of-rack.

Rule: nothing but discod lets containers of different hosts meet. There are no static routes, both
of Docker's firewalls drop what is forwarded, and Docker hides sources, until discod is configured
to change that. Figures are printed with `PREFIX` in front, so that ``pytest -s`` shows them.
"""

from __future__ import annotations

import contextlib
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.lab import netns
from tests.lab.bgp.bird import Bird
from tests.lab.bgp.fabric import TOR, Site
from tests.lab.bgp.pods import Pod
from tests.lab.bgp.router import Neighbor
from tests.lab.bgp.watch import routes
from tests.lab.daemon import Config, Value, until
from tests.lab.engine import Engine
from tests.lab.netns import Namespace
from tests.lab.rig import Host, Lab, offer

PREFIX = "bgp-hosts:"
TOR_ASN = 64600
FIRST_ASN = 64512
HOLD = 3
"""Seconds; the least that RFC 4271 allows."""
DRAIN = 2.0
"""Seconds between telling routes as going away and withdrawing them."""
ANYCAST = "203.0.113.80"
ANYCAST6 = "2001:db8:a::80"
EVERYTHING = ["10.101.0.0/16 le 32", "203.0.113.0/24 le 32", "2001:db8::/32 le 128"]

# /cgi-bin/who answers with the address that the request came from.
WHO = (
    "mkdir -p /www/cgi-bin && echo {name} > /www/index.html && "
    "printf '#!/bin/sh\\nprintf \"Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n$REMOTE_ADDR\"\\n'"
    " > /www/cgi-bin/who && chmod +x /www/cgi-bin/who; exec httpd -f -p 8080 -h /www"
)


def say(text: str) -> None:
    """Show a figure."""
    print(f"{PREFIX} {text}")


class Unrouted(Lab):
    """A Lab whose hosts know no way to each other's containers, and whose Dockers shut the door."""

    def _start_engine(self, host: Host) -> None:
        others = [n for n in range(1, self._count + 1) if n != host.leg.n]
        host.space.ip(
            *(f"route del {netns.POD4}.{n}.0/24" for n in others),
            *(f"route del {netns.LAN6}:{n}::/64" for n in others),
        )
        # With forwarding off before it starts, dockerd sets the policy of FORWARD to DROP.
        host.space.sysctl(net__ipv4__ip_forward=0, net__ipv6__conf__all__forwarding=0)
        host.engine = Engine(
            host.engine.root, prefix=host.space.prefix, bip=host.leg.bip, cidr6=host.leg.pods6,
            extra=("--experimental", "--ip6tables"),
        )  # fmt: skip
        self._stack.callback(host.engine.close)
        host.engine.start()
        host.engine.import_busybox()
        for program in ("iptables", "ip6tables"):
            assert "-P FORWARD DROP" in host.space.sh(program, "-w", "-S", "FORWARD"), program


class TopOfRack(Bird):
    """A Bird in the middle of all traffic: it names itself as the next hop of what it hands on,
    which it would not do for hosts on one switch (RFC 4271, 5.1.3)."""

    def _protocol(self, one: Neighbor) -> str:
        return super()._protocol(one).replace("next hop address", "next hop self; next hop address")


class World:
    """The hosts, the router, and what they are configured to be to one another.

    Args:
        lab: `Unrouted`, whose daemons do not run yet.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = lab.hosts
        self.shape = ""
        self._bare = {host.name: dict(host.discod.config) for host in lab.hosts}
        lan = lab.hosts[0].leg.lan
        site = Site(Namespace(f"{lab.name}-h{TOR}"), lan, TOR, lab.root / f"h{TOR}")
        _build(site)
        neighbors = [
            Neighbor(host.leg.ipv4, asn(host), hold_time=HOLD, restart_time=60)
            for host in lab.hosts
        ]
        self.tor = TopOfRack(site, TOR_ASN, neighbors, install=True, transit=True)
        self.before: dict[str, dict[str, list[str]]] = {}

    def close(self) -> None:
        """End the router; the lab ends the rest."""
        self.tor.stop()

    # Shapes -------------------------------------------------------------------------------------

    def become(self, shape: str, **more: Value) -> None:
        """Have another configuration everywhere: ``none``, ``tor`` or ``mesh``; `more` is of [bgp].

        What the earlier one left on the hosts is cleaned up between, as an operator would.
        """
        wanted = f"{shape} {sorted(more.items())}"
        if wanted == self.shape:
            return
        self.shape = ""
        for host in self.hosts:
            host.discod.stop()
        self.tor.stop()
        for host in self.hosts:
            if "bgp" in host.discod.config:
                self.clean(host)
            self.configure(host, shape, **more)
        if shape == "tor":
            self.tor.again = False
            self.tor.start()
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            list(pool.map(lambda host: host.discod.start(), self.hosts))
        self.shape = wanted
        if shape == "tor":
            self.tor.established()

    def configure(self, host: Host, shape: str, **more: Value) -> None:
        """Write one host's configuration; the daemon has to be restarted."""
        config: dict[str, Mapping[str, Value]] = dict(self._bare[host.name])
        config["announce"] = {**config["announce"], "address": "container"}
        tail = ""
        if shape != "none":
            bgp: dict[str, Value] = {
                "asn": asn(host) if shape == "tor" else FIRST_ASN,
                "networks": [host.leg.pods4, host.leg.pods6],
                "anycast_allow": ["203.0.113.0/24", "2001:db8:a::/64"],
                "drain": f"{DRAIN:g}s",
                "mesh": shape == "mesh",
                **more,
            }
            config["bgp"] = bgp
        if shape == "tor":
            lists = repr(EVERYTHING).replace("'", '"')
            tail = (
                f'[[bgp.peer]]\nname = "tor"\naddress = "{self.tor.site.ipv4}"\nasn = {TOR_ASN}\n'
                f"hold_time = {HOLD}\nimports = {lists}\nexports = {lists}\n"
            )
        host.discod.config = config
        host.discod.tail = tail
        host.discod.write()

    def clean(self, host: Host) -> str:
        """`discod bgp cleanup`; what it says."""
        done = host.discod.cli("bgp", "cleanup", "--config", str(host.discod.file))
        assert done.returncode == 0, done.stderr
        return done.stdout

    # Containers ---------------------------------------------------------------------------------

    def pod(self, host: Host, name: str, service: str = "", anycast: str = "") -> Pod:
        """Start a container that offers its port 8080, at fixed addresses too."""
        more = {"anycast": anycast} if anycast else {}
        box = host.engine.box(
            name, offer(service or name, 8080, **more), "sh", "-c", WHO.format(name=name)
        )
        return Pod(host, box)

    def pods(self) -> list[Pod]:
        """One container on each host."""
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            return list(pool.map(lambda host: self.pod(host, f"web-{host.name}"), self.hosts))

    def clear(self) -> None:
        """Take all containers away."""
        self.lab.clear()

    def peer(self, host: Host) -> str:
        """A host as the router calls it."""
        return host.leg.ipv4

    # Looking ------------------------------------------------------------------------------------

    def everyone_has(self, pod: Pod, deadline: float = 15.0) -> None:
        """Wait until the other hosts' kernels lead to a container, in both families."""
        for host in self.hosts:
            if host is not pod.host:
                for address in (pod.box.ipv4, pod.box.ipv6):
                    until(
                        lambda host=host, address=address: routes(host.space, address),  # type: ignore[misc]
                        deadline=deadline,
                        what=f"route to {address} on {host.name}",
                    )

    def snapshot(self, host: Host) -> dict[str, list[str]]:
        """What BGP may change on a host, in words that are the same when nothing changed."""
        sh = host.space.sh
        return {
            "routes": _lines(sh("ip", "-4", "route", "show", "table", "all")),
            "routes6": [
                line
                for line in _lines(sh("ip", "-6", "route", "show", "table", "all"))
                if not line.startswith(("fe80:", "anycast fe80:", "local fe80:", "multicast"))
            ],
            "addresses": _lines(sh("ip", "-o", "addr", "show", "dev", "lo")),
            "iptables": _rules(sh("iptables-save")),
            "ip6tables": _rules(sh("ip6tables-save")),
            "nft": _rules(sh("nft", "-s", "list", "tables")),
            "neighbours": _lines(sh("ip", "neigh", "show", "proxy")),
            "settings": _lines(
                sh("sh", "-c", "cd /proc/sys/net && grep -H . ipv4/ip_forward "
                   "ipv4/conf/*/forwarding ipv6/conf/*/forwarding ipv4/conf/*/proxy_arp "
                   "ipv6/conf/*/proxy_ndp ipv4/conf/*/rp_filter ipv4/fib_multipath_hash_policy")
            ),
        }  # fmt: skip


def asn(host: Host) -> int:
    """A host's own AS number, for a router that hands on what it learns."""
    return FIRST_ASN + host.leg.n


def _lines(out: str) -> list[str]:
    return sorted(re.sub(r" (linkdown|expires \d+sec|pref medium)", "", x).strip()
                  for x in out.splitlines() if x.strip())  # fmt: skip


def _rules(out: str) -> list[str]:
    return [re.sub(r"\[\d+:\d+\]", "", x).strip() for x in out.splitlines() if x[:1] != "#"]


def _build(site: Site) -> None:
    netns.ip(f"netns add {site.space.name}")
    site.space.sysctl(
        # It sends packets out where they came in; hosts that take redirects would go around it.
        net__ipv4__conf__all__send_redirects=0,
        net__ipv4__conf__default__send_redirects=0,
        # Connections, not hosts, are spread over equal paths.
        net__ipv4__fib_multipath_hash_policy=1,
        net__ipv6__fib_multipath_hash_policy=1,
    )
    site.build()


def figures(name: str, seconds: Sequence[float]) -> float:
    """Show median and extremes in ms; the median in seconds."""
    median = statistics.median(seconds)
    say(
        f"{name}: median {median * 1e3:.1f} ms, least {min(seconds) * 1e3:.1f},"
        f" most {max(seconds) * 1e3:.1f} (n={len(seconds)})"
    )
    return median


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Everything, with discod not yet started, and the hosts as they were before it noted."""
    config: Config = {"log": {"level": "info"}}
    with Unrouted(3, memory=True, config=config, discod=False) as lab:
        made = World(lab)
        made.before = {host.name: made.snapshot(host) for host in made.hosts}
        try:
            yield made
        finally:
            made.close()

"""BGP in the daemon: there where it is configured, and nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from announcer.inspect import local_subnets
from discod import tables_bgp
from discod.cli import main
from discod.explain import explain
from discod.http import build_app
from discod.metrics import Metrics
from discod.model.endpoint import Address
from discod.tables import Page
from tests.unit.fake_view import NOW, WEB1, FakeView
from tests.unit.test_bgp_service import PEER, Rig

ROOT = Path(__file__).parents[2]
ROUTE = {
    "prefix": "10.101.2.2/32",
    "next_hops": ("192.0.2.2",),
    "peers": ("tor",),
    "as_path": "64600",
    "installed": True,
}
IMPORTS = """
import random, sys
from ipaddress import ip_address
from pathlib import Path
import discod.daemon
from discod.cli import main
from discod.config import parse_config
from discod.keeper import Keeper
from discod.metrics import Metrics
from discod.model.endpoint import Host
from discod.model.schema import Keyspace
from discod.routing import Routing

class Offers:
    def listen(self, call):
        pass
    def running(self):
        return iter(())

settings = parse_config(sys.stdin.read(), origin="x")
keeper = Keeper(Keyspace(), wall=lambda: 0.0, monotonic=lambda: 0.0, metrics=Metrics())
host = Host("alpha", (ip_address("192.0.2.1"),))
rest = (keeper, Offers(), Metrics(), Path("/nonexistent"), random.Random(1), lambda: None)
routing = Routing(settings.bgp, host, *rest)
imported = any(name.partition(".")[0] == "calico_bgp" for name in sys.modules)
print(routing.record is not None, imported)
"""


@dataclass
class FakeBgp:
    """What the API sees."""

    found: dict[str, Any] = field(default_factory=lambda: Rig().service.status())
    has: frozenset[Address] = frozenset()

    def status(self) -> dict[str, Any]:
        return self.found

    def peers(self) -> list[dict[str, Any]]:
        return [PEER._asdict()]

    def routes(self) -> list[dict[str, Any]]:
        return [ROUTE]

    def announced(self, address: Address) -> bool:
        return address in self.has


async def get(view: FakeView, path: str) -> tuple[int, Any]:
    """One request to the application."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "headers": []}
    scope |= {"raw_path": path.encode(), "query_string": b""}
    await build_app(view, Metrics())(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body)


@pytest.mark.parametrize(("text", "found"), [("", "False"), ("[bgp]\nasn = 64512", "True")])
def test_without_its_table_nothing_of_bgp_is_imported(text: str, found: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        input=text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == [found, found], done.stderr


async def test_without_bgp_its_api_says_so() -> None:
    for path in ("status", "peers", "routes"):
        status, document = await get(FakeView(), f"/v1/bgp/{path}")
        assert status == 404
        assert "[bgp]" in document["error"]["expected"]


async def test_the_documents_and_their_tables() -> None:
    view = FakeView(bgp=FakeBgp())
    page = Page(NOW)
    status, document = await get(view, "/v1/bgp/status")
    assert (status, document["host"], document["asn"]) == (200, "alpha", 64512)
    assert "AS 64512" in tables_bgp.status(page, document)
    assert "ok      net.ipv4.ip_forward: 1" in tables_bgp.status(page, document)
    status, document = await get(view, "/v1/bgp/peers")
    assert document["peers"][0]["families"] == ["ipv4"]
    assert "192.0.2.254" in tables_bgp.peers(page, document)
    assert "Established" in tables_bgp.peers(page, document)
    status, document = await get(view, "/v1/bgp/routes")
    row = tables_bgp.routes(page, document).splitlines()[1].split()
    assert row == ["10.101.2.2/32", "192.0.2.2", "yes", "64600", "tor"]
    assert tables_bgp.routes(page, {"routes": []}) == "no routes learned"
    assert tables_bgp.peers(page, {"peers": []}) == "no peers"


def test_explain_says_whether_it_is_announced() -> None:
    view = FakeView()

    def notes(bgp: FakeBgp | None) -> str:
        found = explain(
            "web-1",
            catalog=view.catalog,
            producers=view.producers(),
            store=view.store,
            parts=view.parts(),
            host="alpha",
            bgp=bgp,
        )
        return "\n".join(found.notes)

    there = f"{WEB1.address}/32 is announced over BGP: 1 of 1 peers are established"
    assert there in notes(FakeBgp(has=frozenset({WEB1.address})))
    assert f"{WEB1.address}/32 is not announced over BGP" in notes(FakeBgp())
    assert "BGP" not in notes(None)


def test_the_commands_are_there() -> None:
    found = CliRunner().invoke(main, ["bgp", "--help"])
    assert found.exit_code == 0
    for command in ("status", "peers", "routes", "cleanup"):
        assert f"  {command} " in found.output
    found = CliRunner().invoke(main, ["bgp", "peers", "--api", "unix:/nonexistent/api.sock"])
    assert found.exit_code == 3


def test_dockers_networks_of_this_host_alone() -> None:
    documents = [
        {"Driver": "bridge", "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}, {"Subnet": "x"}]}},
        {"Driver": "bridge", "IPAM": {"Config": [{"Subnet": "2001:db8:1::/64"}, None]}},
        {"Driver": "bridge", "IPAM": {"Config": None}},
        {"Driver": "overlay", "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}},
        {"Driver": "host"},
        "nonsense",
    ]
    found = (ip_network("172.17.0.0/16"), ip_network("2001:db8:1::/64"))
    assert local_subnets(documents) == found
    assert local_subnets(None) == ()


# Configurations of others --------------------------------------------------------------------


def accepted(*argv: str | Path) -> bool:
    return subprocess.run(argv, capture_output=True, timeout=30).returncode == 0


def test_bird_and_frr_accept_their_configurations(tmp_path: Path) -> None:
    """And would not accept just anything."""
    for name, argv, right, wrong in (
        ("bird/discod.conf", ("bird", "-p", "-c"), "bfd on;", "bfd onn;"),
        ("frr/discod.conf", ("vtysh", "-C", "-f"), "timers 3 9", "tmers 3 9"),
    ):
        path = ROOT / "deploy" / name
        assert accepted(*argv, path), name
        other = tmp_path / "wrong.conf"
        other.write_text(path.read_text().replace(right, wrong))
        assert not accepted(*argv, other), name

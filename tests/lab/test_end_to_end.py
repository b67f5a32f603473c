"""One host, from `docker run` to dig: every way to offer an endpoint, and every record of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.daemon import COMMAND, Config, environment, until
from tests.lab.engine import POLITE, Box
from tests.lab.rig import DOMAIN, Host, Lab, offer

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", params=["memory", "etcd"])
def thin(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One host, on each of the two stores."""
    with Lab(1, etcd=request.param == "etcd") as lab:
        yield lab


def instance(host: Host, box: Box, port: int = 8080, tail: str = "") -> str:
    return f"{host.name}-{box.short}-{port}{tail}"


def shown(host: Host, name: str, rtype: str, *options: str) -> str:
    """The whole of dig's answer, in one line a record with single spaces."""
    out = host.space.sh("dig", f"@{host.leg.ipv4}", name, rtype, "+tries=1", *options)
    return "\n".join(" ".join(line.split()) for line in out.splitlines())


def test_one_container_one_dig(thin: Lab) -> None:
    host = thin.hosts[0]
    box = host.engine.box("web1", offer("web", port_name="http", tags="blue,v2"))
    until(lambda: host.dig("web") == [box.ipv4], what="web in DNS")
    target = f"{instance(host, box)}.web.{DOMAIN}."
    assert host.dig("web", "AAAA") == [box.ipv6]
    assert host.dig("_http._tcp.web", "SRV") == [f"10 100 8080 {target}"]
    assert host.dig(f"{instance(host, box)}.web") == [box.ipv4]
    assert host.dig("blue.web") == host.dig("v2.web") == [box.ipv4]
    assert host.dig("green.web") == []
    assert host.dig_ptr(box.ipv4) == [target]
    (reverse,) = host.dig_ptr(box.ipv6)
    assert host.dig(reverse, "AAAA") == [box.ipv6]
    assert host.dig("a.node") == [host.leg.ipv4]
    assert host.dig("a.node", "AAAA") == [host.leg.ipv6]
    assert host.get(box.ipv4) == "web1"

    answer = shown(host, f"_http._tcp.web.{DOMAIN}", "SRV")
    assert "status: NOERROR" in answer
    assert " aa " in answer
    additional = answer.partition("ADDITIONAL SECTION")[2]
    assert f"{target} 0 IN A {box.ipv4}" in additional
    assert f"{target} 0 IN AAAA {box.ipv6}" in additional

    host.engine.drop(box)
    until(lambda: host.dig("web") == [], what="web out of DNS")
    gone = shown(host, f"web.{DOMAIN}", "A")
    assert "status: NXDOMAIN" in gone
    assert f"{DOMAIN}. 0 IN SOA" in gone


def test_negative_answers_and_tcp(thin: Lab) -> None:
    host = thin.hosts[0]
    box = host.engine.box("neg", offer("neg"))
    until(lambda: host.dig("neg") == [box.ipv4])
    assert "status: NXDOMAIN" in shown(host, f"nothing.{DOMAIN}", "A")
    nodata = shown(host, f"neg.{DOMAIN}", "MX")
    assert "status: NOERROR" in nodata
    assert "IN SOA" in nodata
    assert f"neg.{DOMAIN}. 0 IN A {box.ipv4}" in shown(host, f"neg.{DOMAIN}", "A", "+tcp")
    soa = shown(host, DOMAIN, "SOA", "+short")
    assert soa.split()[-1] == "0", "negative answers must not be cached"
    assert shown(host, DOMAIN, "NS", "+short")
    mixed = shown(host, "NeG.dIscod.INTERNAL", "A")
    assert f"NeG.dIscod.INTERNAL. 0 IN A {box.ipv4}" in mixed


def test_kdig_agrees(one: Lab) -> None:
    host = one.hosts[0]
    box = host.engine.box("kd", offer("kd"))
    until(lambda: host.dig("kd") == [box.ipv4])
    for transport in ("+notcp", "+tcp"):
        out = host.space.sh(
            "kdig", f"@{host.leg.ipv4}", f"kd.{DOMAIN}", "A", transport, "+short", "+bufsize=1232"
        )
        assert out.split() == [box.ipv4]


def test_registrator_words(one: Lab) -> None:
    host = one.hosts[0]
    engine = host.engine
    by_env = engine.box("by-env", {}, env={"SERVICE_NAME": "env", "SERVICE_TAGS": "x"}, expose=[80])
    by_label = engine.box("by-label", {"SERVICE_80_NAME": "lab"}, expose=[80, 81])
    ignored = engine.box("ignored", {"SERVICE_NAME": "ign", "SERVICE_IGNORE": "true"}, expose=[80])
    until(lambda: host.dig("x.env") == [by_env.ipv4])
    until(lambda: host.dig("lab") == [by_label.ipv4])
    assert host.dig("ign") == []
    assert "ignore" in json.dumps(host.discod.api(f"/v1/explain?q={ignored.name}")).lower()


def test_compose_labels_are_the_default_name(one: Lab) -> None:
    host = one.hosts[0]
    labels = {
        "com.docker.compose.project": "shop",
        "com.docker.compose.service": "cart",
        "com.docker.compose.container-number": "1",
    }
    box = host.engine.box("shop_cart_1", labels, expose=[8080])
    until(lambda: host.dig("cart") == [box.ipv4], what="cart by its Compose name")


def test_several_ports_and_udp(one: Lab) -> None:
    host = one.hosts[0]
    box = host.engine.box(
        "dual",
        {
            "discod.port": "53/udp,53/tcp",
            "discod.53-udp.name": "names",
            "discod.53-udp.port-name": "dns",
            "discod.53-tcp.name": "names-tcp",
            "discod.53-tcp.port-name": "dns",
        },
    )
    until(lambda: host.dig("names") == host.dig("names-tcp") == [box.ipv4])
    assert host.dig("_dns._udp.names", "SRV") == [
        f"10 100 53 {instance(host, box, 53, '-udp')}.names.{DOMAIN}."
    ]
    assert host.dig("_dns._tcp.names", "SRV") == []
    assert len(host.dig("_dns._tcp.names-tcp", "SRV")) == 1


def test_host_network(one: Lab) -> None:
    host = one.hosts[0]
    host.engine.box("on-host", offer("onhost", 8088), port=8088, network="host")
    wanted = sorted([host.leg.ipv4, host.leg.ipv6])
    until(lambda: host.addresses("onhost") == wanted, what="the host's addresses")
    assert host.get(host.leg.ipv4, 8088) == "on-host"


def test_published_port(one: Lab) -> None:
    host = one.hosts[0]
    box = host.engine.box("pub", offer("pub"), expose=[8080], publish={8080: 18080})
    until(lambda: host.leg.ipv4 in host.addresses("pub"), what="the host's address")
    (srv, *_) = host.dig("pub", "SRV")
    assert srv.split()[2] == "18080"
    assert host.get(host.leg.ipv4, 18080) == "pub"
    direct = host.engine.box(
        "own", offer("own", address="container"), expose=[8080], publish={8080: 18081}
    )
    until(lambda: host.addresses("own") == sorted([direct.ipv4, direct.ipv6]))
    assert box.ipv4 not in host.addresses("pub")


def test_network_is_chosen_and_never_alternates(one: Lab) -> None:
    host = one.hosts[0]
    client = host.engine.client
    for name in ("front", "back"):
        client.create_network(name)
    chosen = host.engine.box("chosen", offer("chosen", network="back"), network="front")
    client.connect_container_to_network(chosen.id, "back")
    unsaid = host.engine.box("unsaid", offer("unsaid"), network="front")
    client.connect_container_to_network(unsaid.id, "back")
    back = [host.engine.address(box.id, "back") for box in (chosen, unsaid)]
    until(lambda: host.dig("chosen") == [back[0]], what="the network its label names")
    until(lambda: host.dig("unsaid") == [back[1]], what="the first network by name")
    with one.poller("unsaid", interval=0.005) as poller:
        poller.wait(lambda answer: answer.addresses == (back[1],))
        client.disconnect_container_from_network(chosen.id, "front")
        host.engine.exec(unsaid, "true")
        until(lambda: poller.tracks["a"].answered > 50)
        assert len(poller.tracks["a"].changes) == 1
    assert host.dig("chosen") == [back[0]]


def test_static_service_and_announce() -> None:
    static = '[[service]]\nname = "db"\nport = 5432\ntags = ["primary"]\n'
    with Lab(1, etcd=False, tail=static) as lab:
        host = lab.hosts[0]
        until(lambda: host.dig("primary.db") == [host.leg.ipv4])
        (srv,) = host.dig("_5432._tcp.db", "SRV")
        assert srv.startswith("10 100 5432 a-db-5432.db.")
        producer = subprocess.Popen(
            [
                *host.space.prefix, *COMMAND, "announce", "--name", "job", "--port", "9000",
                "--", "sleep", "3600",
            ],
            env={**environment(), "DISCOD_API": f"unix:{host.discod.runtime}/api.sock"},
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until(lambda: host.dig("job") == [host.leg.ipv4], what="job while its command lives")
        finally:
            producer.terminate()
            producer.wait(10)
        until(lambda: host.dig("job") == [], what="job gone with its command")
        assert host.dig("primary.db") == [host.leg.ipv4]


def test_what_a_container_says_of_its_answers(one: Lab) -> None:
    host = one.hosts[0]
    labels = offer("said", ttl="30", alpn="h2,http/1.1", prefer="local")
    box = host.engine.box("said", labels)
    until(lambda: host.dig("said") == [box.ipv4])
    four, _ = host.discod.api("/v1/services/said")["up"]
    assert (four["ttl"], four["alpn"], four["prefer"]) == (30, ["h2", "http/1.1"], "local")
    stored = json.loads(one.etcdctl("get", "--print-value-only", record("said", four["instance"])))
    assert stored["ttl"] == 1
    assert stored["discod"]["ttl"] == 30
    wrong = host.engine.box("wrong", offer("wrong", ttl="30s", prefer="near"))
    text = json.dumps(host.discod.api(f"/v1/explain?q={wrong.name}"))
    assert "discod.ttl = '30s'" in text
    assert "discod.prefer = 'near'" in text


def record(service: str, instance: str) -> str:
    return f"/skydns/internal/discod/{service}/{instance}"


def test_aliases_are_announced_kept_and_taken_back() -> None:
    """From the configuration to the store, over a restart and a stranger's hand, to a reload."""
    tail = '[announce.aliases]\nsearch = "www.example.com"\ndb = "postgres"\n'
    with Lab(1, tail=tail) as lab:
        host = lab.hosts[0]
        key = record("search", "a-alias-0")

        def stored() -> dict[str, object]:
            value = lab.etcdctl("get", "--print-value-only", key)
            return json.loads(value) if value.strip() else {}

        def target(name: str) -> str | None:
            rows = host.discod.api("/v1/services")["services"]
            return next((row["alias"] for row in rows if row["name"] == name), None)

        until(lambda: target("search") == "www.example.com", what="the alias in the Catalog")
        assert target("db") == f"postgres.{DOMAIN}"
        until(lambda: host.dig("search", "CNAME") == ["www.example.com."], what="the CNAME")
        value = stored()
        assert (value["host"], value["ttl"]) == ("www.example.com", 1)  # what CoreDNS reads
        verdict = host.discod.api("/v1/explain?q=search")["verdict"]
        assert verdict.startswith("search is in DNS: search/a-alias-0, alias of www.example.com")

        lab.etcdctl("del", key)
        until(lambda: stored() == value, what="a deleted alias is back")

        host.discod.terminate()
        assert stored() == value
        host.discod.start()
        until(lambda: target("search") == "www.example.com")
        assert {**stored(), "discod": {}} == {**value, "discod": {}}

        host.discod.tail = tail.replace("search", "find")
        host.discod.write()
        host.discod.reload()
        until(lambda: (target("search"), target("find")) == (None, "www.example.com"))
        until(lambda: stored() == {}, what="the old alias gone from the store")


def test_policy_and_required_label() -> None:
    config: Config = {"announce": {"deny": ["secret*"], "require_label": True}}
    with Lab(1, etcd=False, config=config) as lab:
        host = lab.hosts[0]
        host.engine.box("claims", offer("secret-db"))
        host.engine.box("silent", {}, expose=[80])
        open_ = host.engine.box("open", offer("open"))
        until(lambda: host.dig("open") == [open_.ipv4])
        assert host.dig("secret-db") == []
        assert [entry[0] for entry in host.catalog()] == ["open", "open"]
        assert "deny" in json.dumps(host.discod.api("/v1/explain?q=claims"))
        assert "label" in json.dumps(host.discod.api("/v1/explain?q=silent"))


def test_a_container_that_ends_at_once_leaves_nothing(one: Lab) -> None:
    host = one.hosts[0]
    for n in range(10):
        host.engine.run("true", name=f"brief{n}", labels=offer("brief"))
    polite = host.engine.box(
        "late", offer("late"), "sh", "-c", POLITE.format(name="late", port=8080, linger=0)
    )
    until(lambda: host.dig("late") == [polite.ipv4])
    until(lambda: host.dig("brief") == [], what="no container that has ended is in DNS")
    assert [entry for entry in host.catalog() if entry[0] == "brief"] == []

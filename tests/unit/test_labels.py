"""`announcer.reading` and its two dialects: from labels and variables to endpoints."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from announcer import discod_labels, registrator
from announcer.container import Attachment, Container, Publication, Status
from announcer.metadata import FAULTS_MAX
from announcer.offer import Offer, Reading, Scope
from announcer.reading import read
from discod.model.endpoint import Address, Endpoint, Producer, Protocol, Refusal
from discod.model.names import is_label, is_port_name, service_fault
from discod.model.schema import (
    Keyspace,
    decode_record,
    decode_refusal,
    encode_endpoint,
    encode_refusal,
)
from discod.model.settings import AnnounceSettings, Check, CheckSettings
from discod.model.vip import VipWish, VipWord

ID = "0123456789ab" + "c" * 52
CHECKS = CheckSettings(interval=7.0, timeout=3.0, rise=2, fall=4)
SCOPE = Scope(
    "h1", (ip_address("192.0.2.1"), ip_address("2001:db8::1")), AnnounceSettings(), CHECKS
)
NETWORK = Attachment("front", "n1", IPv4Address("10.101.1.2"), IPv6Address("2001:db8:1::2"))
WEB = Container(
    id=ID,
    name="shop-web-1",
    image="registry:5000/team/my_web:1.2",
    status=Status.RUNNING,
    started=1000.5,
    network_mode="front",
    attachments=(NETWORK,),
)


def publish(port: int, host_port: int, address: str | None = "0.0.0.0") -> Publication:
    return Publication(port, "tcp", ip_address(address) if address else None, host_port)


def exposing(*ports: str, **labels: str) -> Container:
    """A container with these exposed ports; ``SERVICE_NAME=x`` or, for discod, ``name=x``."""
    found: list[tuple[int, Protocol]] = []
    for port in ports:
        number, _, protocol = port.partition("/")
        found.append((int(number), "udp" if protocol == "udp" else "tcp"))
    return replace(WEB, exposed=tuple(sorted(found)), labels=tuple(labels.items()))


def labelled(labels: dict[str, str], *ports: str, env: dict[str, str] | None = None) -> Container:
    container = exposing(*(ports or ("80",)))
    return replace(container, labels=tuple(labels.items()), env=tuple((env or {}).items()))


def announcing(**settings: Any) -> Scope:
    return replace(SCOPE, announce=AnnounceSettings(**settings))


def endpoints(container: Container, scope: Scope = SCOPE, **other: Any) -> list[Endpoint]:
    reading = read(container, scope, **other)
    assert reading.faults == ()
    assert reading.silent == ""
    return [offer.endpoint for offer in reading.offers]


def v4(container: Container, scope: Scope = SCOPE) -> list[Endpoint]:
    return [e for e in endpoints(container, scope) if e.address.version == 4]


def names(container: Container, scope: Scope = SCOPE) -> list[str]:
    return [e.service for e in v4(container, scope)]


def faults(container: Container, scope: Scope = SCOPE) -> dict[str, str]:
    reading = read(container, scope)
    assert reading.offers == ()
    assert reading.silent == ""
    assert reading.faults
    return {f.subject: f.expected for f in reading.faults}


def silent(container: Container, scope: Scope = SCOPE, **other: Any) -> str:
    reading = read(container, scope, **other)
    assert reading == Reading(silent=reading.silent)
    assert reading.silent
    return reading.silent


def check(container: Container) -> Check | None:
    reading = read(container, SCOPE)
    assert reading.faults == ()
    return reading.offers[0].check


# Whole endpoints --------------------------------------------------------------------------------


def test_a_complete_dual_stack_endpoint() -> None:
    container = labelled(
        {
            "discod.name": "web",
            "discod.port-name": "http",
            "discod.tags": "blue, v2,blue",
            "discod.weight": "5",
            "discod.priority": "20",
            "discod.ttl": "30",
            "discod.alpn": "h2, http/1.1",
            "discod.prefer": "zone",
            "discod.attr.team": "shop",
            "SERVICE_OWNER": "me",
            "SERVICE_ID": "first",
        }
    )
    one = Endpoint(
        service="web",
        instance="h1-0123456789ab-80",
        address=ip_address("10.101.1.2"),
        port=80,
        protocol="tcp",
        port_name="http",
        tags=("blue", "v2", "first"),
        weight=5,
        priority=20,
        attributes=(("owner", "me"), ("team", "shop")),
        host="h1",
        container=ID,
        container_name="shop-web-1",
        producer=Producer.DOCKER,
        since=1000.5,
        ttl=30,
        alpn=("h2", "http/1.1"),
        prefer="zone",
    )
    six = replace(
        one,
        instance="h1-0123456789ab-80-v6",
        address=ip_address("2001:db8:1::2"),
        target="h1-0123456789ab-80",
    )
    assert endpoints(container) == [one, six]


def test_defaults() -> None:
    (one,) = v4(exposing("53/udp"))
    assert (one.service, one.instance, one.port_name) == ("my-web", "h1-0123456789ab-53-udp", "53")
    assert (one.protocol, one.weight, one.priority, one.tags) == ("udp", 100, 10, ())
    assert (one.ttl, one.alpn, one.prefer) == (0, (), None)


def test_what_answers_shall_be_like_can_be_said_of_one_port() -> None:
    labels = {
        "discod.ttl": "60",
        "discod.prefer": "local",
        "discod.443.ttl": "0",
        "discod.443.alpn": "h2",
        "discod.80.prefer": "none",
    }
    plain, tls = v4(labelled(labels, "80", "443"))
    assert (plain.ttl, plain.alpn, plain.prefer) == (60, (), "none")
    assert (tls.ttl, tls.alpn, tls.prefer) == (0, ("h2",), "local")


@pytest.mark.parametrize(
    ("label", "value", "words"),
    [
        ("ttl", "", "a whole number from 0 to 604800"),
        ("ttl", "-1", "a whole number from 0 to 604800"),
        ("ttl", "604801", "a whole number from 0 to 604800"),
        ("ttl", "30s", "a whole number from 0 to 604800"),
        ("alpn", "", "ALPN ids of 1 to 32"),
        ("alpn", "h2,,h3", "ALPN ids of 1 to 32"),
        ("alpn", "h2,h2", "each once"),
        ("alpn", "h 2", "ALPN ids of 1 to 32"),
        ("alpn", ",".join(f"p{n}" for n in range(17)), "at most 16"),
        ("prefer", "", "none, local or zone"),
        ("prefer", "Local", "none, local or zone"),
        ("prefered", "local", "did you mean 'prefer'?"),
    ],
)
def test_what_answers_shall_be_like_is_checked(label: str, value: str, words: str) -> None:
    for key in (f"discod.{label}", f"discod.80.{label}"):
        (fault,) = read(labelled({key: value}, "80"), SCOPE).faults
        assert (fault.subject, fault.value) == (key, value)
        assert words in fault.expected


# Names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("web", "web"),
        ("web:1.2", "web"),
        ("registry:5000/team/web", "web"),
        ("team/web@sha256:" + "0" * 64, "web"),
        ("Team/My_Web.App:2", "my-web-app"),
        ("a" * 100, "a" * 63),
    ],
)
def test_default_name_from_image(image: str, name: str) -> None:
    assert names(replace(exposing("80"), image=image)) == [name]
    several = names(replace(exposing("80", "443"), image=image))
    assert several == [f"{name[:60]}-80", f"{name[:59]}-443"]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("sha256:" + "0" * 64, "no name can be made"),
        ("", "no name can be made"),
        ("日本", "no name can be made"),
        ("node:18", "'node' is reserved"),
    ],
)
def test_a_default_name_is_never_a_fault(image: str, reason: str) -> None:
    assert reason in silent(replace(exposing("80"), image=image))


def test_compose_name_is_one_service_for_all_ports() -> None:
    container = labelled({"com.docker.compose.service": "Shop_Front"}, "80", "443")
    assert names(container) == ["shop-front", "shop-front"]
    assert [e.port_name for e in v4(container)] == ["80", "443"]


def test_registrator_groups_and_discod_does_not() -> None:
    assert names(labelled({"SERVICE_NAME": "web"}, "80")) == ["web"]
    assert names(labelled({"SERVICE_NAME": "web"}, "80", "443")) == ["web-80", "web-443"]
    assert names(labelled({"discod.name": "web"}, "80", "443")) == ["web", "web"]
    both = labelled({"SERVICE_NAME": "web", "SERVICE_443_NAME": "tls"}, "80", "443")
    assert names(both) == ["web-80", "tls"]
    ignoring = labelled({"SERVICE_NAME": "web", "SERVICE_443_IGNORE": "true"}, "80", "443")
    assert names(ignoring) == ["web-80"]  # Registrator counts ignored ports, too


@pytest.mark.parametrize(
    ("labels", "env", "name"),
    [
        ({}, {"SERVICE_NAME": "env"}, "env"),
        ({"SERVICE_NAME": "label"}, {"SERVICE_NAME": "env"}, "label"),
        ({"SERVICE_NAME": "label"}, {"SERVICE_80_NAME": "env-port"}, "env-port"),
        ({"SERVICE_80_NAME": "port", "discod.name": "own"}, {}, "own"),
        ({"discod.80.name": "own-port", "discod.name": "own"}, {}, "own-port"),
        ({"discod.80-tcp.name": "own-port", "SERVICE_80_NAME": "x"}, {}, "own-port"),
        ({"com.docker.compose.service": "compose", "SERVICE_NAME": "web"}, {}, "web"),
        ({"SERVICE_name": "lower"}, {}, "lower"),
    ],
)
def test_precedence(labels: dict[str, str], env: dict[str, str], name: str) -> None:
    assert names(labelled(labels, env=env)) == [name]


BAD_NAMES = [
    "",
    " ",
    "Web",
    "ünï",
    "a" * 1000,
    "a\nb",
    "*",
    "any",
    "dns",
    "node",
    "-a",
    "a.b",
    "a_b",
]


@pytest.mark.parametrize(
    "key", ["discod.name", "discod.80.name", "SERVICE_NAME", "SERVICE_80_NAME"]
)
@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_faults(key: str, name: str) -> None:
    assert list(faults(labelled({key: name}))) == [key]
    if key.startswith("SERVICE"):
        assert list(faults(labelled({}, env={key: name}))) == [key]


def test_upper_case_says_what_to_write() -> None:
    assert faults(labelled({"discod.name": "Web"})) == {
        "discod.name": "upper case is not allowed in a name, write 'web'"
    }


def test_a_grouped_name_that_grows_too_long() -> None:
    container = labelled({"SERVICE_NAME": "a" * 62}, "80", "443")
    assert "with several ports the name is" in faults(container)["SERVICE_NAME"]


# Policy -----------------------------------------------------------------------------------------


def test_policy_refuses_written_names_and_silences_default_ones() -> None:
    scope = announcing(allow=("web*",), deny=("web-x",))
    assert names(labelled({"discod.name": "web-y"}), scope) == ["web-y"]
    assert "announce.deny" in faults(labelled({"discod.name": "web-x"}), scope)["discod.name"]
    assert "announce.allow" in faults(labelled({"SERVICE_NAME": "db"}), scope)["SERVICE_NAME"]
    assert "announce.allow" in silent(exposing("80"), scope)


def test_require_label() -> None:
    scope = announcing(require_label=True)
    assert "require_label" in silent(exposing("80"), scope)
    assert "require_label" in silent(labelled({"com.docker.compose.service": "a"}), scope)
    assert names(labelled({}, env={"SERVICE_NAME": "web"}), scope) == ["web"]
    assert names(labelled({"SERVICE_80_NAME": "web"}, "80", "443"), scope) == ["web"]
    assert names(labelled({"discod.80.name": "web"}, "80", "443"), scope) == ["web"]
    # What is wrong with discod's own labels is always told; SERVICE_* may be of the program's own.
    assert "did you mean 'name'" in faults(labelled({"discod.nmae": "a"}), scope)["discod.nmae"]
    assert "require_label" in silent(labelled({}, env={"SERVICE_TAGS": "A B"}), scope)
    assert list(faults(labelled({}, env={"SERVICE_NAME": "A B"}), scope)) == ["SERVICE_NAME"]


# Ports ------------------------------------------------------------------------------------------


def ports(container: Container, scope: Scope = SCOPE) -> list[str]:
    return [f"{e.port}/{e.protocol}" for e in v4(container, scope)]


def test_which_ports() -> None:
    assert ports(exposing("80", "53/udp")) == ["53/udp", "80/tcp"]
    published = replace(exposing("80", "443"), published=(publish(80, 8080),))
    assert ports(published) == ["8080/tcp"]
    assert ports(published, announcing(address="container")) == ["80/tcp"]
    assert ports(labelled({"discod.port": "9000"}, "80")) == ["9000/tcp"]
    assert ports(labelled({"discod.port": "53/udp, 53/tcp,80"})) == ["53/tcp", "53/udp", "80/tcp"]
    assert ports(labelled({"discod.443.weight": "1"}, "80")) == ["443/tcp"]
    assert ports(labelled({"discod.53-udp.tags": ""}, "80")) == ["53/udp"]
    assert ports(labelled({"discod.port": "80", "discod.81.tags": ""})) == ["80/tcp", "81/tcp"]
    assert ports(labelled({"discod.443.ignore": "true"}, "80", "443")) == ["80/tcp"]
    none = replace(WEB, labels=(("SERVICE_8080_NAME", "api"),))
    assert ports(none) == ["8080/tcp"]
    assert ports(replace(none, exposed=((80, "tcp"),))) == ["80/tcp"]


def test_no_port() -> None:
    assert silent(WEB) == "it publishes and exposes no port; name one with discod.port"
    many = exposing(*(f"{n}/udp" for n in range(10000, 10065)))
    assert "65 ports, more than 64" in silent(many)
    assert "ignored by discod.80.ignore" in silent(labelled({"discod.80.ignore": "yes"}))


BAD_PORTS = [
    "",
    "0",
    "65536",
    "99999999999999999999",
    "-1",
    "+80",
    "8o",
    "\u0668\u0660",
    "80/sctp",
    "80,80",
]
BAD_PORTS += ["80,", "080", "80/tcp,80", " 80\n,", "1e3", "80.0", "9" * 5000]


@pytest.mark.parametrize("value", BAD_PORTS)
def test_bad_ports(value: str) -> None:
    assert "expected container ports" in faults(labelled({"discod.port": value}))["discod.port"]


def test_too_many_ports() -> None:
    value = ",".join(str(n) for n in range(1, 66))
    assert "at most 64" in faults(labelled({"discod.port": value}))["discod.port"]
    many = {f"discod.{n}.weight": "1" for n in range(1, 66)}
    assert "at most 64" in faults(labelled(many))["discod.<port>"]


def test_port_names() -> None:
    dns = {"discod.name": "ns", "discod.port": "53/udp,53", "discod.port-name": "domain"}
    assert [e.port_name for e in v4(labelled(dns))] == ["domain", "domain"]
    clash = {"discod.name": "web", "discod.port-name": "http"}
    found = faults(labelled(clash, "80", "81"))
    assert "ports 80/tcp and 81/tcp of service 'web'" in found["discod.port-name"]
    own = {"discod.name": "web", "discod.80.port-name": "http", "discod.81.port-name": "admin"}
    assert [e.port_name for e in v4(labelled(own))] == ["http", "admin"]
    number = {"discod.name": "web", "discod.80.port-name": "81", "discod.81.tags": ""}
    assert list(faults(labelled(number))) == ["discod.80.port-name"]


# Addresses --------------------------------------------------------------------------------------


def addresses(container: Container, scope: Scope = SCOPE, **other: Any) -> list[str]:
    return [f"{e.address} {e.port}" for e in endpoints(container, scope, **other)]


PUBLISHED = replace(exposing("80"), published=(publish(80, 8080), publish(80, 8080, "::")))


@pytest.mark.parametrize(
    ("mode", "container", "found"),
    [
        ("auto", PUBLISHED, ["192.0.2.1 8080", "2001:db8::1 8080"]),
        ("published", PUBLISHED, ["192.0.2.1 8080", "2001:db8::1 8080"]),
        ("container", PUBLISHED, ["10.101.1.2 80", "2001:db8:1::2 80"]),
        ("auto", exposing("80"), ["10.101.1.2 80", "2001:db8:1::2 80"]),
        ("container", exposing("80"), ["10.101.1.2 80", "2001:db8:1::2 80"]),
    ],
)
def test_modes(mode: str, container: Container, found: list[str]) -> None:
    assert addresses(container, announcing(address=mode)) == found
    other = replace(container, labels=(("discod.address", mode),))
    assert addresses(other, announcing(address="published")) == found


def test_published_mode_without_publication() -> None:
    assert "port 80/tcp: not published" in silent(exposing("80"), announcing(address="published"))


def test_modes_per_port() -> None:
    labels = {"discod.name": "web", "discod.80.tags": "", "discod.81.address": "container"}
    container = replace(
        labelled(labels), published=(publish(80, 8080), publish(81, 8081)), exposed=()
    )
    assert [str(e.address) for e in v4(container)] == ["192.0.2.1", "10.101.1.2"]


def test_loopback_publication_is_not_offered() -> None:
    container = replace(exposing("80"), published=(publish(80, 8080, "127.0.0.1"),))
    assert "loopback" in silent(container)


def test_families_with_different_host_ports_have_targets_of_their_own() -> None:
    container = replace(exposing("80"), published=(publish(80, 1), publish(80, 2, "::")))
    assert [e.target for e in endpoints(container)] == ["", ""]
    assert [e.target for e in endpoints(PUBLISHED)] == ["", "h1-0123456789ab-80"]


def test_host_networking() -> None:
    container = replace(exposing("80"), network_mode="host", attachments=(Attachment("host", "h"),))
    for mode in ("auto", "published", "container"):
        found = addresses(container, announcing(address=mode))
        assert found == ["192.0.2.1 80", "2001:db8::1 80"]


def test_network_choice() -> None:
    back = Attachment("back", "n2", IPv4Address("10.101.2.2"))
    container = replace(exposing("80"), attachments=(back, NETWORK))
    assert addresses(container) == ["10.101.2.2 80"]
    assert addresses(container, announcing(networks=("x", "front")))[0] == "10.101.1.2 80"
    chosen = replace(container, labels=(("discod.network", "front"),))
    assert addresses(chosen, announcing(networks=("back",)))[0] == "10.101.1.2 80"
    wrong = replace(container, labels=(("discod.network", "other"),))
    assert faults(wrong) == {
        "discod.network": "expected a network that the container is in: back, front"
    }
    lonely = replace(exposing("80"), attachments=(), network_mode="none")
    assert "it is in no network" in silent(lonely)


def test_stopped_containers() -> None:
    bare = replace(exposing("80"), status=Status.EXITED, attachments=(Attachment("front", "n1"),))
    assert "does not run" in silent(bare)
    assert addresses(replace(PUBLISHED, status=Status.EXITED))[0] == "192.0.2.1 8080"


def test_borrowed_network() -> None:
    sidecar = replace(exposing("80"), id="f" * 64, network_mode=f"container:{ID}", attachments=())
    lender = replace(exposing("22"), published=(publish(80, 8080), publish(22, 2222)))
    (found,) = endpoints(sidecar, borrowed=lender)
    assert (str(found.address), found.port, found.container) == ("192.0.2.1", 8080, "f" * 64)
    assert addresses(sidecar, borrowed=exposing())[0] == "10.101.1.2 80"
    assert "network of container 0123456789ab, which is not there" in silent(sidecar)
    hosted = replace(WEB, network_mode="host")
    assert addresses(sidecar, borrowed=hosted)[0] == "192.0.2.1 80"
    assert "which is not there" in silent(sidecar, borrowed=sidecar)


# Ignoring ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["true", "1", "yes", "on", "TRUE"])
def test_ignored_whatever_else_is_wrong(value: str) -> None:
    for key in ("SERVICE_IGNORE", "discod.ignore"):
        assert silent(labelled({key: value, "discod.name": "A B"})) == f"ignored by {key}"
    assert silent(labelled({}, env={"SERVICE_IGNORE": value})) == "ignored by SERVICE_IGNORE"


@pytest.mark.parametrize("value", ["false", "0", "no", "", "2", "ignore", "✓"])
def test_other_values_of_service_ignore_are_faults(value: str) -> None:
    assert "remove it" in faults(labelled({"SERVICE_IGNORE": value}))["SERVICE_IGNORE"]


def test_discod_ignore_false_overrides() -> None:
    assert names(labelled({"SERVICE_IGNORE": "true", "discod.ignore": "false"})) == ["my-web"]
    assert list(faults(labelled({"discod.ignore": "perhaps"}))) == ["discod.ignore"]


# Single values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tags"),
    [("", ()), ("a", ("a",)), ("a,b,,a, c ", ("a", "b", "c"))],
)
def test_tags(text: str, tags: tuple[str, ...]) -> None:
    for key in ("SERVICE_TAGS", "discod.tags", "SERVICE_80_TAGS", "discod.80.tags"):
        assert v4(labelled({key: text}))[0].tags == tags


@pytest.mark.parametrize("text", ["A", "a b", "any", "x" * 64, "*", "a\\,b", "ü", "a\nb"])
def test_bad_tags(text: str) -> None:
    assert list(faults(labelled({"SERVICE_TAGS": text}))) == ["SERVICE_TAGS"]


def test_an_escaped_comma_stays_in_its_tag() -> None:
    assert "found 'a,b'" in faults(labelled({"SERVICE_TAGS": "c,a\\,b"}))["SERVICE_TAGS"]


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("weight", ["0", "65535"], ["", "-1", "65536", "1.5", "9" * 20, "\u0663", "1 ", "ten"]),
        ("priority", ["1", "65535"], ["0", "65536", "", "x"]),
        ("port-name", ["http", "80", "a-b"], ["", "_http", "Http", "a" * 63, "a b", "a.b"]),
        ("address", ["auto"], ["", "Auto", "host", "10.0.0.1"]),
        ("network", ["front"], ["", "a\nb"]),
        ("attr.team", ["", "Shop & Co", "ü" * 256], ["a" * 257, "a\nb", "\x00"]),
        ("check", ["tcp", "none", "cmd:true", 'cmd:["a", "b"]'], ["", "udp", "tcp:80", "cmd:"]),
        (
            "check",
            ["http", "http:/", "http:/a?b=c"],
            ["http:", "http:a", "http:/a b", "http:/\r\n"],
        ),
        ("check", ['cmd: ["a"]'], ['cmd:["a"', "cmd:[]", "cmd:[1]", 'cmd:[""]', "cmd:a\0b"]),
    ],
)
def test_values(key: str, good: list[str], bad: list[str]) -> None:
    for value in good:
        assert endpoints(labelled({f"discod.{key}": value}))
    for value in bad:
        assert list(faults(labelled({f"discod.{key}": value}))) == [f"discod.{key}"]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("discod.nam", "did you mean 'name'"),
        ("discod.portname", "did you mean 'port-name'"),
        ("discod.80.tag", "did you mean 'tags'"),
        ("discod.xyzzy", "expected one of address, affinity, alpn, anycast, attr.<key>, check"),
        ("discod.", "unknown key"),
        ("discod.ñ", "unknown key"),
        ("discod." + "x" * 5000, "unknown key"),
        ("discod", "in lower case"),
        ("Discod.Name", "in lower case"),
        ("discod.80", "expected discod.80.<key>"),
        ("discod.80.", "unknown key"),
        ("discod.0.name", "<port> as 80"),
        ("discod.080.name", "<port> as 80"),
        ("discod.99999999999999999999.name", "<port> as 80"),
        ("discod.80-sctp.name", "<port> as 80"),
        ("discod.80/udp.name", "<port> as 80"),
        ("discod.80.port", "of the whole container: discod.port"),
        ("discod.80.network", "of the whole container: discod.network"),
        ("discod.rescue", "expected true or false"),
        ("discod.vip", "expected auto, none, or unicast addresses"),
        ("discod.80.affinity", "expected none or client"),
        ("discod.anycast", "expected unicast addresses"),
        ("discod.80.vip.x", "did you mean 'vip'"),
        ("discod.attr.", "expected an attribute's name"),
        ("discod.attr.A", "expected an attribute's name"),
    ],
)
def test_unknown_labels(label: str, words: str) -> None:
    ((subject, expected),) = faults(labelled({label: "x"})).items()
    assert subject == label[:128]
    assert words in expected


def test_the_same_port_named_twice() -> None:
    found = faults(labelled({"discod.80.name": "a", "discod.80-tcp.name": "a"}))
    assert found == {"discod.80.name": "discod.80-tcp.name says it too, of the same port"}


def test_all_faults_at_once() -> None:
    labels = {
        "discod.name": "A",
        "discod.weight": "-1",
        "discod.check": "ping",
        "discod.check.interval": "soon",
        "discod.network": "nowhere",
        "discod.vip": "10.0.0.1,10.0.0.2",
        "SERVICE_TAGS": "A",
        "SERVICE_99999_NAME": "x",
    }
    assert list(faults(labelled(labels))) == sorted(labels)


def test_faults_are_bounded_and_equal_after_the_store() -> None:
    labels = {f"discod.x{n}" + "y" * 500: "v" * 5000 for n in range(FAULTS_MAX + 50)}
    found = read(labelled(labels), SCOPE).faults
    assert len(found) == FAULTS_MAX + 1
    assert str(found[-1]) == "labels = '150': 50 more faults not shown"
    refusal = Refusal("h1", ID, "web", found, 1.0)
    assert decode_refusal("k", "h1", ID, encode_refusal(refusal)) == refusal


# SERVICE_* --------------------------------------------------------------------------------------


def test_attributes_of_registrator() -> None:
    env = {
        "SERVICE_Region": "eu",
        "SERVICE_80_ZONE": "a",
        "SERVICE_81_ZONE": "b",
        "SERVICE_80": "x",
    }
    (one,) = v4(labelled({"SERVICE_REGION": "us"}, env=env))
    assert one.attributes == (("80", "x"), ("region", "us"), ("zone", "a"))


def test_a_programs_own_variable_is_no_fault_but_a_label_is() -> None:
    secret = '{"key":\n"' + "s" * 2000
    for key in ("SERVICE_ACCOUNT_JSON", "SERVICE_A B", "SERVICE_"):
        assert v4(labelled({}, env={key: secret}))[0].attributes == ()
        found = read(labelled({key: secret}), SCOPE).faults
        assert "sss" not in str(found[0])
    many = {f"SERVICE_X{n}": "v" for n in range(40)}
    assert len(v4(labelled({}, env=many))[0].attributes) == 32
    assert len(faults(labelled(many))) == 8


@pytest.mark.parametrize(
    "key",
    ["CHECK_HTTPS", "CHECK_GRPC", "CHECK_SCRIPT", "CHECK_DOCKER", "CHECK_TTL", "CHECK_HTTP_METHOD"],
)
def test_unsupported_checks_are_faults(key: str) -> None:
    for label in (f"SERVICE_{key}", f"SERVICE_80_{key}"):
        assert list(faults(labelled({label: "x", "SERVICE_CHECK_INTERVAL": "5s"}))) == [label]


def test_tuning_of_consul_is_an_attribute() -> None:
    (one,) = v4(labelled({"SERVICE_CHECK_DEREGISTER_AFTER": "10m"}))
    assert one.attributes == (("check_deregister_after", "10m"),)


# Checks -----------------------------------------------------------------------------------------

_BASE: dict[str, Any] = {"interval": 7.0, "timeout": 3.0, "rise": 2, "fall": 4}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, None),
        ({"discod.check": "none"}, None),
        (
            {"discod.check": "none", "SERVICE_CHECK_TCP": "true", "SERVICE_CHECK_TIMEOUT": "1s"},
            None,
        ),
        ({"discod.check": "tcp"}, Check("tcp", **_BASE)),
        ({"discod.check": "http"}, Check("http", path="/", **_BASE)),
        ({"discod.check": "http:/up?a"}, Check("http", path="/up?a", **_BASE)),
        ({"discod.check": "cmd:a b"}, Check("cmd", command=("/bin/sh", "-c", "a b"), **_BASE)),
        ({"discod.check": 'cmd:["a","b c"]'}, Check("cmd", command=("a", "b c"), **_BASE)),
        (
            {
                "discod.check": "http",
                "discod.check.path": "/up",
                "discod.check.status": "204",
                "discod.check.port": "9000",
                "discod.check.interval": "1m30s",
                "discod.check.timeout": "500ms",
                "discod.check.rise": "3",
                "discod.check.fall": "5",
            },
            Check("http", 9000, "/up", (204, 204), (), 90.0, 0.5, 3, 5),
        ),
        (
            {
                "discod.check": "tcp",
                "discod.80.check": "http:/",
                "discod.80.check.status": "200-204",
            },
            Check("http", path="/", status=(200, 204), **_BASE),
        ),
        ({"SERVICE_CHECK_TCP": "true"}, Check("tcp", **_BASE)),
        (
            {"SERVICE_CHECK_HTTP": "/h", "SERVICE_CHECK_HTTP_METHOD": "get"},
            Check("http", path="/h", **_BASE),
        ),
        ({"SERVICE_80_CHECK_CMD": "x"}, Check("cmd", command=("/bin/sh", "-c", "x"), **_BASE)),
        ({"SERVICE_81_CHECK_TCP": "true"}, None),
        (
            {
                "SERVICE_CHECK_HTTP": "/h",
                "SERVICE_CHECK_INTERVAL": "15s",
                "SERVICE_80_CHECK_TIMEOUT": "1s",
                "discod.check.path": "/own",
                "discod.check.rise": "1",
            },
            Check("http", path="/own", interval=15.0, timeout=1.0, rise=1, fall=4),
        ),
        ({"SERVICE_CHECK_HTTP": "/h", "discod.check": "tcp"}, Check("tcp", **_BASE)),
    ],
)
def test_checks(labels: dict[str, str], expected: Check | None) -> None:
    assert check(labelled(labels)) == expected


@pytest.mark.parametrize(
    ("labels", "subjects"),
    [
        ({"discod.check.interval": "5s"}, ["discod.check.interval"]),
        ({"discod.check": "tcp", "discod.check.path": "/"}, ["discod.check.path"]),
        ({"discod.check": "cmd:x", "discod.check.port": "1"}, ["discod.check.port"]),
        ({"discod.check": "tcp", "discod.81.check.status": "200"}, ["discod.81.check.status"]),
        ({"discod.check": "http:/a", "discod.check.path": "/b"}, ["discod.check.path"]),
        ({"SERVICE_CHECK_INTERVAL": "5s"}, ["SERVICE_CHECK_INTERVAL"]),
        ({"SERVICE_CHECK_TCP": "1", "SERVICE_CHECK_HTTP": "/"}, ["SERVICE_CHECK_TCP"]),
        ({"SERVICE_CHECK_TCP": "false"}, ["SERVICE_CHECK_TCP"]),
        ({"SERVICE_CHECK_HTTP": "health"}, ["SERVICE_CHECK_HTTP"]),
        # A check that is refused does not make its details faults as well.
        ({"discod.check": "ping", "discod.check.interval": "5s"}, ["discod.check"]),
    ],
)
def test_check_faults(labels: dict[str, str], subjects: list[str]) -> None:
    assert list(faults(labelled(labels))) == subjects


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        (
            "interval",
            ["", "0", "99ms", "2h", "-5", "5 s", "5x", "1.5.5s", "\u0665s", "9" * 400, "inf"],
        ),
        ("timeout", ["", "0s", "nan"]),
        ("rise", ["0", "101", ""]),
        ("fall", ["0", "-1"]),
        ("port", ["0", "65536"]),
        ("status", ["", "99", "600", "300-200", "2xx", "200-", "200-1000"]),
        ("path", ["", "up", "/ü", "/a b", "/" + "a" * 1024]),
    ],
)
def test_bad_check_details(key: str, bad: list[str]) -> None:
    for value in bad:
        labels = {"discod.check": "http", f"discod.check.{key}": value}
        assert list(faults(labelled(labels))) == [f"discod.check.{key}"]


# Documentation ----------------------------------------------------------------------------------


def test_the_documentation_names_every_label_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "labels.md").read_text()
    known = {*discod_labels._PORT_KEYS, *discod_labels._CONTAINER_KEYS, "attr.<key>"}
    rows = set(re.findall(r"^\| `discod\.([^*`]+)`", text, re.MULTILINE))
    assert rows == known
    service = {f"SERVICE_{key.upper()}" for key in (*registrator._KEYS, *registrator._CHECKS)}
    assert service <= set(re.findall(r"SERVICE_[A-Z_]+", text))


# Rescue and addresses of a service ---------------------------------------------------------------

_OWN = {"web": (ip_address("192.0.2.80"), ip_address("2001:db8::80"))}


def _own(labels: dict[str, str], vips: Mapping[str, tuple[Address, ...]]) -> list[Offer]:
    """One offer a port: the IPv4 ones, which the IPv6 ones are equal to in this."""
    scope = replace(SCOPE, vips=vips)
    found = read(labelled({"discod.name": "web", **labels}), scope)
    assert not found.faults
    v4 = [offer for offer in found.offers if offer.endpoint.address.version == 4]
    v6 = [offer for offer in found.offers if offer.endpoint.address.version == 6]
    assert [offer.vip for offer in v4] == [offer.vip for offer in v6]
    assert [offer.endpoint.vip for offer in v4] == [offer.endpoint.vip for offer in v6]
    return v4


def test_rescue_and_affinity_are_of_a_port_or_of_all() -> None:
    (plain,) = _own({}, {})
    assert plain.endpoint.rescue
    assert not plain.endpoint.affinity
    assert plain.vip is None
    labels = {
        "discod.port": "80,81",
        "discod.address": "container",
        "discod.rescue": "no",
        "discod.81.rescue": "on",
        "discod.80.affinity": "client",
    }
    one, other = _own(labels, {})
    assert (one.endpoint.rescue, one.endpoint.affinity) == (False, True)
    assert (other.endpoint.rescue, other.endpoint.affinity) == (True, False)


@pytest.mark.parametrize(
    ("said", "wished", "stands_behind"),
    [
        ("auto", "auto", _OWN["web"]),
        ("none", None, ()),
        ("192.0.2.80", (ip_address("192.0.2.80"),), _OWN["web"]),
        ("2001:db8::80, 192.0.2.80", _OWN["web"], _OWN["web"]),
        ("192.0.2.81", (ip_address("192.0.2.81"),), ()),
    ],
)
def test_an_endpoint_stands_behind_what_its_service_has(
    said: str, wished: VipWord | None, stands_behind: tuple[Address, ...]
) -> None:
    (offer,) = _own({"discod.vip": said}, _OWN)
    assert offer.endpoint.vip == stands_behind
    if wished is None:
        assert offer.vip is None
    else:
        assert offer.vip == VipWish("web", wished, "discod.vip", said)
    (before,) = _own({"discod.vip": said}, {})
    assert before.endpoint.vip == ()
    assert before.endpoint == replace(offer.endpoint, vip=())


@pytest.mark.parametrize(
    "said",
    [
        "",
        "AUTO",
        "auto,192.0.2.1",
        "192.0.2.1,192.0.2.2",
        "2001:db8::1,2001:db8::1",
        "127.0.0.1",
        "224.0.0.1",
        "0.0.0.0",
        "fe80::1",
        "::ffff:192.0.2.1",
        "fe80::1%eth0",
        "192.0.2.0/24",
        "a",
    ],
)
def test_addresses_that_no_service_can_have(said: str) -> None:
    found = faults(labelled({"discod.name": "web", "discod.vip": said}))
    assert list(found) == ["discod.vip"]


# Properties -------------------------------------------------------------------------------------

_PORT = st.sampled_from(
    ["80", "443", "53", "0", "99999", "9" * 20, "\uff18\uff10", "53-udp", "80-tcp"]
)
_KEYS = (
    "name port port-name tags weight priority network address check check.interval check.path "
    "check.status check.port check.rise ignore attr.x attr.Ü vip rescue affinity nam"
)
_SERVICES = "NAME TAGS ID IGNORE CHECK_HTTP CHECK_TCP CHECK_CMD CHECK_INTERVAL CHECK_TTL REGION"
_KEY, _SERVICE = st.sampled_from(_KEYS.split()), st.sampled_from(_SERVICES.split())
_LABEL = st.one_of(
    _KEY.map("discod.{}".format),
    st.tuples(_PORT, _KEY).map(lambda t: "discod.{}.{}".format(*t)),
    _SERVICE.map("SERVICE_{}".format),
    st.tuples(_PORT, _SERVICE).map(lambda t: "SERVICE_{}_{}".format(*t)),
    st.just("com.docker.compose.service"),
    st.text(max_size=12).map("discod.{}".format),
    st.text(max_size=12).map("SERVICE_{}".format),
    st.text(max_size=12),
)
_VALUES = (
    "web api-1 80 443 80,443 53/udp http a,b true tcp http:/x /health 5s 200 front auto container "
    "published any * W 99999999999999999999 cmd:[] cmd:[[[ node 1 192.0.2.9,2001:db8::9 client"
)
_VALUE = st.sampled_from([*_VALUES.split(), "", "a" * 1000, "x\ny"]) | st.text(max_size=20)
_WORDS = st.dictionaries(_LABEL, _VALUE, max_size=8)
_IP = st.sampled_from([None, "0.0.0.0", "::", "127.0.0.1", "192.0.2.7", "2001:db8::7"])
_PUBLISHED = st.lists(
    st.builds(
        Publication,
        st.sampled_from([80, 443, 53]),
        st.sampled_from(["tcp", "udp"]),
        _IP.map(lambda a: ip_address(a) if a else None),
        st.sampled_from([8080, 8443]),
    ),
    max_size=4,
    unique=True,
)
_CONTAINER = st.builds(
    lambda labels, env, exposed, published, mode, attachments, image: Container(
        id=ID,
        name="c",
        image=image,
        status=Status.RUNNING,
        labels=tuple(labels.items()),
        env=tuple(env.items()),
        exposed=tuple(exposed),
        published=tuple(published),
        network_mode=mode,
        attachments=tuple(attachments),
    ),
    _WORDS,
    _WORDS,
    st.lists(
        st.tuples(st.sampled_from([80, 443, 53]), st.sampled_from(["tcp", "udp"])),
        max_size=4,
        unique=True,
    ),
    _PUBLISHED,
    st.sampled_from(["front", "host", "none", "bridge", "container:x"]),
    st.sampled_from([(), (NETWORK,), (Attachment("back", "b", IPv4Address("10.0.0.9")), NETWORK)]),
    st.sampled_from(["web:1", "node", "", "sha256:0", "a" * 200]) | st.text(max_size=10),
)
_SCOPE = st.builds(
    lambda addresses, host, **announce: Scope(
        host, tuple(map(ip_address, addresses)), AnnounceSettings(**announce), CHECKS
    ),
    st.sampled_from([(), ("192.0.2.1",), ("2001:db8::1", "192.0.2.1")]),
    st.sampled_from(["h1", "h" * 63]),
    address=st.sampled_from(["auto", "published", "container"]),
    networks=st.sampled_from([(), ("front",)]),
    require_label=st.booleans(),
    allow=st.sampled_from([("*",), ("web*",), ()]),
    deny=st.sampled_from([(), ("*-80",)]),
)


@given(_CONTAINER, _SCOPE)
def test_any_labels_give_either_valid_offers_or_reasons(container: Container, scope: Scope) -> None:
    reading = read(container, scope)
    assert [bool(reading.offers), bool(reading.faults), bool(reading.silent)].count(True) == 1
    keys = Keyspace()
    assert reading.silent.isprintable()
    for fault in reading.faults:
        assert fault.subject
        assert fault.expected
        assert str(fault).isprintable()
    instances = [offer.endpoint.instance for offer in reading.offers]
    assert len(set(instances)) == len(instances)
    for offer in reading.offers:
        one = offer.endpoint
        assert service_fault(one.service) is None
        assert is_label(one.instance)
        assert is_port_name(one.port_name)
        assert all(is_label(tag) for tag in one.tags)
        assert one.target in ("", *instances)
        assert decode_record(keys.record(one.id), one.id, encode_endpoint(one)) == one


@given(_CONTAINER, _SCOPE, st.randoms(use_true_random=False))
def test_order_does_not_matter(container: Container, scope: Scope, rng: random.Random) -> None:
    def shuffled(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(rng.sample(items, len(items)))

    other = replace(
        container,
        labels=shuffled(container.labels),
        env=shuffled(container.env),
        exposed=shuffled(container.exposed),
        published=shuffled(container.published),
        attachments=shuffled(container.attachments),
    )
    assert read(other, scope) == read(container, scope)


@given(_CONTAINER, _SCOPE)
def test_faults_do_not_depend_on_whether_it_runs(container: Container, scope: Scope) -> None:
    assume(not any(key == "discod.network" for key, _ in container.labels))
    stopped = replace(
        container,
        status=Status.EXITED,
        attachments=tuple(Attachment(a.network, a.network_id) for a in container.attachments),
    )
    assert read(stopped, scope).faults == read(container, scope).faults

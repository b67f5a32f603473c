"""The configuration: every fault is named, every documented key exists, nothing else is raised."""

from __future__ import annotations

import re
import subprocess
from dataclasses import fields, is_dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.config import (
    EXAMPLE_PATH,
    SIZE_MAX,
    ConfigError,
    ConfigFault,
    check_files,
    load_config,
    parse_config,
)
from discod.config_fault import show_value
from discod.config_fields import SECTIONS, SERVICE_FIELDS
from discod.config_lines import find_lines
from discod.config_service import CHECK_RULES
from discod.config_values import show_duration
from discod.model.settings import (
    Check,
    CheckSettings,
    DnsSettings,
    ListenAddress,
    ServiceSettings,
    Settings,
    StoreSettings,
    TransferSettings,
)

ROOT = Path(__file__).parents[2]
EXAMPLE = EXAMPLE_PATH.read_text()
DOCS = (ROOT / "docs/config.md").read_text()


def parse(text: str) -> Settings:
    return parse_config(text, origin="test.toml")


def faults(text: str) -> tuple[ConfigFault, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.origin == "test.toml"
    assert caught.value.faults
    return caught.value.faults


def only(text: str) -> ConfigFault:
    found = faults(text)
    assert len(found) == 1, [str(f) for f in found]
    return found[0]


def uncomment(text: str) -> str:
    """The example with all its keys in force; prose has a space behind its ``#``."""
    return re.sub(r"(?m)^#(?! |$)", "", text)


# Example, documentation and tables agree -----------------------------------------------------


def test_the_empty_file_is_the_defaults() -> None:
    assert parse("") == Settings()


def test_the_example_changes_nothing_but_its_live_services() -> None:
    found = load_config(EXAMPLE_PATH)
    assert [service.name for service in found.services] == ["example", "metrics"]
    assert found == Settings(services=found.services)


def test_uncommenting_the_whole_example_gives_the_defaults() -> None:
    found = parse(uncomment(EXAMPLE))
    assert found == Settings(services=found.services, bgp=found.bgp)
    assert [service.name for service in found.services] == ["db", "queue", "example", "metrics"]


def test_every_key_stands_in_the_example_once_uncommented() -> None:
    import tomllib

    document = tomllib.loads(uncomment(EXAMPLE))
    assert set(document) == {*SECTIONS, "service", "bgp"}
    for name, section in SECTIONS.items():
        assert list(document[name]) == list(section.by_key)
    first = document["service"][0]
    assert list(first) == [field.key for field in SERVICE_FIELDS]
    shown = {key for service in document["service"] for key in _check_keys(service)}
    assert shown == set(CHECK_RULES)


def _check_keys(service: dict[str, Any]) -> list[str]:
    check = service.get("check")
    return list(check) if isinstance(check, dict) else []


def test_deploy_has_the_example_without_the_live_services() -> None:
    head, marker, _ = EXAMPLE.partition("# Live examples")
    assert marker
    assert (ROOT / "deploy/discod.toml").read_text() == head.rstrip() + "\n"
    assert load_config(ROOT / "deploy/discod.toml") == Settings()


def test_the_tables_fill_every_attribute_of_the_settings() -> None:
    for section in SECTIONS.values():
        assert {f.target for f in section.fields} == {f.name for f in fields(section.settings)}
    assert {f.target for f in SERVICE_FIELDS} == {f.name for f in fields(ServiceSettings)}
    assert set(CHECK_RULES) == {f.name for f in fields(Check)}
    assert {*SECTIONS, "services", "bgp"} == {f.name for f in fields(Settings)}
    assert is_dataclass(Settings)


def _rows(heading: str) -> dict[str, tuple[str, str, str]]:
    """Key -> default, rule and meaning of the table below a heading of the documentation."""
    body = DOCS.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| `")]
    return {key.strip("`"): (default, rule, about) for key, default, rule, about in rows}


def test_the_documentation_has_every_key_its_default_and_its_rule() -> None:
    for name, section in SECTIONS.items():
        rows = _rows(f"## [{name}]")
        assert list(rows) == list(section.by_key)
        for key, (default, rule, about) in rows.items():
            assert rule == section.by_key[key].rule.text
            assert about
            assert parse(f"[{name}]\n{key} = {default.strip('`')}") == Settings()


def test_the_documentation_of_services_and_checks() -> None:
    rows = _rows("## [[service]]")
    assert list(rows) == [field.key for field in SERVICE_FIELDS]
    plain = parse('[[service]]\nname = "a"\nport = 1').services
    for field in SERVICE_FIELDS:
        default, rule, _ = rows[field.key]
        assert rule == field.rule.text
        assert (default == "required") == field.required
        if default.startswith("`"):
            line = f"{field.key} = {default.strip('`')}"
            assert parse(f'[[service]]\nname = "a"\nport = 1\n{line}').services == plain
    checks = re.findall(r"(?m)^\| `(\w+)` \| .*? \| (.*) \| .*\|$", DOCS.split("### check")[1])
    assert checks == [(key, rule.text) for key, rule in CHECK_RULES.items()]


def test_the_documented_examples_parse() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        assert parse(block) != Settings()


# Good values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        'store = ["http://10.0.0.1:2379", "http://10.0.0.2"]',
        '[store]\nendpoints = ["HTTP://10.0.0.1:2379/", "http://10.0.0.2:2379"]',
    ],
)
def test_store_short_and_long(text: str) -> None:
    expected = ("http://10.0.0.1:2379", "http://10.0.0.2:2379")
    assert parse(text).store == StoreSettings(endpoints=expected)


@pytest.mark.parametrize("text", ['store = "memory"', '[store]\nendpoints = "memory"'])
def test_store_memory(text: str) -> None:
    assert parse(text) == Settings()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ('"500ms"', 0.5),
        ('"2s"', 2),
        ('"1m"', 60),
        ('"1h"', 3600),
        ('"1.5s"', 1.5),
        ('"10.0s"', 10),
        ("7", 7),
        ("0.25", 0.25),
    ],
)
def test_durations(written: str, seconds: float) -> None:
    assert parse(f"[announce]\ndrain = {written}").announce.drain == seconds


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (0.5, "500ms"), (2, "2s"), (90, "90s"), (86400, "24h")]
)
def test_show_duration(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


def test_listeners_and_networks() -> None:
    found = parse(
        """
        [dns]
        listen = ["127.0.0.1:53", "[::1]:53"]
        upstreams = ["192.0.2.53", "2001:db8::53", "[2001:db8::54]:5353"]
        allow = ["192.0.2.0/24", "2001:db8::1"]
        [http]
        listen = "[2001:db8::1]:80"
        """
    )
    assert found.dns.listen == (
        ListenAddress(ip_address("127.0.0.1"), 53),
        ListenAddress(ip_address("::1"), 53),
    )
    assert [u.port for u in found.dns.upstreams] == [53, 53, 5353]
    assert found.dns.allow == (ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128"))
    assert found.http.listen == (ListenAddress(ip_address("2001:db8::1"), 80),)


def test_a_service_in_full_and_checks_take_their_defaults() -> None:
    found = parse(
        """
        [checks]
        interval = "1s"
        fall = 5
        [[service]]
        name = "db"
        port = 5432
        address = ["192.0.2.1", "2001:db8::1"]
        protocol = "tcp"
        port_name = "pg"
        tags = ["primary", "b"]
        weight = 0
        priority = 1
        attributes = { zone = "b", "a.b" = "c" }
        check = { kind = "http", port = 8008, path = "/p?x=1", status = 204, rise = 3 }
        [[service]]
        name = "db"
        port = 5433
        check = "tcp"
        [[service]]
        name = "web"
        port = 80
        check = "http:/health"
        [[service]]
        name = "job"
        port = 81
        [service.check]
        kind = "cmd"
        command = ["/bin/true", ""]
        interval = "30s"
        timeout = "20s"
        """
    )
    # The default timeout of 2 s is brought down to the interval.
    assert found.checks == CheckSettings(interval=1, timeout=1, rise=1, fall=5)
    db, plain, web, job = found.services
    assert db == ServiceSettings(
        name="db",
        port=5432,
        addresses=(ip_address("192.0.2.1"), ip_address("2001:db8::1")),
        port_name="pg",
        tags=("primary", "b"),
        weight=0,
        priority=1,
        attributes=(("a.b", "c"), ("zone", "b")),
        check=Check("http", 8008, "/p?x=1", (204, 204), (), 1, 1, 3, 5),
    )
    assert plain.check == Check("tcp", interval=1, timeout=1, fall=5)
    assert web.check == Check("http", path="/health", interval=1, timeout=1, fall=5)
    assert job.check == Check(
        "cmd", command=("/bin/true", ""), interval=30, timeout=20, rise=1, fall=5
    )


def test_a_default_timeout_gives_way_to_a_short_lease() -> None:
    assert parse("[store]\nlease_ttl = 2").store.timeout == 2


# Faults --------------------------------------------------------------------------------------


def test_a_file_of_many_mistakes_names_them_all() -> None:
    found = faults(
        """store = ["http://10.0.0.1:2379", "ftp://10.0.0.2"]
[host]
name = "Web_1"
addresses = ["0.0.0.0", "host.example"]
[announce]
require_label = "true"
drain = "soon"
adress = "auto"
[dns]
listen = ["127.0.0.1:53", "x"]
domain = "Example.COM."
allow = ["10.1.2.3/8"]
udp_size = 100
[hots]
[rescue]
on = true
[log]
level = "verbose"
[[service]]
name = "node"
port = 70000
weight = -1
check = { kind = "http", path = "health", status = "399-200", retries = 3 }
[[service]]
name = "a"
"""
    )
    seen = {f.key: (f.value, f.expected, f.line) for f in found}
    expected = {
        "store[1]": ('"ftp://10.0.0.2"', "expected http://HOST:PORT or https://", 1),
        "host.name": ('"Web_1"', "expected a DNS label", 3),
        "host.addresses[0]": ('"0.0.0.0"', "not the wildcard", 4),
        "host.addresses[1]": ('"host.example"', "expected ADDRESS", 4),
        "announce.require_label": ('"true"', "true or false (without quotes)", 6),
        "announce.drain": ('"soon"', "a duration from 0s to 1h", 7),
        "announce.adress": ('"auto"', "unknown key; did you mean address?", 8),
        "dns.listen[1]": ('"x"', "expected ADDRESS:PORT", 10),
        "dns.domain": ('"Example.COM."', "without the final dot", 11),
        "dns.allow[0]": ('"10.1.2.3/8"', "the network of that address is 10.0.0.0/8", 12),
        "dns.udp_size": ("100", "an integer from 512 to 4096", 13),
        "hots": ("{}", "unknown table; did you mean host?", 14),
        "rescue.on": ("true", "unknown key", 16),
        "log.level": ('"verbose"', 'one of "debug", "info", "warning", "error"', 18),
        "service[0].name": ('"node"', "'node' is reserved", 20),
        "service[0].port": ("70000", "an integer from 1 to 65535", 21),
        "service[0].weight": ("-1", "an integer from 0 to 65535", 22),
        "service[0].check.path": ('"health"', "a path", 23),
        "service[0].check.status": ('"399-200"', "write 200-399", 23),
        "service[0].check.retries": ("3", "unknown key; expected one of kind", 23),
        "service[1].port": ("", "missing; expected an integer", 24),
    }
    assert set(seen) == set(expected)
    for key, (value, words, line) in expected.items():
        assert seen[key][0] == value
        assert words in seen[key][1]
        assert seen[key][2] == line
    assert [f.line for f in found] == sorted(f.line or 0 for f in found)


def test_how_a_fault_and_an_error_read() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[dns]\nlisten = ["127.0.0.1:53", "x"]\n[[service]]\nname = "a"')
    assert str(caught.value).splitlines() == [
        'test.toml:2: dns.listen[1] = "x": expected ADDRESS:PORT, as "127.0.0.1:5354" or'
        ' "[::1]:5354"',
        "test.toml:3: service[0].port: missing; expected an integer from 1 to 65535",
    ]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("dns = 5", "dns", "expected a table, [dns]"),
        ("listen = 5", "listen", "it belongs to [dns] or [http]"),
        ("[log]\nzzz = 1", "log.zzz", "unknown key"),
        ("[rescue]\nhodl = 5", "rescue.hodl", "did you mean hold?"),
        ('[service]\nname = "a"', "service", "each headed [[service]]"),
        ("service = 5", "service", "each headed [[service]]"),
        ("store = []", "store", "at least 1"),
        ("store = 5", "store", "expected a table"),
        ('store = ["memory"]', "store[0]", "http://HOST:PORT"),
        ('store = ["http://u:p@h:1"]', "store[0]", "without a user"),
        ('store = ["http://h:99999"]', "store[0]", "http://HOST:PORT"),
        ('store = ["http://h/x"]', "store[0]", "http://HOST:PORT"),
        ('store = ["http://h:1", "http://h:1"]', "store[1]", "no duplicate (of [0])"),
        ('[store]\nprefix = "/discod"', "store.prefix", "holds hosts"),
        ('[store]\nprefix = "/skydns/"', "store.prefix", "without a slash at its end"),
        ("[store]\nlease_ttl = 1", "store.lease_ttl", "from 2s to 1h"),
        ("[store]\nlease_ttl = nan", "store.lease_ttl", "from 2s to 1h"),
        ("[store]\nlease_ttl = inf", "store.lease_ttl", "from 2s to 1h"),
        ('[store]\nca = "ca.pem"', "store.ca", "an absolute path"),
        ('[store]\nca = "/a\\u0000b"', "store.ca", "NUL"),
        ('[announce]\ndocker = "/var/run/docker.sock"', "announce.docker", "unix:///PATH"),
        ('[announce]\nallow = ["Web*"]', "announce.allow[0]", "globs"),
        ("[checks]\nrise = 0", "checks.rise", "an integer from 1 to 100"),
        ("[checks]\nrise = true", "checks.rise", "an integer from 1 to 100"),
        ('[dns]\nlisten = "localhost:53"', "dns.listen", "not a name"),
        ('[dns]\nlisten = ":53"', "dns.listen", '"0.0.0.0:53" and "[::]:53"'),
        ('[dns]\nlisten = "127.0.0.1"', "dns.listen", "the port is missing"),
        ('[dns]\nlisten = "::1:53"', "dns.listen", "brackets"),
        ('[dns]\nlisten = "[127.0.0.1]:53"', "dns.listen", "brackets are for IPv6"),
        ('[dns]\nlisten = "127.0.0.1:0"', "dns.listen", "the port is 1 to 65535"),
        ('[dns]\nlisten = "[fe80::1%eth0]:53"', "dns.listen", "without a zone"),
        ('[dns]\nlisten = "[::ffff:192.0.2.1]:53"', "dns.listen", "write 192.0.2.1"),
        ('[dns]\nlisten = "224.0.0.1:53"', "dns.listen", "multicast"),
        ('[dns]\ndomain = ""', "dns.domain", "each label"),
        ('[dns]\ndomain = "a..b"', "dns.domain", "each label"),
        ('[dns]\ndomain = "10.in-addr.arpa"', "dns.domain", "reverse_zones"),
        (f'[dns]\ndomain = "{".".join(["a" * 60] * 2)}"', "dns.domain", "121 characters"),
        ("[dns]\nallow = []", "dns.allow", "at least 1"),
        ('[dns]\nupstreams = ["0.0.0.0"]', "dns.upstreams[0]", "not the wildcard"),
        ('[host]\nruntime_dir = "/%s"' % ("a" * 90), "host.runtime_dir", "at most 90"),
    ],
)
def test_one_fault(text: str, key: str, words: str) -> None:
    found = only(text)
    assert found.key == key
    assert words in found.expected


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        ("protocol = 'sctp'", "protocol", 'one of "tcp", "udp"'),
        ("port_name = '_http'", "port_name", "at most 62"),
        ("tags = ['a', 'B']", "tags[1]", "a DNS label"),
        ("tags = ['a', 'a']", "tags[1]", "no duplicate"),
        ("priority = 0", "priority", "from 1 to 65535"),
        ("attributes = { a = 1 }", "attributes.a", "a table of strings"),
        ("attributes = 'a'", "attributes", "a table of strings"),
        ("check = 'udp'", "check", '"tcp", "http:/PATH", or a table'),
        ("check = 'http:health'", "check", "a path"),
        ("check = {}", "check", "also kind"),
        ("check = { kind = 'cmd' }", "check", "also command"),
        ("check = { kind = 'cmd', command = 'true' }", "check.command", "a list of strings"),
        ("check = { kind = 'cmd', command = [] }", "check.command", "a list of strings"),
        ("check = { kind = 'cmd', command = ['a', 1] }", "check.command[1]", "a string"),
        ("check = { kind = 'tcp', path = '/' }", "check.path", "no path in a check of kind tcp"),
        ("check = { kind = 'tcp', timeout = 3, interval = 2 }", "check.timeout", "the interval"),
        ("check = { kind = 'http', status = 99 }", "check.status", "an HTTP status"),
        ("protocol = 'udp'\ncheck = 'tcp'", "check", "a port of its own"),
    ],
)
def test_one_fault_of_a_service(lines: str, key: str, words: str) -> None:
    found = only(f'[[service]]\nname = "a"\nport = 1\n{lines}')
    assert found.key == f"service[0].{key}"
    assert words in found.expected


TLS = 'dns.tls_listen = "192.0.2.1:853"\ndns.tls_key = "/k"\n'


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ('store.endpoints = "https://h"\nstore.cert = "/c"', "store.cert", "store.key beside"),
        ('store.endpoints = "https://h"\nstore.key = "/c"', "store.key", "store.cert beside"),
        ('store.endpoints = "http://h"\nstore.username = "u"', "store.username", "password_file"),
        ('store.password_file = "/p"', "store.password_file", "store.username beside"),
        ('store = ["http://a", "https://b"]', "store.endpoints", "either http or https"),
        ('store.endpoints = "http://h"\nstore.ca = "/c"', "store.ca", "https endpoints"),
        ('store.username = "u"\nstore.password_file = "/p"', "store.username", "etcd endpoints"),
        ("store.lease_ttl = 5\nstore.timeout = 6", "store.timeout", "store.lease_ttl, 5s"),
        ("checks.interval = 1\nchecks.timeout = 2", "checks.timeout", "checks.interval, 1s"),
        ('dns.upstreams = "127.0.0.1:5354"', "dns.upstreams[0]", "discod itself"),
        (
            'dns.listen = "0.0.0.0:53"\ndns.upstreams = ["192.0.2.1", "127.0.0.2"]',
            "dns.upstreams[1]",
            "discod itself (dns.listen[0])",
        ),
        (
            'host.addresses = "192.0.2.1"\ndns.listen = "0.0.0.0:53"\ndns.upstreams = "192.0.2.1"',
            "dns.upstreams[0]",
            "discod itself",
        ),
        ('dns.forward = false\ndns.upstreams = "192.0.2.1"', "dns.upstreams", "forward is false"),
        ('dns.allow = ["10.0.0.0/8", "::/0"]', "dns.allow[1]", "an open resolver"),
        ('dns.listen = ["127.0.0.1:53", "0.0.0.0:53"]', "dns.listen[1]", "dns.listen[0]"),
        ('http.listen = "127.0.0.1:5354"', "http.listen[0]", "dns.listen[0] (127.0.0.1:5354)"),
        ('dns.tls_listen = "192.0.2.1:853"', "dns.tls_listen", "dns.tls_cert and dns.tls_key"),
        (TLS + 'dns.tls_cert = ""', "dns.tls_listen", "expected dns.tls_cert beside it"),
        ('dns.tls_cert = "/c"', "dns.tls_cert", "dns.tls_listen and dns.tls_key beside it"),
        ('dns.tls_cert = "/c"\ndns.tls_key = "/k"', "dns.tls_cert", "dns.tls_listen beside it"),
        (
            TLS.replace("192.0.2.1:853", "127.0.0.1:5354") + 'dns.tls_cert = "/c"',
            "dns.tls_listen[0]",
            "dns.listen[0] (127.0.0.1:5354)",
        ),
        (
            TLS.replace("192.0.2.1:853", "0.0.0.0:9353")
            + 'dns.tls_cert = "/c"\nhttp.listen = "127.0.0.1:9353"',
            "http.listen[0]",
            "dns.tls_listen[0] (0.0.0.0:9353)",
        ),
        ('transfer.notify = "192.0.2.1"', "transfer.notify", "transfer.allow beside it"),
        ('dns.prefer = "zone"', "dns.prefer", "host.zone"),
        ('[[service]]\nname = "a"\nport = 1\nprefer = "zone"', "service[0].prefer", "host.zone"),
        (
            'dns.forward = false\ndns.forward_allow = "10.0.0.0/8"',
            "dns.forward_allow",
            "forward is false",
        ),
        (
            'dns.forward = false\ndns.routes = { "a.example" = "192.0.2.1" }',
            "dns.routes",
            "forward is false",
        ),
        (
            'dns.allow = "0.0.0.0/0"\ndns.forward_allow = ["10.0.0.0/8", "0.0.0.0/0"]',
            "dns.forward_allow[1]",
            "an open resolver",
        ),
        (
            'dns.forward_allow = ["10.1.0.0/16", "192.0.2.0/24"]',
            "dns.forward_allow[1]",
            "inside dns.allow",
        ),
        (
            'dns.allow = "10.0.0.0/8"\ndns.forward_allow = "2001:db8::/32"',
            "dns.forward_allow[0]",
            "inside dns.allow",
        ),
        (
            'dns.routes = { "discod.internal" = "192.0.2.1" }',
            'dns.routes."discod.internal"',
            "outside discod.internal",
        ),
        (
            'dns.routes = { "a.discod.internal" = "192.0.2.1" }',
            'dns.routes."a.discod.internal"',
            "outside discod.internal",
        ),
        (
            'dns.routes = { "corp.example" = ["192.0.2.1", "127.0.0.1:5354"] }',
            'dns.routes."corp.example"[1]',
            "discod itself (dns.listen[0])",
        ),
        (
            'dns.listen = "[::]:53"\ndns.routes = { "corp.example" = "127.0.0.1" }',
            'dns.routes."corp.example"[0]',
            "discod itself",
        ),
        (
            'announce.aliases = { db = "pg" }\n[[service]]\nname = "db"\nport = 1',
            "announce.aliases.db",
            "service[0]",
        ),
        (
            'announce.aliases = { db = "db.discod.internal" }',
            "announce.aliases.db",
            "lead back: db -> db",
        ),
        (
            'announce.aliases = { a = "b", b = "c.discod.internal", c = "a", d = "a" }',
            "announce.aliases.a",
            "lead back: a -> b -> c -> a",
        ),
    ],
)
def test_keys_that_contradict_each_other(text: str, key: str, words: str) -> None:
    found = only(text)
    assert found.key == key
    assert words in found.expected
    assert found.line is not None


def test_an_open_allow_is_fine_without_forwarding() -> None:
    found = parse('[dns]\nallow = ["0.0.0.0/0", "::/0"]\nforward = false')
    assert found.dns != DnsSettings()


@pytest.mark.parametrize(
    "text",
    [
        TLS + 'dns.tls_cert = "/c"',
        'dns.allow = "0.0.0.0/0"\ndns.forward_allow = "10.0.0.0/8"',  # names for all, no relay
        'dns.allow = ["10.0.0.0/9", "10.128.0.0/9"]\ndns.forward_allow = "10.0.0.0/8"',
        'dns.routes = { "internal" = "192.0.2.1", "notdiscod.internal" = "192.0.2.2" }',
        'host.zone = "r1"\ndns.prefer = "zone"\n[[service]]\nname="a"\nport=1\nprefer="zone"',
        'announce.aliases = { a = "b", b = "c", d = "b.discod.internal", e = "e.example" }',
        'announce.aliases = { a = "blue.a.discod.internal" }',
        'transfer.allow = "192.0.2.0/24"\ntransfer.notify = "192.0.2.1"',
    ],
)
def test_keys_that_go_together(text: str) -> None:
    assert parse(text) != Settings()


def test_services_that_would_be_one_endpoint() -> None:
    table = '[[service]]\nname = "a"\nport = 1\n'
    found = only(f'{table}{table.replace("1", "2")}{table}protocol = "udp"\n{table}tags = "b"\n')
    assert (found.key, found.value, found.line) == ("service[3]", '"a"', 11)
    assert "service[0]" in found.expected


def test_a_faulty_service_hides_no_fault_of_the_others() -> None:
    table = '[[service]]\nname = "a"\nport = 1\n'
    assert [f.key for f in faults(f"{table}x = 1\n{table}{table}")] == [
        "service[0].x",
        "service[2]",
    ]


def test_no_fault_follows_from_another() -> None:
    assert only('[store]\nendpoints = "https://h"\ncert = "/c"\nkey = 5').key == "store.key"
    assert only('[dns]\nlisten = "x"\nupstreams = "127.0.0.1:5354"').key == "dns.listen"


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("[dns]\nlisten == 1", "line 2, column 9", 2),
        ("[dns", "Expected ']'", 1),
        ("a = 1\na = 2", "Cannot overwrite", 2),
        ("a = " + "9" * 5000, "expected TOML", None),
        ("a = " + "[" * 100_000, "nested too deeply", None),
    ],
)
def test_syntax_is_one_fault_with_its_place(text: str, words: str, line: int | None) -> None:
    found = only(text)
    assert found.key == ""
    assert words in found.expected
    assert found.line == line


def test_secrets_are_masked() -> None:
    found = faults('[store]\npassword = "hunter2"\nendpoints = ["http://root:hunter2@h:1"]\nx = 1')
    assert len(found) == 3
    assert all("hunter2" not in str(f) for f in found)
    assert "hunter2" not in str(only('[store]\npassword = "hunter2'))
    assert "hunter2" not in show_value({"token": "hunter2", "a": 1})


def test_what_is_shown_is_one_printable_line() -> None:
    text = '["a\\nb"]\n"\\u202e\\u007f" = "' + "x" * 5000 + '\\u0085"\nbig = 0x' + "f" * 20000
    for fault in [*faults(text), *faults("[log]\nlevel = '''\na\nb'''")]:
        assert str(fault).isprintable()
        assert len(str(fault)) < 400


def test_lines_are_found_behind_every_kind_of_value() -> None:
    lines = find_lines(
        'a = """x\nb = 1\n"""\n'  # 1
        "c = '''\n[t]\n'''\n"  # 4
        'd = [ # ]\n "]", [\n1]]\n'  # 7
        "e.f = {g = 1, h = '}'} # [x]\n"  # 10
        '[t."u.v"] # c\n'  # 11
        "'k' = 1\r\n"  # 12
        "[[s]]\n[s.x]\ny = 1\n[[s]]\n[s.x]\ny = 1\n"  # 13
        '"\\u0061b" = 2\n'  # 19
    )
    assert lines == {
        ("a",): 1,
        ("c",): 4,
        ("d",): 7,
        ("e",): 10,
        ("e", "f"): 10,
        ("t", "u.v"): 11,
        ("t", "u.v", "k"): 12,
        ("s", 0): 13,
        ("s", 0, "x"): 14,
        ("s", 0, "x", "y"): 15,
        ("s", 1): 16,
        ("s", 1, "x"): 17,
        ("s", 1, "x", "y"): 18,
        ("s", 1, "x", "ab"): 19,
    }


# Nothing but ConfigError ---------------------------------------------------------------------

PUNCTUATION = """[ ] [[ ]] { } = . , " ' """ + '"' * 3 + " ''' # \\ - 0x 1e999 nan inf true"
VALUES = "1979-05-27 07:32:00 memory http:// 127.0.0.1:53 10.1.2.3/8 ::/0 99999 500ms \0 é \ud800"
KEYS = [*SECTIONS, "service", *CHECK_RULES, *SECTIONS["dns"].by_key, "tags", "attributes"]
PIECES = st.sampled_from([*PUNCTUATION.split(), *VALUES.split(" "), *KEYS, "\n", "\r\n"])
NUMBERS = "1 -1 0.5 true nan 1979-05-27 99999999999999"
STRINGS = """ "" "a" "::1" "memory" "http://[::1" "1.2.3.4/8" [] ["a",1] [[]] {} {kind="tcp"}"""
SCALARS = st.sampled_from(f"{NUMBERS} {STRINGS}".split())


def survives(text: str) -> None:
    try:
        found = parse(text)
    except ConfigError as error:
        assert error.faults
        assert all(f.expected for f in error.faults)
        str(error).encode()
    else:
        assert isinstance(found, Settings)


@settings(deadline=None, max_examples=300)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=200))
def test_arbitrary_text(text: str) -> None:
    survives(text)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_mutated_example(data: st.DataObject) -> None:
    lines = uncomment(EXAMPLE).split("\n")
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(lines) - 1))
        key = lines[at].partition("=")[0]
        match data.draw(st.integers(0, 3)):
            case 0:
                lines[at] = f"{key}= {data.draw(SCALARS)}"
            case 1:
                lines[at] += data.draw(PIECES)
            case 2:
                lines.insert(at, lines[data.draw(st.integers(0, len(lines) - 1))])
            case _:
                del lines[at]
    survives("\n".join(lines))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_every_key_with_every_kind_of_value(data: st.DataObject) -> None:
    tables = []
    for name, section in SECTIONS.items():
        chosen = data.draw(st.sets(st.sampled_from(list(section.by_key))))
        tables.append(f"[{name}]\n" + "".join(f"{k} = {data.draw(SCALARS)}\n" for k in chosen))
    for _ in range(data.draw(st.integers(0, 2))):
        keys = data.draw(st.sets(st.sampled_from([f.key for f in SERVICE_FIELDS])))
        tables.append("[[service]]\n" + "".join(f"{k} = {data.draw(SCALARS)}\n" for k in keys))
    survives("\n".join(tables))


# Files ---------------------------------------------------------------------------------------


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "discod.toml"
    for content, words, line in (
        (None, "No such file", None),
        (b"a = 1\n# \xff", "expected UTF-8", 2),
        (b"#" * (SIZE_MAX + 1), f"at most {SIZE_MAX}", None),
    ):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        (fault,) = caught.value.faults
        assert words in fault.expected
        assert fault.line == line
        assert str(caught.value).startswith(str(file))
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path)


def _certificate(directory: Path, name: str) -> tuple[Path, Path]:
    cert, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return cert, key


def test_files_that_the_configuration_names(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path, "a")
    _, other = _certificate(tmp_path, "b")
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)

    def look(**store: object) -> dict[str, str]:
        whole: dict[str, Any] = {
            "endpoints": ("https://h:1",),
            "ca": str(cert),
            "cert": str(cert),
            "key": str(key),
            "username": "u",
            "password_file": str(password),
            **store,
        }
        resolver = DnsSettings(resolv_conf=str(password))
        found = check_files(Settings(store=StoreSettings(**whole), dns=resolver))
        return {fault.key: fault.expected for fault in found}

    assert look() == {}
    assert "its own" in look(key=str(other))["store.cert"]
    assert "PEM" in look(ca=str(password))["store.ca"]
    assert look(ca=str(tmp_path / "none")) == {
        "store.ca": "expected a readable file: No such file or directory"
    }
    assert look(key=str(tmp_path)) == {"store.key": "expected a regular file"}
    password.chmod(0o604)
    assert "mode 0604" in look()["store.password_file"]
    password.write_text("\n")
    password.chmod(0o600)
    assert "first line" in look()["store.password_file"]


def test_the_certificate_of_dns_over_tls(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path, "a")
    _, other = _certificate(tmp_path, "b")

    def look(cert: Path, key: Path) -> dict[str, str]:
        dns = DnsSettings(tls_cert=str(cert), tls_key=str(key), forward=False)
        return {fault.key: fault.expected for fault in check_files(Settings(dns=dns))}

    assert look(cert, key) == {}
    assert "its own, unencrypted dns.tls_key" in look(cert, other)["dns.tls_cert"]
    assert "PEM certificate" in look(key, key)["dns.tls_cert"]
    assert look(cert, tmp_path / "none") == {
        "dns.tls_key": "expected a readable file: No such file or directory"
    }


SECRET = "e5e973e5a6b2a43f48e7dc849e37bfcf"
KEY = "xfr.example. HMAC-SHA256 c2VjcmV0c2VjcmV0"


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("cookie", SECRET, []),
        ("cookie", f"# first makes\n{SECRET}\n\n{SECRET.upper()} # next\n", []),
        ("cookie", "", ["at least one line of 32"]),
        ("cookie", "# none\n", ["at least one line of 32"]),
        ("cookie", f"{SECRET}\n{SECRET}0\nx", ["line 2: expected 32", "line 3: expected 32"]),
        ("cookie", "\xff", ["UTF-8"]),
        ("cookie", "\n" * ((1 << 20) + 1), ["UTF-8 text of at most"]),
        ("keys", KEY, []),
        ("keys", f"# all\n\n{KEY}\nother_key hmac-sha512 {'A' * 88} # c\n", []),
        ("keys", " \n", ["at least one line NAME"]),
        ("keys", "a hmac-sha256", ["line 1: expected NAME ALGORITHM BASE64"]),
        ("keys", "a hmac-md5 c2VjcmV0c2VjcmV0", ["line 1: expected one of hmac-sha1, "]),
        ("keys", "a b c d", ["line 1: expected NAME"]),
        ("keys", "a hmac-sha1 !", ["line 1: expected a secret"]),
        ("keys", "a hmac-sha1 c2VjcmV0", ["line 1: expected a secret of 8 octets"]),
        ("keys", f"-a {KEY.partition(' ')[2]}", ["line 1: expected a domain name"]),
        ("keys", f"{KEY}\n{KEY.upper()[:11]} hmac-sha1 {'A' * 16}", ["than line 1 has"]),
    ],
)
def test_files_of_secrets(tmp_path: Path, key: str, text: str, words: list[str]) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(text.encode("latin-1"))
    file.chmod(0o640)
    dns = DnsSettings(forward=False)
    named = {
        "cookie": Settings(dns=replace(dns, cookie_secret_file=str(file))),
        "keys": Settings(dns=dns, transfer=TransferSettings(keys=str(file))),
    }[key]
    found = check_files(named)
    assert len(found) == len(words), found
    for fault, expected in zip(found, words, strict=True):
        assert fault.key == {"cookie": "dns.cookie_secret_file", "keys": "transfer.keys"}[key]
        assert fault.value == f'"{file}"'
        assert expected in fault.expected
        assert "c2VjcmV0" not in str(fault)
        assert SECRET not in str(fault)
    file.chmod(0o644)
    assert len(check_files(named)) == len(words) + ("UTF-8" not in "".join(words))
    if not words:
        assert "no access for others (mode 0644" in check_files(named)[0].expected
    file.unlink()
    (fault,) = check_files(named)
    assert "No such file" in fault.expected


def test_resolv_conf_is_needed_only_without_upstreams(tmp_path: Path) -> None:
    gone = str(tmp_path / "resolv.conf")
    (fault,) = check_files(Settings(dns=DnsSettings(resolv_conf=gone)))
    assert fault.key == "dns.resolv_conf"
    assert fault.line is None
    upstream = (ListenAddress(ip_address("192.0.2.1"), 53),)
    for dns in (
        DnsSettings(resolv_conf=gone, upstreams=upstream),
        DnsSettings(resolv_conf=gone, forward=False),
        DnsSettings(resolv_conf=gone, listen=()),
    ):
        assert check_files(Settings(dns=dns)) == ()

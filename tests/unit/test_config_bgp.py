"""``[bgp]``: every fault is named at once, and example, documentation and tables agree."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discod.config import EXAMPLE_PATH, ConfigError, ConfigFault, check_files, parse_config
from discod.config_bgp import BGP, PEER
from discod.config_fields import Section
from discod.model.bgp_settings import BgpPeerSettings, BgpSettings, PrefixRule
from discod.model.settings import Settings
from discod.reload import needs_restart

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/config.md").read_text()
ETCD = 'store = "http://192.0.2.9:2379"\n'
HEAD = "[bgp]\nasn = 64512\n"
PEER_HEAD = '[[bgp.peer]]\naddress = "192.0.2.1"\nasn = 65001\n'
INTERNAL = '[[bgp.peer]]\naddress = "192.0.2.1"\nasn = 64512\n'


def bgp(text: str) -> BgpSettings:
    found = parse_config(text, origin="test.toml").bgp
    assert found is not None
    return found


def faults(text: str) -> dict[str, str]:
    """Key -> expected."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, origin="test.toml")
    return {fault.key: fault.expected for fault in caught.value.faults}


def test_the_table_switches_it_on() -> None:
    assert parse_config("", origin="x").bgp is None
    assert bgp(HEAD) == BgpSettings(asn=64512)
    assert bgp(HEAD + PEER_HEAD).peers == (BgpPeerSettings(ip_address("192.0.2.1"), 65001),)


def test_its_tables_fill_every_attribute() -> None:
    assert {f.target for f in BGP.fields} | {"peers"} == {f.name for f in fields(BgpSettings)}
    assert {f.target for f in PEER.fields} == {f.name for f in fields(BgpPeerSettings)}


def test_every_key_stands_in_the_example_once_uncommented() -> None:
    text = re.sub(r"(?m)^#(?! |$)", "", EXAMPLE_PATH.read_text())
    document = tomllib.loads(text)["bgp"]
    peers = document.pop("peer")
    assert list(document) == [f.key for f in BGP.fields]
    assert {key for peer in peers for key in peer} == {f.key for f in PEER.fields}
    found = bgp(text)
    plain = BgpSettings(asn=64512, mesh_imports=found.mesh_imports, peers=found.peers)
    assert found == plain


def _rows(heading: str) -> dict[str, tuple[str, str, str]]:
    body = DOCS.split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| `")]
    return {key.strip("`"): (default, rule, about) for key, default, rule, about in rows}


@pytest.mark.parametrize(
    ("heading", "section", "head"),
    [("## [bgp]", BGP, HEAD), ("### [[bgp.peer]]", PEER, HEAD + PEER_HEAD)],
)
def test_the_documentation_has_every_key_its_default_and_its_rule(
    heading: str, section: Section, head: str
) -> None:
    rows = _rows(heading)
    assert list(rows) == [f.key for f in section.fields]
    for field in section.fields:
        default, rule, about = rows[field.key]
        assert rule == field.rule.text
        assert about
        assert (default == "required") == field.required
        if default.startswith("`"):
            assert bgp(f"{head}{field.key} = {default.strip('`')}") == bgp(head), field.key


# Values --------------------------------------------------------------------------------------


def test_prefix_lists() -> None:
    rules = '["10.0.0.0/8", "10.0.0.0/8 ge 24 le 30", "deny 10.9.0.0/16 le 32", "permit ::/0 ge 1"]'
    assert bgp(f"{HEAD}{PEER_HEAD}imports = {rules}").peers[0].imports == (
        PrefixRule(ip_network("10.0.0.0/8")),
        PrefixRule(ip_network("10.0.0.0/8"), True, 24, 30),
        PrefixRule(ip_network("10.9.0.0/16"), False, None, 32),
        PrefixRule(ip_network("::/0"), True, 1),
    )
    assert bgp(f"{HEAD}{PEER_HEAD}imports = []").peers[0].imports == ()


@pytest.mark.parametrize(
    "rule",
    [
        "10.0.0.0/8 ge 33",
        "10.0.0.0/8 le 7",
        "10.0.0.0/8 ge 25 le 24",
        "10.0.0.1/8",
        "allow 10.0.0.0/8",
        "10.0.0.0/8 le",
        "10.0.0.0/8 le 32 ge 8",
        "",
        "::/0 le 129",
    ],
)
def test_lines_that_are_none(rule: str) -> None:
    ((key, expected),) = faults(f'{HEAD}{PEER_HEAD}exports = ["{rule}"]').items()
    assert key == "bgp.peer[0].exports[0]"
    assert "lines of a prefix list" in expected


@pytest.mark.parametrize("community", ["65000:1", "1:2:4294967295", "no-export"])
def test_communities(community: str) -> None:
    found = bgp(f'{HEAD}{PEER_HEAD}communities = "{community}"')
    assert found.peers[0].communities == (community,)


@pytest.mark.parametrize("value", ['"65536:1"', '"1:2:4294967296"', '"no-exports"', '"1"', "1"])
def test_communities_that_are_none(value: str) -> None:
    assert faults(f"{HEAD}{PEER_HEAD}communities = [{value}]").keys() == {
        "bgp.peer[0].communities[0]"
    }


@pytest.mark.parametrize("asn", ["0", "23456", "65535", "4294967295", "4294967296", "-1", '"1"'])
def test_numbers_that_no_as_has(asn: str) -> None:
    assert faults(f"[bgp]\nasn = {asn}").keys() == {"bgp.asn"}
    text = f'{HEAD}[[bgp.peer]]\naddress = "192.0.2.1"\nasn = {asn}'
    assert faults(text).keys() == {"bgp.peer[0].asn"}


@pytest.mark.parametrize("asn", ["1", "64512", "65536", "4294967294"])
def test_numbers_that_one_has(asn: str) -> None:
    assert bgp(f"[bgp]\nasn = {asn}").asn == int(asn)


def test_reserved_numbers_name_who_reserves_them() -> None:
    for asn, rfc in ((0, "RFC 7607"), (23456, "RFC 6793"), (65535, "RFC 7300")):
        assert rfc in faults(f"[bgp]\nasn = {asn}")["bgp.asn"]


@pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("3", 3), ('"90s"', 90), ('"1m"', 60)])
def test_hold_times(value: str, seconds: int) -> None:
    assert bgp(f"{HEAD}{PEER_HEAD}hold_time = {value}").peers[0].hold_time == seconds


@pytest.mark.parametrize("value", ["1", "2", "65536", '"1s"', "3.5", "true", '"500ms"'])
def test_hold_times_that_are_none(value: str) -> None:
    assert faults(f"{HEAD}{PEER_HEAD}hold_time = {value}").keys() == {"bgp.peer[0].hold_time"}


@pytest.mark.parametrize("value", ["0.0.0.0", "::1", "host", "1.2.3"])
def test_router_ids_that_are_none(value: str) -> None:
    assert faults(f'{HEAD}router_id = "{value}"').keys() == {"bgp.router_id"}


@pytest.mark.parametrize("value", [4, 12, 16, 42, 186, 196, 256])
def test_route_protocols_of_others(value: int) -> None:
    assert faults(f"{HEAD}protocol = {value}").keys() == {"bgp.protocol"}


# Together ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (HEAD + "mesh = true", "bgp.mesh", "etcd"),
        (HEAD + 'backend = "kernel"\n' + PEER_HEAD, "bgp.peer", 'backend = "native"'),
        (ETCD + HEAD + 'mesh = true\nbackend = "kernel"', "bgp.mesh", 'backend = "native"'),
        (HEAD + 'backend = "kernel"\nlisten = "192.0.2.5:179"', "bgp.listen", "native"),
        (HEAD + "reflector = true", "bgp.reflector", "mesh = true"),
        (HEAD + "mesh_max_prefixes = 5", "bgp.mesh_max_prefixes", "mesh = true"),
        (HEAD + 'cluster_id = "192.0.2.1"', "bgp.cluster_id", "reflector"),
        (HEAD + 'source = ["192.0.2.1", "192.0.2.2"]', "bgp.source[1]", "at most one"),
        (
            HEAD + 'networks = "10.1.0.0/16"\nanycast = { web = "10.1.2.3" }',
            "bgp.anycast.web",
            "outside bgp.networks",
        ),
        (
            HEAD + 'aggregates = "10.1.0.0/16"\nanycast = { web = "10.1.2.3" }',
            "bgp.anycast.web",
            "outside bgp.aggregates",
        ),
        (
            HEAD + 'anycast = { a = "192.0.2.80", b = "192.0.2.80" }',
            "bgp.anycast.b",
            "bgp.anycast.a does not",
        ),
        (
            'host.addresses = "192.0.2.7"\n' + HEAD + 'anycast = { a = "192.0.2.7" }',
            "bgp.anycast.a",
            "host's own",
        ),
        (
            'host.addresses = ["192.0.2.1"]\n' + HEAD + PEER_HEAD,
            "bgp.peer[0].address",
            "our own",
        ),
        (HEAD + 'source = "192.0.2.1"\n' + PEER_HEAD, "bgp.peer[0].address", "our own"),
        (HEAD + PEER_HEAD.replace("192.0.2.1", "::1"), "bgp.peer[0].address", "our own"),
        (HEAD + PEER_HEAD.replace("192.0.2.1", "fe80::1"), "bgp.peer[0].address", "link-local"),
        (HEAD + PEER_HEAD + INTERNAL, "bgp.peer[1].address", "bgp.peer[0] has"),
        (HEAD + PEER_HEAD + 'source = "2001:db8::1"', "bgp.peer[0].source", "IPv4"),
        (HEAD + PEER_HEAD + "gtsm = 1\nttl = 2", "bgp.peer[0].ttl", "RFC 5082"),
        (HEAD + PEER_HEAD + "local_pref = 5", "bgp.peer[0].local_pref", "internal"),
        (HEAD + PEER_HEAD + "reflector_client = true", "bgp.peer[0].reflector_client", "internal"),
        (HEAD + INTERNAL + "prepend = 2", "bgp.peer[0].prepend", "external"),
        (HEAD + INTERNAL + "import_local_pref = 2", "bgp.peer[0].import_local_pref", "external"),
        (
            HEAD + PEER_HEAD + 'max_prefixes_restart = "1m"',
            "bgp.peer[0].max_prefixes_restart",
            "max_prefixes",
        ),
        (
            HEAD + PEER_HEAD + 'imports = ["10.0.0.0/8 le 32", "deny 10.1.0.0/16"]',
            "bgp.peer[0].imports[1]",
            "comes first and permits",
        ),
        (
            HEAD + PEER_HEAD + 'exports = ["deny ::/0 le 128", "2001:db8::/32"]',
            "bgp.peer[0].exports[1]",
            "comes first and denies",
        ),
        (
            ETCD + HEAD + 'mesh = true\nmesh_imports = ["::/0 ge 8", "::/0 ge 9"]',
            "bgp.mesh_imports[1]",
            "can match",
        ),
        (
            HEAD + PEER_HEAD + 'families = "ipv4"\nimports = "::/0 le 128"',
            "bgp.peer[0].imports[0]",
            'expected "ipv6"',
        ),
        (
            'dns.listen = "192.0.2.5:179"\n' + HEAD + 'listen = "192.0.2.5:179"',
            "bgp.listen[0]",
            "dns.listen[0]",
        ),
        (
            'http.listen = "192.0.2.5:179"\n' + HEAD + PEER_HEAD + "passive = true",
            "bgp.port",
            "http.listen[0]",
        ),
        (ETCD + HEAD + "mesh = true\nport = 9355", "bgp.port", "liveness.port"),
        (HEAD + "asm = 1", "bgp.asm", "did you mean asn"),
        (HEAD + PEER_HEAD + "hold_tim = 1", "bgp.peer[0].hold_tim", "did you mean hold_time"),
        (HEAD + "peer = 5", "bgp.peer", "[[bgp.peer]]"),
        ("bgp = 5", "bgp", "[bgp]"),
        ("[bgp]", "bgp.asn", "missing"),
        (HEAD + '[[bgp.peer]]\naddress = "192.0.2.1"', "bgp.peer[0].asn", "missing"),
    ],
)
def test_what_does_not_go_together(text: str, key: str, words: str) -> None:
    found = faults(text)
    assert found.keys() == {key}
    assert words in found[key]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + PEER_HEAD.replace("192.0.2.1", "127.0.0.1") + "port = 1179",
        HEAD + PEER_HEAD + 'imports = ["deny 10.1.0.0/16", "10.0.0.0/8 le 32"]',
        HEAD + PEER_HEAD + 'imports = ["10.0.0.0/8 le 24", "10.0.0.0/8 le 32"]',
        HEAD + INTERNAL + 'reflector_client = true\n[bgp.anycast]\nweb = "192.0.2.80"',
        ETCD + HEAD + "mesh = true\nreflector = true",
        'http.listen = "192.0.2.5:179"\n' + HEAD + PEER_HEAD,
        HEAD + 'backend = "kernel"\naggregates = "10.1.0.0/16"',
    ],
)
def test_what_does(text: str) -> None:
    assert bgp(text).asn == 64512


def test_all_faults_at_once_and_none_twice() -> None:
    text = f"""{HEAD}router_id = "0.0.0.0"
mesh = true
unheard = 1
{PEER_HEAD}hold_time = 2
gtsm = 1
ttl = 9
imports = ["10.0.0.0/8 le 32", "10.1.0.0/16", "10.0.0.0/8 le 99"]
[[bgp.peer]]
address = "192.0.2.1"
asn = 0
"""
    assert faults(text).keys() == {
        "bgp.router_id",
        "bgp.mesh",
        "bgp.unheard",
        "bgp.peer[0].hold_time",
        "bgp.peer[0].ttl",
        "bgp.peer[0].imports[2]",
        "bgp.peer[1].asn",
    }


NUMBERS = st.sampled_from(["1", "-1", "0", "64512", "true", "nan", "4294967295", "9" * 30])
STRINGS = st.sampled_from(['""', '"::1"', '"10.0.0.0/8 le 32"', "[]", '["a", 1]', "{}", "{a = 1}"])


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_whatever_the_values_only_faults_are_raised(data: st.DataObject) -> None:
    text = ""
    for head, section in (("[bgp]", BGP), ("[[bgp.peer]]", PEER)):
        chosen = data.draw(st.sets(st.sampled_from([f.key for f in section.fields])))
        text += f"{head}\n"
        for key in sorted(chosen):
            text += f"{key} = {data.draw(NUMBERS | STRINGS)}\n"
    try:
        found = parse_config(text, origin="x")
    except ConfigError as error:
        assert all(fault.expected for fault in error.faults)
    else:
        assert isinstance(found, Settings)


# Files and reloads ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0, "No such file"),
        (b"", 0o600, "on its first line"),
        (b"  \nhunter2", 0o600, "on its first line"),
        (b"x" * 81 + b"\n", 0o600, "at most 80 octets, found 81"),
        (b"hunter2", 0o604, "no access for others"),
        (b"x" * 80 + b"\nrest", 0o600, ""),
        (b"caf\xc3\xa9 \xff\n", 0o600, ""),
    ],
)
def test_password_files(tmp_path: Path, content: bytes | None, mode: int, words: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    text = f'{ETCD}dns.forward = false\n{HEAD}mesh = true\nmesh_password_file = "{file}"\n'
    text += f'{PEER_HEAD}password_file = "{file}"'
    found: tuple[ConfigFault, ...] = check_files(parse_config(text, origin="x"))
    if not words:
        assert found == ()
        return
    assert [fault.key for fault in found] == [
        "bgp.mesh_password_file",
        "bgp.peer[0].password_file",
    ]
    for fault in found:
        assert words in fault.expected
        assert "hunter2" not in fault.expected


def test_which_changes_take_a_restart() -> None:
    before = Settings(bgp=BgpSettings(asn=64512))
    assert before.bgp is not None
    live = replace(before.bgp, announce="none", networks=(ip_network("10.0.0.0/8"),), drain=1.0)
    live = replace(live, peers=bgp(HEAD + PEER_HEAD).peers)
    assert needs_restart(before, replace(before, bgp=live)) == ()
    fixed = replace(before.bgp, asn=64513, mesh=True)
    assert needs_restart(before, replace(before, bgp=fixed)) == ("bgp.asn", "bgp.mesh")
    assert needs_restart(before, Settings()) == ("bgp",)
    assert needs_restart(Settings(), before) == ("bgp",)

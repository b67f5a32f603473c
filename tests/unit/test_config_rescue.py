"""``[rescue]``, ``[vip]`` and the keys of services that belong to them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from discod.announce_request import AnnounceError, parse_announce
from discod.config import ConfigError, parse_config
from discod.model.rescue_settings import RescueSettings, VipSettings
from discod.model.settings import Settings
from discod.model.vip import VipWord
from discod.reload import needs_restart

BGP = "[bgp]\nasn = 64512\n"
POOL = '[vip]\npool = ["10.96.0.0/16", "fd00:96::/112"]\n'
WEB = '[[service]]\nname = "web"\nport = 80\n'
V4, V6 = ip_address("10.96.0.5"), ip_address("fd00:96::5")


def parse(text: str) -> Settings:
    return parse_config(text, origin="test.toml")


def faults(text: str) -> dict[str, str]:
    """Key -> expected."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return {fault.key: fault.expected for fault in caught.value.faults}


def test_everything_is_off_by_default() -> None:
    found = parse("")
    assert found.rescue == RescueSettings()
    assert not found.rescue.enabled
    assert found.vip == VipSettings()


def test_all_keys() -> None:
    found = parse(
        f"{BGP}{POOL}[rescue]\nenabled = true\nhold = '1m'\nmax_hold = '2h'\nmax_entries = 10\n"
        "refuse = false\ntakeover = true\n"
    )
    assert found.rescue == RescueSettings(True, 60.0, 7200.0, 10, False, True)
    assert found.vip.pool == (ip_network("10.96.0.0/16"), ip_network("fd00:96::/112"))


def test_a_short_maximum_brings_the_default_down() -> None:
    assert parse("[rescue]\nmax_hold = '1m'").rescue.hold == 60.0


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[rescue]\nhold = '2h'\nmax_hold = '1h'", "rescue.hold", "at most rescue.max_hold, 1h"),
        ("[rescue]\nhold = 0", "rescue.hold", "a duration from 1s"),
        ("[rescue]\nmax_entries = 0", "rescue.max_entries", "from 1 to 65536"),
        ("[rescue]\nenabled = 'true'", "rescue.enabled", "without quotes"),
        (f"{BGP}[rescue]\ntakeover = true", "rescue.takeover", "also rescue.enabled = true"),
        ("[rescue]\nenabled = true\ntakeover = true", "rescue.takeover", "also [bgp]"),
        ("[vip]\npool = ['10.96.0.1/16']", "vip.pool[0]", "the network of that address"),
        ("[vip]\npool = '0.0.0.0/0'", "vip.pool", "/8 or longer"),
        ("[vip]\npool = '224.0.0.0/8'", "vip.pool", "unicast"),
        ("[vip]\npool = 'fe80::/64'", "vip.pool", "unicast"),
        ("[vip]\npool = ['10.0.0.0/16', '10.0.0.0/16']", "vip.pool[1]", "no duplicate"),
        ("[vip]\npool = ['10.0.0.0/16', '10.0.4.0/24']", "vip.pool[1]", "apart from [0]"),
        ("[vip]\npool = ['10.0.4.0/24', '10.0.0.0/16']", "vip.pool[1]", "apart from [0]"),
        (
            f"{BGP}networks = ['10.96.1.0/24']\n{POOL}",
            "vip.pool[0]",
            "apart from bgp.networks (10.96.1.0/24)",
        ),
        (
            f"{BGP}aggregates = ['fd00:96::/64']\n{POOL}",
            "vip.pool[1]",
            "apart from bgp.aggregates",
        ),
        (f"{BGP}source = '10.96.0.9'\n{POOL}", "vip.pool[0]", "bgp.source or bgp.listen"),
        (f"[host]\naddresses = '10.96.0.9'\n{POOL}", "vip.pool[0]", "host.addresses"),
        (f"[dns]\nlisten = '10.96.0.9:53'\n{POOL}", "vip.pool[0]", "dns.listen"),
        (f"{POOL}{WEB}address = 'fd00:96::7'", "vip.pool[1]", "service[0].address"),
        (f"{WEB}vip = 'auto'", "service[0].vip", "also vip.pool"),
        (f"{POOL}{WEB}vip = 'yes'", "service[0].vip", '"auto", "none", or a list'),
        (f"{POOL}{WEB}vip = true", "service[0].vip", '"auto", "none", or a list'),
        (f"{POOL}{WEB}vip = ['10.96.0.1', '10.96.0.2']", "service[0].vip", "at most one IPv4"),
        (f"{POOL}{WEB}vip = ['10.96.0.1', 'auto']", "service[0].vip[1]", "ADDRESS"),
        (f"{POOL}{WEB}vip = '127.0.0.1'", "service[0].vip", "unicast"),
        (f"{POOL}{WEB}vip = '10.97.0.1'", "service[0].vip", "not 10.97.0.1"),
        (f"{POOL}{WEB}affinity = true", "service[0].affinity", 'one of "none", "client"'),
        (f"{POOL}{WEB}rescue = 'no'", "service[0].rescue", "true or false"),
        (
            f"{POOL}{WEB}vip = '10.96.0.1'\n{WEB.replace('web', 'api')}vip = '10.96.0.1'",
            "service[1].vip",
            "that service[0] does not have",
        ),
        (
            f"{POOL}{WEB}vip = '10.96.0.1'\n{WEB.replace('80', '81')}vip = 'auto'",
            "service[1].vip",
            "what service[0] has",
        ),
    ],
)
def test_one_fault(text: str, key: str, words: str) -> None:
    ((found, expected),) = faults(text).items()
    assert found == key
    assert words in expected


def test_what_follows_from_another_fault_is_not_told() -> None:
    assert list(faults("[rescue]\nenabled = 5\ntakeover = true\n[bgp]\nasn = 5")) == [
        "rescue.enabled"
    ]
    assert list(faults(f"[vip]\npool = 'x'\n{WEB}vip = 'auto'")) == ["vip.pool"]
    assert list(faults("bgp = 5\n[rescue]\nenabled = true\ntakeover = true")) == ["bgp"]


def test_pools_of_any_size_and_wildcard_listeners_are_fine() -> None:
    found = parse(
        "[dns]\nlisten = ['0.0.0.0:53', '[::]:53']\nreverse_zones = ['10.0.0.0/8']\n"
        "[vip]\npool = ['10.0.0.0/8', '192.0.2.1/32', 'fd00::/8']"
    )
    assert len(found.vip.pool) == 3


@pytest.mark.parametrize(
    ("written", "word"),
    [
        ("'auto'", "auto"),
        ("'none'", ()),
        ("'10.96.0.5'", (V4,)),
        ("['fd00:96::5', '10.96.0.5']", (V4, V6)),
    ],
)
def test_services(written: str, word: VipWord) -> None:
    text = f"{POOL}{WEB}vip = {written}\nrescue = false\naffinity = 'client'"
    (service,) = parse(text).services
    assert (service.rescue, service.vip, service.affinity) == (False, word, True)
    (plain,) = parse(WEB).services
    assert (plain.rescue, plain.vip, plain.affinity) == (True, (), False)


def test_two_ports_of_a_service_may_share_its_address() -> None:
    text = f"{POOL}{WEB}vip = '10.96.0.1'\n{WEB.replace('80', '81')}vip = '10.96.0.1'"
    assert len(parse(text).services) == 2


def test_a_command_asks_with_the_same_keys() -> None:
    asked = {"name": "web", "port": 80, "rescue": False, "vip": ["10.96.0.5"], "affinity": "client"}
    (service,) = parse_announce({"services": [asked]})
    assert (service.rescue, service.vip, service.affinity) == (False, (V4,), True)
    with pytest.raises(AnnounceError, match=r"services\[0\].vip"):
        parse_announce({"services": [{**asked, "vip": ["10.96.0.5", "10.96.0.6"]}]})


def test_what_takes_a_restart() -> None:
    before = Settings()
    live = RescueSettings(False, 60.0, 7200.0, 10, False, True)
    assert needs_restart(before, replace(before, rescue=live)) == ()
    enabled = replace(before, rescue=RescueSettings(enabled=True))
    assert needs_restart(before, enabled) == ("rescue.enabled",)
    pooled = replace(before, vip=VipSettings((ip_network("10.96.0.0/16"),)))
    assert needs_restart(before, pooled) == ("vip.pool",)

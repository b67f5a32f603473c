"""Fuzz targets: configuration files, announcements as JSON, and what people ask `explain`.

Rule: each target raises when anything but the declared exception comes out, or when a message would
not fit on a person's screen.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from discod import api, query
from discod.announce_request import AnnounceError, parse_announce
from discod.config import EXAMPLE_PATH
from discod.config_fault import ConfigError
from discod.config_parse import parse_config
from discod.http import read_json
from discod.model.endpoint import Endpoint
from tests.fuzz.cluster import BEFORE, rendered

LINE_MAX = 4000
"""Characters of one message; the longest names every key of a table."""


def config(data: bytes) -> None:
    """Target: the text of a configuration file."""
    text = data.decode("utf-8", "replace")
    try:
        settings = parse_config(text, origin="f")
    except ConfigError as error:
        assert error.faults
        rows = text.count("\n") + 2
        for fault in error.faults:
            shown = str(fault)
            assert shown.isprintable(), repr(shown)
            assert len(shown) <= LINE_MAX, len(shown)
            assert fault.line is None or 1 <= fault.line <= rows
            shown.encode()
        return
    assert parse_config(text, origin="f") == settings
    names = [(one.name, one.port_name, one.port, one.protocol) for one in settings.services]
    assert all(names)


def config_seeds() -> list[bytes]:
    """The example, whole with every key in use, and in parts."""
    text = Path(EXAMPLE_PATH).read_text()
    used = re.sub(r"(?m)^#(?=[a-z_]+ = |\[\[)", "", text)
    parts = [part.encode() for part in re.split(r"(?m)^(?=\[)", used) if part.startswith("[")]
    return [
        *parts,
        b'store = "memory"\n',
        b'store = ["http://10.0.0.1:2379"]\n[dns]\nlisten = ["127.0.0.1:1", "[::1]:1"]\n',
        b"[[service]]\nname = \"a\"\nport = 1\ncheck = 'tcp'\n[[service]]\nname = 'a'\nport = 1\n",
        b'[dns]\nlistne = 1\nudp_size = "1232"\n[nds]\na = {b.c = [1, """x\ny"""]}\n',
        b'[host]\nname = "a"\n"na\\u006de" = 1',
        b"[store]\npassword = 'x'\nendpoints = ['http://u:p@h:1']",
    ]


CONFIG_WORDS = (
    *b"[host] [store] [announce] [checks] [dns] [transfer] [http] [log] [[service]] name port "
    b"domain allow endpoints lease_ttl check kind path attributes aliases routes = true false "
    b'"1s" "500ms" "127.0.0.1:53" "[::1]:53" "10.0.0.0/8" "http://h:1" 1979-05-27 0x10 1_000 inf '
    b'nan """ \'\'\' {} [] a.b "memory" "tcp" 07:32:00'.split(),
    b"\n", b"\n[", b" = ",
)  # fmt: skip


def announce(data: bytes) -> None:
    """Target: the body of ``POST /v1/announce``."""
    try:
        document = read_json(data)
    except (ValueError, RecursionError):
        return  # refused, with that reason
    try:
        services = parse_announce(document)
    except AnnounceError as error:
        assert error.faults
        for fault in error.faults:
            assert len(str(fault)) <= LINE_MAX
        rendered(api.error(error.faults[0], error.faults[1:]))
        return
    assert services
    for one in services:
        assert one.check is None or one.check.kind != "cmd", "a program would run"
        rendered([one.name, one.port_name, list(one.tags), list(one.attributes)])


def announce_seeds() -> list[bytes]:
    """Announcements of every form."""
    full = {
        "name": "job", "port": 80, "address": ["192.0.2.1"], "protocol": "tcp", "port_name": "http",
        "tags": ["a", "b"], "weight": 1, "priority": 1, "attributes": {"k": "v"}, "ttl": 3,
        "alpn": ["h2"], "prefer": "local", "check": {"kind": "http", "port": 81, "path": "/x"},
    }  # fmt: skip
    found: list[object] = [
        {"services": [{"name": "a", "port": 1}]},
        {"services": [full, {"name": "b", "port": 2, "check": "tcp"}]},
        {"services": [{"name": "c", "port": 3, "check": {"kind": "cmd", "command": ["/bin/x"]}}]},
        {"services": [{"nmae": "\ud800", "port": "80"}, 7]},
        {"services": []},
        [],
    ]
    return [json.dumps(one).encode() for one in found]


ANNOUNCE_WORDS = tuple(
    b'"services" "name" "port" "address" "protocol" "port_name" "tags" "weight" "attributes" '
    b'"kind" "tcp" "http" "cmd" "path" "command" "\\ud800" "\\u0000" 1e400 NaN null [] {} true 80'
    b"".split()
)


def explain(data: bytes) -> None:
    """Target: what `explain` is asked."""
    text = data.decode("utf-8", "replace")
    asked = query.parse(text, BEFORE.domain)
    assert len(asked.text) <= query.QUERY_MAX
    asked.kind()
    assert asked.node == "" or asked.service == ""
    name = asked.dns_name(BEFORE.domain)
    assert len(name) <= 2 * query.QUERY_MAX
    found: list[Endpoint] = [one for one in BEFORE.endpoints() if asked.is_endpoint(one)]
    for one in found:
        parts = (one.service, one.instance, one.container_name, str(one.address), *one.tags)
        assert any(part and part.lower() in text.lower() for part in parts) or asked.address, text


def explain_seeds() -> list[bytes]:
    """Questions of every form."""
    return [
        b"web", b"alpha-c1-80.web", b"_http._tcp.web.discod.internal.", b"blue.web", b"10.101.1.2",
        b"10.101.1.2:80", b"[2001:db8:1::2]:80", b"2001:db8:1::2", b"alpha.node.discod.internal",
        b"www.example.com.", b"abcd1234", b"/web-1", b"discod.internal", b"1.2.3.4:99999", b"..",
    ]  # fmt: skip


EXPLAIN_WORDS = tuple(b"web alpha-c1-80 _http _tcp . .. : [ ] % discod.internal node blue".split())

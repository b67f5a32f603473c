"""What is shipped beside the program: checked by the programs that will read it."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from discod.config import parse_config
from discod.metrics import Durations, Metrics
from resolver.hot.spawn import CONTROL_BUFFER, QUERIES_BUFFER
from resolver.udp import BUFFER

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
EXPOSURE_MAX = 2.0
"""Of 10, as `systemd-analyze security` counts; 1.7 when this was written."""
EXPOSURE_MORE_MAX = 3.0
"""With drop-ins; 2.9 with all of them."""
FOREIGN_METRICS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}


def run(*argv: str | Path, cwd: Path = ROOT) -> str:
    """Run a program that has to succeed; both of its outputs."""
    done = subprocess.run(
        argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


# The unit ------------------------------------------------------------------------------------


def unit(name: str = "discod.service") -> dict[str, list[str]]:
    """Every setting of the unit, with all of its values."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    text = (DEPLOY / "discod.service").read_text()
    # "verify" looks for the program too; nothing is installed here.
    program = tmp_path / "discod"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    changed, count = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={program}", text)
    assert count == 1
    (tmp_path / "discod.service").write_text(changed)
    assert run("systemd-analyze", "verify", tmp_path / "discod.service") == ""
    sockets = tmp_path / "discod-dns.socket"
    sockets.write_text((DEPLOY / "discod-dns.socket").read_text())
    assert run("systemd-analyze", "verify", sockets) == ""


def test_the_unit_is_hardened() -> None:
    out = run(
        "systemd-analyze", "security", "--offline=true", "--no-pager", DEPLOY / "discod.service"
    )
    match = re.search(r"Overall exposure level for discod\.service: ([0-9.]+)", out)
    assert match, out
    assert float(match[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize("drop_ins", [("bgp",), ("rescue",), ("bgp", "rescue")])
def test_drop_ins_are_accepted_and_bounded(tmp_path: Path, drop_ins: Sequence[str]) -> None:
    text = (DEPLOY / "discod.service").read_text()
    place = tmp_path / "discod.service"
    place.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    (tmp_path / "discod.service.d").mkdir()
    for name in drop_ins:
        file = DEPLOY / f"systemd/discod-{name}.conf"
        (tmp_path / f"discod.service.d/{name}.conf").write_text(file.read_text())
    assert run("systemd-analyze", "verify", place) == ""
    out = run("systemd-analyze", "security", "--offline=true", "--no-pager", place)
    match = re.search(r"Overall exposure level for discod\.service: ([0-9.]+)", out)
    assert match, out
    # The control: that it is above says that the drop-in was read.
    assert EXPOSURE_MAX < float(match[1]) <= EXPOSURE_MORE_MAX


def test_what_rescue_relies_on() -> None:
    settings = unit("systemd/discod-rescue.conf")
    assert settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"]
    assert set(settings["AmbientCapabilities"][0].split()) == {
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
    }
    assert settings["RestrictNamespaces"] == ["net"]
    assert {"AF_NETLINK", "AF_PACKET"} < set(settings["RestrictAddressFamilies"][0].split())


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("Type", ["notify"]),
        ("WatchdogSec", ["15"]),
        ("Restart", ["always"]),
        ("StartLimitIntervalSec", ["0"]),
        ("User", ["discod"]),
        ("AmbientCapabilities", ["CAP_NET_BIND_SERVICE"]),
        ("CapabilityBoundingSet", ["CAP_NET_BIND_SERVICE"]),
        # Without it the lease id is lost at a restart, and names would flap.
        ("RuntimeDirectoryPreserve", ["yes"]),
        # "invisible" would hide that dockerd shares our PID namespace.
        ("ProtectProc", ["noaccess"]),
        ("ExecReload", ["/bin/kill -HUP $MAINPID"]),
        ("ExecStart", ["/opt/discod/current/bin/discod run --config /etc/discod/discod.toml"]),
    ],
)
def test_what_the_daemon_relies_on(key: str, values: Sequence[str]) -> None:
    assert unit()[key] == values


def test_the_unit_needs_neither_docker_nor_the_network() -> None:
    settings = unit()
    assert not {"Requires", "BindsTo", "Requisite", "PartOf"} & settings.keys()
    assert "docker.service" in settings["After"][0]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("Service", ["discod.service"]),
        # discod takes a wildcard of one family only, and binds nothing beside it.
        ("BindIPv6Only", ["ipv6-only"]),
        # The address may come later: Docker's bridge comes with the engine.
        ("FreeBind", ["yes"]),
        ("ReusePort", ["yes"]),
        ("WantedBy", ["sockets.target"]),
    ],
)
def test_what_the_sockets_are_to_be(key: str, values: Sequence[str]) -> None:
    assert unit("discod-dns.socket")[key] == values
    # One process for all connections.
    assert "Accept" not in unit("discod-dns.socket")


def test_the_sockets_serve_what_containers_are_told_to_ask() -> None:
    sockets = unit("discod-dns.socket")
    docker = json.loads((DEPLOY / "docker-daemon.json").read_text())
    assert sockets["ListenDatagram"] == sockets["ListenStream"]
    assert sockets["ListenDatagram"] == [f"{address}:53" for address in docker["dns"]]


def test_the_buffers_are_what_the_resolver_asks_for() -> None:
    text = (DEPLOY / "sysctl-discod.conf").read_text()
    assert dict(re.findall(r"(?m)^([^#\n=]+) = (\d+)$", text)) == {
        "net.core.rmem_max": str(BUFFER),
        "net.core.wmem_max": str(max(CONTROL_BUFFER, QUERIES_BUFFER)),
    }
    assert unit("discod-dns.socket")["ReceiveBuffer"] == [f"{BUFFER >> 20}M"]


# Prometheus and Grafana ----------------------------------------------------------------------


def test_promtool_accepts_everything() -> None:
    assert "SUCCESS" in run("promtool", "check", "config", "prometheus.yml", cwd=DEPLOY)
    found = re.search(r"SUCCESS: (\d+) rules found", run("promtool", "check", "rules", RULES))
    assert found
    assert int(found[1]) == len(alerts())


RULES = DEPLOY / "alerts.yml"


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def test_each_alert_fires_and_stays_quiet_when_it_should() -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", "alerts_test.yml", cwd=DEPLOY)
    text = (DEPLOY / "alerts_test.yml").read_text()
    assert len(alerts()) >= 10
    for alert in alerts():
        assert f"alertname: {alert}}}" in text, "the healthy host does not test it"
    # The faulty host: as many alerts fire as there are rules.
    assert f'"{{}}", value: {len(alerts())}' in text


def samples() -> dict[str, set[str]]:
    """Every sample name that discod exposes -> its labels."""
    metrics = Metrics()
    found: dict[str, set[str]] = {}
    collectors = vars(metrics).values()
    labels = {
        collector._name: set(collector._labelnames)
        for collector in collectors
        if hasattr(collector, "_labelnames")
    }
    ours = [collector for collector in collectors if isinstance(collector, Durations)]
    labels |= {collector._name: {collector.label} for collector in ours}
    for family in metrics.registry.collect():
        names = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        for suffix in names.get(family.type, [""]):
            extra = {"le"} if suffix == "_bucket" else set()
            found[family.name + suffix] = labels.get(family.name, set()) | extra
    return found


def used(expression: str) -> list[tuple[str, set[str]]]:
    """Metrics in an expression, each with the labels it is selected by."""
    pattern = r"\b(discod_\w+|process_\w+|up)\b(?:\{([^}]*)\})?"
    return [
        (name, set(re.findall(r"(\w+)\s*[=!]~?", selector or "")))
        for name, selector in re.findall(pattern, re.sub(r'"discod"', '""', expression))
    ]


def expressions() -> dict[str, list[str]]:
    rules = re.findall(r"(?ms)^        expr: (.*?)^        (?:for|labels):", RULES.read_text())
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return {"alerts.yml": rules, "dashboard.json": shown}


@pytest.mark.parametrize("file", ["alerts.yml", "dashboard.json"])
def test_every_metric_named_exists_with_its_labels(file: str) -> None:
    known = samples()
    found = [item for expression in expressions()[file] for item in used(expression)]
    assert len(found) >= 14
    for name, selectors in found:
        if name in FOREIGN_METRICS:
            continue
        assert name in known, f"{file} names {name}"
        assert selectors <= known[name] | {"instance"}, f"{file} selects {name} by {selectors}"


def test_every_series_of_the_alert_tests_exists() -> None:
    known = samples()
    found = re.findall(r"series: '(.*?)'", (DEPLOY / "alerts_test.yml").read_text())
    assert found
    for series in found:
        ((name, selectors),) = used(series)
        assert name in known or name in FOREIGN_METRICS
        assert selectors <= known.get(name, {"job"}) | {"instance"}


def test_what_expressions_group_by_exists() -> None:
    every = set().union(*samples().values()) | {"instance"}
    for expression in (e for many in expressions().values() for e in many):
        for group in re.findall(r"by \(([^)]*)\)", expression):
            assert set(group.replace(" ", "").split(",")) <= every


def test_the_dashboard_is_whole() -> None:
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) >= 10
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(ids)
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])


def test_scrape_configuration_names_our_own_paths_and_labels() -> None:
    text = (DEPLOY / "prometheus.yml").read_text()
    assert "http://127.0.0.1:9353/v1/sd/prometheus" in text
    api = (ROOT / "discod/api.py").read_text()
    names = re.findall(r"__meta_discod_(\w+)", text)
    assert names
    for name in names:
        assert f'"{name}"' in api or name.startswith("attr_")


# The resolver's wiring -----------------------------------------------------------------------


def test_docker_and_resolved_snippets_fit_the_defaults() -> None:
    docker = json.loads((DEPLOY / "docker-daemon.json").read_text())
    resolved = configparser.ConfigParser()
    resolved.read(DEPLOY / "resolved-discod.conf")
    dns = parse_config("", origin="").dns
    assert docker["dns-search"] == [dns.domain]
    assert dict(resolved["Resolve"]) == {
        "dns": f"{dns.listen[0].address}:{dns.listen[0].port}",
        "domains": f"~{dns.domain}",
    }


def test_every_configuration_in_the_readme_parses() -> None:
    text = (DEPLOY / "README.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        parse_config(block, origin="README.md")
        assert tomllib.loads(block)


def test_the_readme_names_every_file() -> None:
    text = (DEPLOY / "README.md").read_text()
    for file in DEPLOY.iterdir():
        assert file.name == "README.md" or f"`{file.name}`" in text


# The installer -------------------------------------------------------------------------------


def test_shellcheck_finds_nothing() -> None:
    assert run("shellcheck", DEPLOY / "install.sh") == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--what"],
        ["--root"],
        ["--root", "relative"],
        ["--prefix", "/"],
        ["--prefix", "/opt/../etc"],
        ["--prefix", "/opt/a b"],
    ],
)
def test_the_installer_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    done = subprocess.run(
        [DEPLOY / "install.sh", *arguments], capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 2
    assert done.stderr


@pytest.mark.lab
def test_install_again_and_uninstall(tmp_path: Path) -> None:
    root = tmp_path / "root"
    script = DEPLOY / "install.sh"
    before = sorted(p for p in ROOT.iterdir())
    run(script, "--root", root, "--prefix", "/opt/d")
    program = root / "opt/d/current/bin/discod"
    config = root / "etc/discod/discod.toml"
    assert "ok" in run(program, "check-config", config)
    assert config.read_text() == (DEPLOY / "discod.toml").read_text()
    assert (root / "usr/local/bin/discod").readlink() == Path("/opt/d/current/bin/discod")
    installed = (root / "etc/systemd/system/discod.service").read_text()
    assert "ExecStart=/opt/d/current/bin/discod run" in installed
    assert "/opt/discod" not in installed
    sockets = (root / "etc/systemd/system/discod-dns.socket").read_text()
    assert "file:///opt/d/current/" in sockets and "/opt/discod" not in sockets
    buffers = root / "etc/sysctl.d/10-discod.conf"
    assert buffers.read_text() == (DEPLOY / "sysctl-discod.conf").read_text()
    assert sorted(p for p in ROOT.iterdir()) == before

    release = (root / "opt/d/current").resolve()
    config.write_text('[host]\nname = "kept"\n')
    assert "there already" in run(script, "--root", root, "--prefix", "/opt/d")
    assert (root / "opt/d/current").resolve() == release
    assert "kept" in config.read_text()

    run(script, "--uninstall", "--root", root, "--prefix", "/opt/d")
    left = sorted(str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir())
    assert left == ["etc/discod/discod.toml"]
    run(script, "--uninstall", "--purge", "--root", root)
    assert not [p for p in root.rglob("*") if not p.is_dir()]

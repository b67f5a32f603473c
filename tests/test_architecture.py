"""The rules of the house, as tests: who may import whom, and what no module may do.

Each rule is a function from one module to what is wrong with it. Each is run over the whole tree,
and over small offenders that it must catch (else the rule itself is broken).
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path

import pytest

from tests.conftest import forbid_skip

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("announcer", "resolver", "calico_bgp")
FEATURES = (*PACKAGES, "discod.rescue")
OURS = ("discod", *PACKAGES)
JOINTS = {
    "discod.routing": "calico_bgp",
    "discod.rescuing": "discod.rescue",
}
"""Modules that join one feature to the daemon."""
CLI = ("discod.cli", "discod.cli_*")

FEATURE_MAY_IMPORT = (
    "discod.model",
    "discod.model.*",
    "discod.store.base",
    "discod.kernel",
    "discod.kernel.*",
    "discod.backoff",
    "discod.log",
    "discod.metrics",
    "discod.metrics_buckets",
)
"""Of discod. A feature sees values, the store's interface, and the two ways of telling."""

CLIENTS = {
    "etcd3": ["discod.store.etcd*"],
    "grpc": ["discod.store.etcd*"],
    "google": ["discod.store.etcd*"],  # protobuf
    "docker": ["announcer.engine"],
    "urllib3": ["announcer.engine"],  # its exceptions come through the docker SDK
    "dnslib": ["resolver.wire"],
    "prometheus_client": ["discod.metrics"],
    "hypercorn": ["discod.http_server"],
    "starlette": ["discod.http", "discod.http_stream"],
    "h11": ["announcer.probe", "discod.announce_client"],
    "click": [*CLI],
    "rich": ["discod.tables", *CLI],
    "trio": ["*"],
}
"""Who may import which package: foreign types and exceptions stop there."""

# fmt: off
IMPURE = (
    "asyncio", "http", "http.*", "os", "os.*", "secrets", "select", "selectors", "shutil", "socket",
    "ssl", "subprocess", "sys", "tempfile", "threading", "time", "trio", "trio.*", "urllib.request",
    "uuid",
)
# fmt: on
PURE_MARK = re.compile(r"\b[Pp]ure[.:]|\bValues\.")
INTERFACE_MARK = re.compile(r"\binterface (and values )?only\b")

LINES_MAX = 400
LONG = {
    "discod.daemon": "the one place where everything is put together, in the order of shutdown",
    "discod.explain": "one question with many answers, all of which depend on one another",
}
"""Modules that may be longer than `LINES_MAX` (and how that is excused), up to 500 lines."""


@dataclass(frozen=True)
class Module:
    """One source file."""

    name: str
    source: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @property
    def pure(self) -> bool:
        return bool(PURE_MARK.search(self.doc)) or self.name.startswith("discod.model")

    @cached_property
    def imports(self) -> list[tuple[int, str]]:
        """(line, dotted name), for `from a import b` both ``a`` and, when a module, ``a.b``."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                names = [f"{base}.{alias.name}" for alias in node.names]
                modules = [name for name in names if name in ALL_NAMES]
                found += [(node.lineno, name) for name in modules or [base]]
        return found


def _load() -> dict[str, Module]:
    modules = {}
    for package in OURS:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            name = name.removesuffix(".__init__")
            modules[name] = Module(name, path.read_text(encoding="utf-8"))
    return modules


MODULES = _load()
ALL_NAMES = frozenset(MODULES)


def _is(name: str, *patterns: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _package(name: str) -> str:
    return name.partition(".")[0]


# Rules ----------------------------------------------------------------------------------------


def imports_are_absolute(module: Module) -> Iterator[str]:
    for line, name in module.imports:
        if name.startswith("."):
            yield f"{line}: relative import"


def model_is_a_leaf(module: Module) -> Iterator[str]:
    for line, name in module.imports:
        if (
            _is(module.name, "discod.model*")
            and _package(name) in OURS
            and not _is(name, "discod.model*")
        ):
            yield f"{line}: the model imports {name}"


def _feature(name: str) -> str:
    """The feature that a module belongs to; empty: it is the daemon's."""
    return next((f for f in FEATURES if _is(name, f, f"{f}.*")), "")


def features_meet_in_the_daemon_only(module: Module) -> Iterator[str]:
    feature = _feature(module.name)
    for line, name in module.imports:
        other = _feature(name)
        if feature:
            if other and other != feature:
                yield f"{line}: {feature} imports the feature {other}"
            if _package(name) == "discod" and not other and not _is(name, *FEATURE_MAY_IMPORT):
                yield f"{line}: {feature} imports {name}"
        elif other and module.name != "discod.daemon" and JOINTS.get(module.name) != other:
            yield f"{line}: only discod.daemon imports features, not {module.name}"


def only_the_cli_imports_the_daemon(module: Module) -> Iterator[str]:
    for line, name in module.imports:
        if name == "discod.daemon" and not _is(module.name, *CLI):
            yield f"{line}: {module.name} imports the daemon"
        if _is(name, *CLI) and not _is(module.name, *CLI, "discod.__main__"):
            yield f"{line}: {module.name} imports the command line"


def stores_stay_behind_their_interface(module: Module) -> Iterator[str]:
    for line, name in module.imports:
        inside = _is(module.name, "discod.store*", "discod.daemon")
        if _is(name, "discod.store.*") and name != "discod.store.base" and not inside:
            yield f"{line}: {module.name} imports {name}"


def clients_have_their_module(module: Module) -> Iterator[str]:
    for line, name in module.imports:
        package = _package(name)
        if package in OURS or package in sys.stdlib_module_names or name.startswith("."):
            continue
        if package == "pyroute2":
            continue  # its module is not named yet; see test_pyroute2_has_at_most_one_importer
        if not _is(module.name, *CLIENTS.get(package, [])):
            yield f"{line}: {module.name} imports {name}"


def pure_modules_do_no_io(module: Module) -> Iterator[str]:
    if not module.pure:
        return
    for line, name in module.imports:
        if _is(name, *IMPURE):
            yield f"{line}: pure, but imports {name}"
        other = MODULES.get(name)
        if other is not None and not other.pure and not INTERFACE_MARK.search(other.doc):
            yield f"{line}: pure, but imports {name}, which is not"
        if name == "random" and re.search(r"from random\b", module.source):
            yield f"{line}: pure, but imports from random"
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Name(id="open" | "print" | "input" as name)):
                yield f"{node.lineno}: pure, but calls {name}"
            case ast.Call(
                func=ast.Attribute(attr="read_text" | "read_bytes" | "write_text" as name)
            ):
                yield f"{node.lineno}: pure, but calls {name}"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="random"))):
                yield f"{node.lineno}: pure, but draws; take a random.Random from the caller"
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=attr)
            ) if attr in ("now", "utcnow", "today"):
                yield f"{node.lineno}: pure, but asks the clock"


def only_the_cli_reads_argv_and_environment(module: Module) -> Iterator[str]:
    if _is(module.name, *CLI, "discod.__main__"):
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(
                value=ast.Name(id="os"),
                attr="environ" | "environb" | "getenv" | "getenvb" | "putenv" as attr,
            ):
                yield f"{node.lineno}: os.{attr}"
            case ast.Attribute(value=ast.Name(id="sys"), attr="argv"):
                yield f"{node.lineno}: sys.argv"
            case ast.ImportFrom(module="os" | "sys", names=names):
                for alias in names:
                    if alias.name in ("environ", "environb", "getenv", "putenv", "argv"):
                        yield f"{node.lineno}: {alias.name}"


def broad_excepts_have_a_reason(module: Module) -> Iterator[str]:
    lines = module.source.splitlines()
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if not any(c is None or ast.unparse(c) in ("Exception", "BaseException") for c in caught):
            continue
        match node.body[-1]:
            case ast.Raise(exc=None):
                continue  # cleans up and lets it pass
        comment = lines[node.lineno - 1].partition("#")[2]
        reason = re.sub(r"noqa: ?[A-Z0-9, ]+", "", comment).strip(" -:")
        if len(reason) < 10:
            yield f"{node.lineno}: a broad except without a reason on its line"


def log_messages_are_fixed(module: Module) -> Iterator[str]:
    levels = {"debug", "info", "warning", "error", "exception", "critical", "log"}
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log" | "logger" | "logging"), attr=attr)
            ) if attr in levels:
                messages = node.args[:1] if attr != "log" else node.args[1:2]
                if len(node.args) != len(messages) + (attr == "log"):
                    yield f"{node.lineno}: arguments belong into extra=fields(...)"
                if not all(map(_is_fixed, messages)):
                    yield f"{node.lineno}: the message is not fixed text"
                for keyword in node.keywords:
                    if keyword.arg == "extra" and not _calls_fields(keyword.value):
                        yield f"{node.lineno}: extra= is not fields(...)"
            case ast.Call(func=ast.Attribute(attr="getLogger"), args=[argument]):
                if not re.match(r"__name__$|'discod\.", ast.unparse(argument)) and (
                    module.name != "discod.log"
                ):
                    yield f"{node.lineno}: a logger named neither __name__ nor discod.<part>"


def _is_fixed(message: ast.expr) -> bool:
    match message:
        case ast.Constant(value=str(text)):
            return "%" not in text
        case ast.IfExp(body=body, orelse=orelse):
            return _is_fixed(body) and _is_fixed(orelse)
    return False


def _calls_fields(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "fields"


def modules_are_small(module: Module) -> Iterator[str]:
    lines = module.source.count("\n")
    if lines > (500 if module.name in LONG else LINES_MAX):
        yield f"{lines} lines: split it"


Rule = Callable[[Module], Iterator[str]]
RULES: tuple[Rule, ...] = (
    imports_are_absolute,
    model_is_a_leaf,
    features_meet_in_the_daemon_only,
    only_the_cli_imports_the_daemon,
    stores_stay_behind_their_interface,
    clients_have_their_module,
    pure_modules_do_no_io,
    only_the_cli_reads_argv_and_environment,
    broad_excepts_have_a_reason,
    log_messages_are_fixed,
    modules_are_small,
)

PURE = '"""Thinks. Pure."""\n'
OFFENDERS: tuple[tuple[Rule, str, str], ...] = (
    (imports_are_absolute, "resolver.x", "from . import wire"),
    (imports_are_absolute, "resolver.x", "from .wire import parse"),
    (model_is_a_leaf, "discod.model.x", "from discod.store.base import Put"),
    (model_is_a_leaf, "discod.model.x", "import announcer.offer"),
    (features_meet_in_the_daemon_only, "announcer.x", "from resolver.wire import parse"),
    (features_meet_in_the_daemon_only, "announcer.x", "def f():\n    import resolver"),
    (features_meet_in_the_daemon_only, "resolver.x", "from discod.store.etcd import EtcdStore"),
    (features_meet_in_the_daemon_only, "resolver.x", "from discod import config"),
    (features_meet_in_the_daemon_only, "calico_bgp.x", "import discod.daemon"),
    (features_meet_in_the_daemon_only, "discod.http", "import resolver.server"),
    (features_meet_in_the_daemon_only, "discod.http", "import calico_bgp.service"),
    (only_the_cli_imports_the_daemon, "discod.http", "from discod.daemon import run"),
    (only_the_cli_imports_the_daemon, "discod.daemon", "import discod.cli"),
    (stores_stay_behind_their_interface, "discod.http", "from discod.store.etcd import EtcdStore"),
    (stores_stay_behind_their_interface, "discod.http", "from discod.store import memory"),
    (clients_have_their_module, "resolver.zone", "from dnslib import RR"),
    (clients_have_their_module, "announcer.watcher", "import docker.errors"),
    (clients_have_their_module, "discod.keeper", "import grpc"),
    (clients_have_their_module, "discod.daemon", "from google.protobuf import message"),
    (clients_have_their_module, "discod.daemon", "import prometheus_client as p"),
    (clients_have_their_module, "discod.daemon", "import unheard_of"),
    (pure_modules_do_no_io, "discod.x", PURE + "import trio"),
    (pure_modules_do_no_io, "discod.x", PURE + "from time import monotonic"),
    (pure_modules_do_no_io, "discod.x", PURE + "import random\nrandom.random()"),
    (pure_modules_do_no_io, "discod.x", PURE + "import random\nrandom.Random()"),
    (pure_modules_do_no_io, "discod.x", PURE + "from random import choice"),
    (pure_modules_do_no_io, "discod.x", PURE + "import discod.identity"),
    (pure_modules_do_no_io, "discod.x", PURE + "open('x')"),
    (pure_modules_do_no_io, "discod.x", PURE + "Path('x').read_text()"),
    (pure_modules_do_no_io, "discod.x", PURE + "from urllib.request import urlopen"),
    (pure_modules_do_no_io, "discod.x", PURE + "datetime.now(UTC)"),
    (pure_modules_do_no_io, "discod.model.x", "import os"),
    (only_the_cli_reads_argv_and_environment, "discod.x", "import os\nos.environ['A']"),
    (only_the_cli_reads_argv_and_environment, "discod.x", "import os\nos.getenv('A')"),
    (only_the_cli_reads_argv_and_environment, "discod.x", "from os import environ"),
    (only_the_cli_reads_argv_and_environment, "announcer.x", "import sys\nsys.argv[1]"),
    (broad_excepts_have_a_reason, "discod.x", "try: a()\nexcept Exception: pass"),
    (broad_excepts_have_a_reason, "discod.x", "try: a()\nexcept: b()"),
    (broad_excepts_have_a_reason, "discod.x", "try: a()\nexcept (OSError, Exception): b()"),
    (
        broad_excepts_have_a_reason,
        "discod.x",
        "try: a()\nexcept BaseException:  # noqa: BLE001, S110\n    raise ValueError",
    ),
    (log_messages_are_fixed, "discod.x", "log.info(f'{a} happened')"),
    (log_messages_are_fixed, "discod.x", "log.info('%s happened', a)"),
    (log_messages_are_fixed, "discod.x", "log.info('100% happened')"),
    (log_messages_are_fixed, "discod.x", "log.info(a)"),
    (log_messages_are_fixed, "discod.x", "log.info('it happened', extra={'a': 1})"),
    (log_messages_are_fixed, "discod.x", "logging.getLogger('mine')"),
    (modules_are_small, "discod.x", "\n" * 401),
    (modules_are_small, "discod.daemon", "\n" * 501),
)

LAWFUL: tuple[tuple[str, str], ...] = (
    ("discod.daemon", "import resolver.server\nfrom discod.store.opening import open_store"),
    ("discod.cli", "import os\nimport click\nfrom discod.daemon import run\nos.environ"),
    (
        "announcer.x",
        "import trio\nfrom discod.store.base import Put\nfrom discod.log import fields",
    ),
    ("announcer.engine", "import docker"),
    ("discod.store.etcd_member", "import grpc"),
    ("discod.x", PURE + "import random\ndef f(rng: random.Random): rng.random()"),
    ("discod.x", PURE + "from discod.store.base import Put\nfrom discod.model import schema"),
    ("discod.x", "try: a()\nexcept BaseException:\n    undo()\n    raise"),
    (
        "discod.x",
        "try: a()\nexcept Exception:  # noqa: BLE001 - a plug-in's fault is its own\n    b()",
    ),
    ("discod.x", "log.info('it happened', extra=fields(a=1))\nlogging.getLogger(__name__)"),
    ("discod.x", "log.info('on' if a else 'off')"),
    ("discod.daemon", "\n" * 450),
)

# Tests ----------------------------------------------------------------------------------------


def _names(rules: tuple[Rule, ...]) -> list[str]:
    return [rule.__name__ for rule in rules]


@pytest.mark.parametrize("rule", RULES, ids=_names(RULES))
def test_the_tree_keeps_the_rule(rule: Rule) -> None:
    faults = [f"{module.name}:{fault}" for module in MODULES.values() for fault in rule(module)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("rule", "name", "source"), OFFENDERS, ids=[f"{o[0].__name__}-{o[2]!r:.40}" for o in OFFENDERS]
)
def test_offenders_are_caught(rule: Rule, name: str, source: str) -> None:
    assert list(rule(Module(name, source)))


def test_each_rule_has_an_offender() -> None:
    assert {rule for rule, _, _ in OFFENDERS} == set(RULES)


@pytest.mark.parametrize(("name", "source"), LAWFUL)
def test_the_lawful_pass(name: str, source: str) -> None:
    faults = [f"{rule.__name__}: {fault}" for rule in RULES for fault in rule(Module(name, source))]
    assert not faults


def test_the_rules_see_the_tree() -> None:
    assert len(MODULES) > 50
    pure = {name for name, module in MODULES.items() if module.pure}
    assert {"discod.model.catalog", "announcer.offer", "resolver.answer", "discod.explain"} <= pure
    assert "discod.daemon" not in pure
    daemon = {name for _, name in MODULES["discod.daemon"].imports}
    assert "resolver.server" in daemon
    assert "discod.config" in daemon | {name for _, name in MODULES["discod.cli"].imports}
    for package in OURS:
        assert package in MODULES


def test_pyroute2_has_at_most_one_importer() -> None:
    importers = [
        module.name
        for module in MODULES.values()
        if any(_package(name) == "pyroute2" for _, name in module.imports)
    ]
    assert len(importers) <= 1, importers


def test_ruff_demands_docstrings_and_reasons_and_forbids_print() -> None:
    """What ruff enforces is not repeated here, but it must stay switched on."""
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert {"D", "BLE", "T20", "ASYNC", "S"} <= set(ruff["select"])
    assert not {"D100", "D101", "D102", "D103"} & set(ruff["ignore"])
    assert not any(key.split("/")[0] in OURS for key in ruff["per-file-ignores"])


def test_every_package_of_the_tree_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in OURS
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == there


def test_locks_name_versions_and_hashes_and_nothing_of_the_machine() -> None:
    for name in ("requirements-build.lock", "requirements.lock", "requirements-dev.lock"):
        lines = (ROOT / name).read_text().splitlines()
        requirements = [line for line in lines if not line.startswith((" ", "#"))]
        assert requirements, name
        for line in requirements:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9][^ ]*( ; [^/]+)? \\", line), (name, line)
        for line in lines:
            if line.startswith(" "):
                assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line), (name, line)


def test_locks_agree_and_hold_every_dependency() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / name).read_text(), re.M))

    run, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert run.items() <= dev.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock, wanted in (
        (run, project["dependencies"]),
        (dev, project["optional-dependencies"]["dev"]),
    ):
        for requirement in wanted:
            assert re.split(r"[<>=~!\[ ;]", requirement)[0] in lock, requirement


def test_under_ci_a_skip_is_a_failure() -> None:
    skipped, expected = (
        pytest.TestReport("x", ("x", 1, "x"), {}, "skipped", ("x", 1, "no docker"), "call")
        for _ in range(2)
    )
    expected.wasxfail = "known"
    forbid_skip(skipped)
    forbid_skip(expected)
    assert skipped.outcome == "failed"
    assert "no docker" in str(skipped.longrepr)
    assert expected.outcome == "skipped"

"""BIRD 2 (https://bird.network.cz/), driven by `birdc`."""

from __future__ import annotations

import re
import socket
from typing import Any

from tests.lab.bgp.router import COMMAND, Neighbor, Router, Routes, Seen, Told, normal, split

_STATE = re.compile(r"BGP state:\s+(\w+)")
_COUNT = re.compile(r"^(\d+) of \d+ routes", re.MULTILINE)
_LAST = re.compile(rb"^(?!0001)\d{4} .*\n\Z", re.MULTILINE)
_COMMUNITY = re.compile(r"\((\d+),\s*(\d+)\)")
_LARGE = re.compile(r"\((\d+),\s*(\d+),\s*(\d+)\)")


class Bird(Router):
    """Announces static routes of a file of its own; learned ones go into the kernel with
    ``install``, several equal ones as one multipath route."""

    program = "bird"

    def start(self) -> None:
        """Start it."""
        self._write_routes()
        (self.folder / "bird.conf").write_text(self._config())
        self.run(
            "bird", "-f", "-c", str(self.folder / "bird.conf"), "-s", self._socket,
            "-P", str(self.folder / "pid"), *["-R"] * self.again,
        )  # fmt: skip
        self._answers(*self._birdc, "show status")

    def command(self, *words: str) -> str:
        """The output of `birdc`."""
        return self.tool(*self._birdc, " ".join(words))

    def session(self, peer: str) -> str:
        """From ``show protocols all``."""
        found = _STATE.search(self.command("show protocols all", self.neighbor(peer).name))
        return found[1] if found else "Idle"

    def told(self, peer: str) -> str:
        """All that it says of a session."""
        return self.command("show protocols all", self.neighbor(peer).name)

    def count(self, peer: str, version: int = 4) -> int:
        """From ``show route count``."""
        name = self.neighbor(peer).name
        found = _COUNT.search(
            self.command(f"show route table master{version} protocol {name} count")
        )
        return int(found[1]) if found else 0

    def routes(self, peer: str, version: int = 4) -> dict[str, Seen]:
        """From ``show route all``."""
        name = self.neighbor(peer).name
        found: dict[str, Seen] = {}
        prefix = ""
        fields: dict[str, Any] = {}
        for line in self.command(f"show route table master{version} protocol {name} all").split(
            "\n"
        ):
            words = line.split()
            if words and "/" in words[0] and not line.startswith(("\t", " ")):
                if prefix:
                    found[prefix] = Seen(**fields)
                prefix, fields = normal(words[0]), {}
            elif line.startswith("\tBGP."):
                key, _, value = line.strip().partition(":")
                _attribute(fields, key, value.strip())
        if prefix:
            found[prefix] = Seen(**fields)
        return found

    @property
    def _socket(self) -> str:
        return str(self.folder / "ctl")

    @property
    def _birdc(self) -> tuple[str, ...]:
        return ("birdc", "-s", self._socket)

    def _apply(self, added: Routes, removed: Routes) -> None:
        self._write_routes()
        answer = self._configure()
        assert "Reconfigur" in answer, answer

    def _configure(self) -> str:
        """What `birdc configure` does, without starting a process: it is measured."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(COMMAND)
            sock.connect(self._socket)
            sock.sendall(b"configure\n")
            answer = b""
            # "0001 BIRD ... ready." first; the last line of an answer has a space behind its code.
            while not _LAST.search(answer):
                if not (octets := sock.recv(4096)):
                    break
                answer += octets
        return answer.decode()

    def _write_routes(self) -> None:
        for version, routes in zip((4, 6), split(self.announced), strict=True):
            lines = [f"route {prefix} blackhole{_block(told)};" for prefix, told in routes.items()]
            (self.folder / f"routes{version}.conf").write_text("\n".join([*lines, ""]))

    def _config(self) -> str:
        kernel = "all" if self.install else "none"
        parts = [
            f'log "{self._log}" all;',
            f"router id {self.site.router_id};",
            "graceful restart wait 30;",
            # A MED goes to another AS only where the export filter sets it.
            f"filter told {{ {'' if self.transit else 'if source != RTS_STATIC then reject; '}"
            "if defined(bgp_med) then bgp_med = bgp_med; accept; }",
            "protocol device { scan time 5; }",
        ]
        for version in (4, 6):
            parts += [
                # "include" has to begin its line.
                f"protocol static s{version} {{ ipv{version};\n"
                f'include "{self.folder}/routes{version}.conf";\n}}',
                f"protocol kernel k{version} {{ merge paths on; scan time 3600; persist off; "
                f"ipv{version} {{ import none; export {_exported(kernel)}; }}; }}",
            ]
        if any(one.bfd for one in self.neighbors):
            parts.append('protocol bfd { interface "eth0" { interval 50 ms; multiplier 3; }; }')
        parts += [self._protocol(one) for one in self.neighbors]
        return "\n".join([*parts, ""])

    def _protocol(self, one: Neighbor) -> str:
        lines = [
            f"local {self.site.ipv4 if one.version == 4 else self.site.ipv6} as {self.asn};",
            f"neighbor {one.address} as {one.asn};",
            f"hold time {one.hold_time}; connect retry time 1; connect delay time 1;",
            "error wait time 1, 2;",
            f"passive {_on(one.passive)}; enable as4 {_on(one.wide)};",
            f"graceful restart {_on(one.graceful_restart)};",
            f"graceful restart time {one.restart_time};",
        ]
        if not one.capabilities:
            lines.append("capabilities off;")
        if one.password:
            lines.append(f'password "{one.password}";')
        if one.bfd:
            lines.append("bfd on;")
        for version in one.families:
            own = self.site.ipv4 if version == 4 else self.site.ipv6
            limit = f"import limit {one.max_prefixes} action restart; " if one.max_prefixes else ""
            lines.append(
                f"ipv{version} {{ import all; export filter told; "
                f"next hop address {own}; {limit}}};"
            )
        return f"protocol bgp {one.name} {{\n  " + "\n  ".join(lines) + "\n}"


def _exported(which: str) -> str:
    return "where source = RTS_BGP" if which == "all" else "none"


def _on(value: bool) -> str:
    return "on" if value else "off"


def _block(told: Told) -> str:
    """What sets the attributes of a static route."""
    sets = [f"bgp_path.prepend({asn});" for asn in reversed(told.path)]
    if told.med is not None:
        sets.append(f"bgp_med = {told.med};")
    for name, texts in (("community", told.communities), ("large_community", told.large)):
        sets += [f"bgp_{name}.add(({text.replace(':', ',')}));" for text in sorted(texts)]
    return f" {{ {' '.join(sets)} }}" if sets else ""


def _attribute(fields: dict[str, Any], key: str, value: str) -> None:
    match key:
        case "BGP.as_path":
            fields["path"] = tuple(int(word) for word in value.split())
        case "BGP.next_hop":
            fields["next_hop"] = value.split()[0]
        case "BGP.med":
            fields["med"] = int(value)
        case "BGP.local_pref":
            fields["local_pref"] = int(value)
        case "BGP.community":
            fields["communities"] = frozenset(":".join(one) for one in _COMMUNITY.findall(value))
        case "BGP.large_community":
            fields["large"] = frozenset(":".join(one) for one in _LARGE.findall(value))

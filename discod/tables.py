"""The API's documents for people: tables and sentences.

Rule: text in, text out; nothing a person may need to copy is ever cut: on a terminal long values
are folded, in a pipe each row is one line. Foreign text cannot steer the terminal. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 100_000
"""Columns where no terminal sets a limit."""

ANSWERS_SHOWN = 12
"""Records of an explanation."""
LOOSE_MIN = 8
"""Columns that a folded column keeps."""

_STATES = {
    "up": "green",
    "suspect": "yellow",
    "down": "red",
    "lost": "red",
    "pending": "yellow",
    "shadowed": "yellow",
    "refused": "red",
    "silent": "yellow",
    "invalid": "red",
    "announced": "green",
    "host-up": "green",
    "withdrawn": "yellow",
    "host-gone": "red",
    "alias-up": "green",
    "alias-gone": "yellow",
}


@dataclass(frozen=True, slots=True)
class Page:
    """What it is shown on."""

    now: float
    """Unix seconds, for ages."""
    width: int | None = None
    """Columns of the terminal; None for a pipe or a file."""
    color: bool = False


def render(page: Page, *parts: RenderableType) -> str:
    """The parts as text, without trailing blanks."""
    out = StringIO()
    console = Console(
        file=out,
        width=page.width or PIPE_WIDTH,
        force_terminal=page.color,
        no_color=not page.color,
        color_system="standard" if page.color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    console.print(Group(*parts))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def services(page: Page, document: Any) -> str:
    """``/v1/services``."""
    rows = [
        [
            one["name"],
            str(one["up"]),
            str(one["down"]),
            " ".join(one["ports"]),
            " ".join(one["hosts"]),
            " ".join(one["tags"]),
            one.get("alias") or "",
        ]
        for one in document["services"]
    ]
    if not rows:
        return f"no services in {tame(document['domain'])}"
    head = ("SERVICE", "UP", "DOWN", "PORTS", "HOSTS", "TAGS", "ALIAS OF")
    loose = frozenset({"PORTS", "HOSTS", "TAGS", "ALIAS OF"})
    return render(page, table(page, *without_empty(head, rows, {"ALIAS OF"}), loose=loose))


def service(page: Page, document: Any) -> str:
    """``/v1/services/{name}``."""
    rows = []
    for state, key in (("up", "up"), ("down", "withdrawn"), ("lost", "lost")):
        for one in document[key]:
            why = ""
            if state == "down":
                why = _because(one["reason"], one["detail"])
            elif state == "lost":
                why = f"vanished at revision {one['lost_revision']}"
            elif suspect := one.get("suspect"):
                why = f"lost by the store, kept: {suspect['detail']}"
            rows.append(
                [
                    "suspect" if one.get("suspect") else state,
                    socket_address(one),
                    _port_name(one),
                    one["host"] or one["producer"],
                    one["container_name"] or one["container"][:12],
                    age(page.now, one.get("at") or one["since"]),
                    why,
                    settings(one),
                    one["instance"],
                ]
            )
    rows += [
        [
            "up" if one["in_dns"] else "shadowed",
            f"alias of {one['target']}",
            "",
            one["host"] or "foreign",
            "",
            age(page.now, one["since"]),
            "" if one["in_dns"] else "endpoints or another alias come first",
            settings(one),
            one["instance"],
        ]
        for one in document.get("aliases", ())
    ]
    head = ("STATE", "ADDRESS", "PORT", "HOST", "CONTAINER", "FOR", "WHY", "SETTINGS", "INSTANCE")
    loose = frozenset({"CONTAINER", "WHY", "SETTINGS", "INSTANCE"})
    return render(page, table(page, *without_empty(head, rows, {"SETTINGS"}), loose=loose))


def hosts(page: Page, document: Any) -> str:
    """``/v1/hosts``."""
    rows = []
    for one in document["hosts"]:
        state = "up" if one["live"] else "lost"
        if one["drained"] is not None:
            state = "drained"
        if one.get("silent"):
            words = ", ".join(one["silent"]["witnesses"])
            state = f"silent for {age(page.now, one['silent']['since'])} (say {words})"
        rows.append(
            [
                one["name"] + (" (this)" if one["this"] else ""),
                state,
                str(one["endpoints"]),
                one.get("zone", ""),
                " ".join(one["addresses"]),
                one["version"],
                age(page.now, one["started"]),
            ]
        )
    if not rows:
        return "no hosts"
    head = ("HOST", "STATE", "ENDPOINTS", "ZONE", "ADDRESSES", "VERSION", "RUNNING FOR")
    loose = frozenset({"ADDRESSES", "VERSION"})
    return render(page, table(page, *without_empty(head, rows, {"ZONE"}), loose=loose, state=1))


def event(page: Page, document: Any) -> str:
    """One line of ``discod watch``."""
    line = Text(datetime.fromtimestamp(page.now).astimezone().strftime("%H:%M:%S "))
    what = str(document["what"])
    line.append(f"{what:<12} ", style=_style(page, what))
    one, alias = document["endpoint"], document.get("alias")
    if alias is not None:
        line.append(tame(f"{alias['service']} is {alias['target']}"))
        line.append(tame(f"  on {alias['host']}" if alias["host"] else ""))
    elif one is None:
        line.append(tame(f"host {document['host']}"))
    else:
        line.append(tame(f"{one['service']} {socket_address(one)} {_port_name(one)}".rstrip()))
        who = one["container_name"] or one["instance"]
        line.append(tame(f"  {who} on {one['host']}" if one["host"] else f"  {who}"))
    if document["reason"]:
        line.append(tame(f"  {_because(document['reason'], document['detail'])}"))
    return render(Page(page.now, None, page.color), line)


def explanation(page: Page, document: Any) -> str:
    """``/v1/explain``: the verdict first, then every finding with its facts, then the notes."""
    style = _style(page, "up" if document["in_dns"] else "down")
    parts: list[RenderableType] = [Text(tame(document["verdict"]), style=f"bold {style}".strip())]
    for one in document["findings"]:
        line = Text("\n")
        line.append(f"{one['state']:<8} ", style=_style(page, one["state"]))
        line.append(tame(one["subject"]))
        parts.append(line)
        parts += [Padding(Text(tame(fact)), (0, 0, 0, 9)) for fact in _facts(page, one)]
    if document["answers"]:
        parts.append(Text("\nDNS answers here:"))
        shown = document["answers"][:ANSWERS_SHOWN]
        parts += [Padding(Text(tame(line)), (0, 0, 0, 2)) for line in shown]
        if len(shown) < len(document["answers"]):
            parts.append(Text(f"  and {len(document['answers']) - len(shown)} more records"))
    if document["notes"]:
        parts.append(Text(""))
        parts += [Text(tame(f"note: {note}")) for note in document["notes"]]
    if not document["findings"]:
        parts.append(Text(""))
        parts.append(Text(tame(f"understood as: {document['understood_as']}")))
        parts += [Text(tame(f"looked at: {what}")) for what in document["looked_at"]]
    return render(page, *parts)


def readiness(document: Any) -> str:
    """``/readyz``."""
    lines = ["ready" if document["ready"] else "not ready"]
    lines += [f"{one['name']}: {one['detail']}" for one in document["blocking"]]
    lines += [
        f"{one['name']} is away, and not needed now: {one['detail']}" for one in document["away"]
    ]
    return "\n".join(tame(line) for line in lines)


def age(now: float, since: float | None) -> str:
    """``45s``, ``12m``, ``3h05m``, ``9d``; empty when unknown."""
    if not since:
        return ""
    seconds = max(0, int(now - since))
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 7200:
        return f"{seconds // 60}m"
    if seconds < 172_800:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86_400}d"


def tame(text: object) -> str:
    """Text that cannot steer a terminal: control characters are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def socket_address(document: Any) -> str:
    """``192.0.2.1:80`` or ``[2001:db8::1]:80``."""
    address = document["address"]
    return f"[{address}]:{document['port']}" if ":" in address else f"{address}:{document['port']}"


def settings(document: Any) -> str:
    """What an endpoint or an alias asks of its answers, where that is not the default."""
    said = []
    if document.get("ttl"):
        said.append(f"ttl {document['ttl']}")
    if document.get("alpn"):
        said.append(f"alpn {','.join(document['alpn'])}")
    if document.get("prefer"):
        said.append(f"prefer {document['prefer']}")
    return ", ".join(said)


def _facts(page: Page, one: Any) -> Iterable[str]:
    if one["faults"]:
        for fault in one["faults"]:
            yield f"{fault['subject']} = {fault['value']!r}: {fault['expected']}"
    else:
        yield one["why"]
    about = []
    if one["endpoint"]:
        address = f"{socket_address(one['endpoint'])} {_port_name(one['endpoint'])}"
        about.append(address.rstrip())
    if said := settings(one["endpoint"] or one.get("alias") or {}):
        about.append(said)
    if one["container"]:
        about.append(f"container {one['container']}")
    if one["host"]:
        about.append(f"host {one['host']}")
    if one["since"]:
        at = datetime.fromtimestamp(one["since"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        about.append(f"since {at} ({age(page.now, one['since'])})")
    if about:
        yield ", ".join(about)
    if one["check"]:
        yield f"check: {one['check']}"
    at_revision = f"at revision {one['revision']}" if one["revision"] else ""
    if one["stored"] is not None:
        said = "confirmed by the store" if one["stored"] else "NOT confirmed by the store"
        yield f"{said} {at_revision}".rstrip()
    elif at_revision:
        yield f"in the store {at_revision}"


def without_empty(
    head: Sequence[str], rows: Sequence[Sequence[str]], optional: Set[str]
) -> tuple[list[str], list[list[str]]]:
    """Head and rows without those columns of `optional` that are empty in every row."""
    kept = [
        index
        for index, name in enumerate(head)
        if name not in optional or any(row[index] for row in rows)
    ]
    return [head[index] for index in kept], [[row[index] for index in kept] for row in rows]


def table(
    page: Page,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    loose: frozenset[str],
    state: int = 0,
) -> Table:
    """A table; the columns in `loose` are folded first, the others only where they must be."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    room = page.width or PIPE_WIDTH
    for index, name in enumerate(head):
        width = LOOSE_MIN
        if name not in loose:
            width = max(len(name), *(cell_len(tame(row[index])) for row in rows))
        room -= width + 2
    for name in head:
        # A column that may not wrap is cut when there is no room at all, hence only if there is.
        table.add_column(name, overflow="fold", no_wrap=room >= 0 and name not in loose)
    for row in rows:
        cells = [Text(tame(cell)) for cell in row]
        cells[state].style = _STATES.get(row[state], "")
        table.add_row(*cells)
    return table


def _style(page: Page, state: str) -> str:
    return _STATES.get(state, "") if page.color else ""


def _because(reason: str | None, detail: str) -> str:
    return f"{reason} ({detail})" if detail else str(reason or "")


def _port_name(one: Any) -> str:
    return f"{one['port_name']}/{one['protocol']}" if one["port_name"] else str(one["protocol"])

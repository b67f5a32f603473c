"""A network that is none: any number of `Swim`s on one virtual clock, with faults as wanted.

Rule: one event at a time from a heap; the same seed gives the same history. A host's daemon and its
kernel fail separately: a daemon that is stopped takes nothing and does nothing until it goes on,
and then finds all that has arrived meanwhile, as in life.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from discod.model.swim import Swim
from discod.model.swim_message import Ack, Message, Ping, Word
from discod.model.swim_terms import Action, Knock, Noted, Send, Silence, Unsilence

PERIOD = 0.2
STEP = PERIOD / 2
DELAY = (0.0002, 0.004)
"""Seconds that a packet takes."""
JITTER = 0.01
"""Seconds by which a tick is late at most, on a machine that is well."""


@dataclass(slots=True)
class Node:
    """One host."""

    swim: Swim
    dead: bool = False
    """Neither daemon nor kernel: nothing comes or goes."""
    stopped: bool = False
    """The daemon does nothing; the kernel answers knocks."""
    mail: list[Callable[[], list[Action]]] = field(default_factory=list)
    silenced: dict[str, float] = field(default_factory=dict)
    """Other -> when it was taken out here."""
    sent: int = 0
    words: int = 0


class World:
    """Hosts, and what lies between them."""

    def __init__(self, names: list[str], seed: int = 0, loss: float = 0.0) -> None:
        self.rng = Random(seed)
        self.now = 1000.0
        self.loss = loss
        self.walls: set[tuple[str, str]] = set()  # (from, to): nothing passes
        self.drops_knocks = False  # firewalls that drop instead of refusing
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self.nodes = {n: Node(Swim(n, PERIOD, Random(self.rng.random()))) for n in names}
        self.history: list[tuple[float, str, str, str]] = []  # when, who, what, whom
        self.noted: Counter[str] = Counter()
        for name, node in self.nodes.items():
            node.swim.members(names, self.now)
            self.later(self.rng.uniform(0, STEP), lambda n=name: self._tick(n))  # type: ignore[misc]

    # Time and faults ----------------------------------------------------------------------------

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now + seconds, next(self._serial), act))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.events and self.events[0][0] <= end:
            self.now, _, act = heapq.heappop(self.events)
            act()
        self.now = end

    def stop(self, name: str) -> None:
        self.nodes[name].stopped = True

    def go_on(self, name: str) -> None:
        """SIGCONT, or the processor at last: the tick comes now, after what has arrived."""
        self.nodes[name].stopped = False

    def split(self, *sides: set[str]) -> None:
        """Nothing passes from one side to another."""
        self.walls = {
            (a, b) for one in sides for other in sides if one is not other
            for a in one for b in other
        }  # fmt: skip

    # What is seen -------------------------------------------------------------------------------

    def taken_out(self, whom: str) -> dict[str, float]:
        """Who takes it as lost now -> since when."""
        return {n: node.silenced[whom] for n, node in self.nodes.items() if whom in node.silenced}

    def false_alarms(self) -> list[tuple[float, str, str, str]]:
        return [one for one in self.history if one[2] == "silence"]

    # Workings -----------------------------------------------------------------------------------

    def _tick(self, name: str) -> None:
        node = self.nodes[name]
        self.later(STEP + self.rng.uniform(0, JITTER), lambda: self._tick(name))
        if node.dead or node.stopped:
            return
        mail, node.mail = node.mail, []
        for take in mail:
            self._do(name, take())
        self._do(name, node.swim.tick(self.now))

    def _passes(self, a: str, b: str) -> bool:
        if self.nodes[a].dead or self.nodes[b].dead or (a, b) in self.walls:
            return False
        return not self.loss or self.rng.random() >= self.loss

    def _arrive(self, name: str, take: Callable[[], list[Action]]) -> None:
        """Hand something to a daemon, now or as soon as it goes on."""
        node = self.nodes[name]
        if node.stopped:
            node.mail.append(take)
        elif not node.dead:
            self._do(name, take())

    def _do(self, name: str, actions: list[Action]) -> None:
        node = self.nodes[name]
        for action in actions:
            match action:
                case Send(host, message):
                    node.sent += 1
                    node.words += isinstance(message, Word)
                    if self._passes(name, host):
                        self.later(
                            self.rng.uniform(*DELAY),
                            lambda h=host, m=message: self._arrive(  # type: ignore[misc]
                                h, lambda: self._receive(h, name, m)
                            ),
                        )
                case Knock(host):
                    if not self.drops_knocks and self._passes(name, host):
                        delay = self.rng.uniform(*DELAY)
                        self.later(delay, lambda h=host: self._knocked(name, h))  # type: ignore[misc]
                case Silence(host):
                    node.silenced[host] = self.now
                    self.history.append((self.now, name, "silence", host))
                case Unsilence(host):
                    del node.silenced[host]
                    self.history.append((self.now, name, "unsilence", host))
                case Noted(what):
                    self.noted[what] += 1

    def _knocked(self, name: str, host: str) -> None:
        if self._passes(host, name):
            node = self.nodes[name]
            self._arrive(name, lambda: node.swim.answered(host, self.now))

    def _receive(self, name: str, sender: str, message: Message) -> list[Action]:
        swim = self.nodes[name].swim
        if isinstance(message, Ack):
            return swim.ack(message.nonce, self.now)
        done = swim.signed(sender, self.now)
        return done + swim.take(sender, message, self.now)


def pings(world: World, seconds: float) -> float:
    """Datagrams a second of the busiest host."""
    for node in world.nodes.values():
        node.sent = 0
    world.run(seconds)
    return max(node.sent for node in world.nodes.values()) / seconds


__all__ = ["PERIOD", "STEP", "Node", "Ping", "World", "pings"]

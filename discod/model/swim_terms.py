"""What the watch over hosts is made of: its measures, what it can ask for, what it notes down.

Rule: values only; `discod.model.swim` decides. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from discod.model.swim_message import Message

STEPS = 2
"""Steps of a period: each target is pinged once a period while all is well."""
ROUNDS = 5
"""Rounds of probes without any sign of life until a watcher says so. With 5 % of the packets lost
a round of ping, knock and three indirect pings fails by chance about once in 10,000."""
ALONE = 2
"""Times as many rounds where no second witness exists."""
HELPERS = 3
"""Others that are asked to look for themselves, in each round."""
CONFIRM = 2
"""Steps in which what two witnesses say can still be refuted."""
FRESH = 3
"""Steps: so lately a host must have given a sign of life to be vouched for."""
RECENT = 5
"""Steps: whom this host has seen so lately it does not take out, whatever others say."""
VOUCHED = 10
"""Steps for which a word of others that a host is alive holds."""
SAID = 15
"""Steps for which a witness's word of silence holds; it is repeated each `AGAIN` steps."""
AGAIN = 5
EAGER = 3
"""Steps in a row in which a new word is said: one of them arrives."""
KEPT = 30
"""Steps for which a silence outlives its last witness, and a host its record."""
LATE = 2.5
"""Steps between two ticks from which on this host was late itself."""
LAG_MAX = 3
"""How often lateness can add `ROUNDS` to the rounds that are wanted."""
CALM = 20
"""Steps on time that take one lateness back."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a host."""

    host: str
    message: Message


@dataclass(frozen=True, slots=True)
class Knock:
    """See whether the kernel of a host answers; `Swim.answered` takes it when it does."""

    host: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Take a host as lost."""

    host: str
    since: float
    """The last sign of life, by the clock of `Swim.tick`."""
    witnesses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsilence:
    """Take `Silence` back."""

    host: str
    why: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something to count or log: ``suspicion``, ``refuted``, ``late``."""

    what: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Took:
    """How long a ping took, seconds."""

    seconds: float


Action = Send | Knock | Silence | Unsilence | Noted | Took


@dataclass(slots=True)
class Watch:
    """How it stands with one target."""

    pinged: bool = False
    """Whether a ping of an earlier step is without an answer."""
    doubted: bool = False
    """Whether a whole round of probes has been sent since."""
    rounds: int = 0
    """Whole rounds that brought nothing."""
    saying: int = 0
    """Steps since this host first said that it is silent; 0: it has not."""
    seen: float = 0.0
    """The last sign of life, or the start of the watch."""


@dataclass(slots=True)
class Case:
    """What is said against a host."""

    witnesses: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Who says so -> when it last did, and since when it sees nothing."""
    agreed: float | None = None
    """Since when they are enough."""

"""Who is alive: the state machine with which hosts watch each other, faster than leases.

Rule: it is told of the time, of what arrives and of what answers, and returns what is to be done;
it never waits. After SWIM (Das, Gupta, Motivala, 2002): ping, then ping through others, then
suspicion that the suspect or anybody can refute; after Rapid (Suresh et al., 2018): fixed watchers
on a ring, and several of them must say the same; after Lifeguard (Dadgar et al., 2018): who is slow
itself distrusts what it sees. Differences, for the sake of few false alarms:

- *Any* sign counts as life: an answer to a ping, whatever the host has signed, a word of another
  host that sees it, and the host's kernel that answers for a daemon which is stopped, starved or
  gone (`Knock`). Only a host from which nothing at all comes is silent.
- Silence is counted in rounds of probes that this host was on time to evaluate, not in seconds.
- A host is taken out when two have seen it silent, nobody vouches for it, and less than half of
  the cluster is silent: more looks like a split, and then the last good answers are better.

Everything is measured in steps, two a period. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from discod.model.swim_flights import Chance, Flights, Out
from discod.model.swim_message import NAMES_MAX, Ack, Ask, Message, Ping, Seen, Word
from discod.model.swim_ring import WATCHED, targets
from discod.model.swim_terms import (
    AGAIN,
    ALONE,
    CALM,
    CONFIRM,
    EAGER,
    FRESH,
    HELPERS,
    KEPT,
    LAG_MAX,
    LATE,
    RECENT,
    ROUNDS,
    SAID,
    STEPS,
    VOUCHED,
    Action,
    Case,
    Knock,
    Noted,
    Send,
    Silence,
    Took,
    Unsilence,
    Watch,
)


class Swim:
    """One host's view of the others.

    Args:
        me: This host's name.
        period: Seconds from one ping of a target to the next.
        rng: Chooses helpers and nonces; unpredictable in life, since a nonce proves an answer.
    """

    def __init__(self, me: str, period: float, rng: Chance) -> None:
        self.me = me
        self.step = period / STEPS
        self._rng = rng
        self._others: set[str] = set()
        self._left: dict[str, float] = {}  # silenced hosts without a record -> since when
        self._watched: dict[str, Watch] = {}
        self._contact: dict[str, float] = {}  # any proof by own eyes
        self._talked: dict[str, float] = {}  # signed messages
        self._vouched: dict[str, float] = {}
        self._vouching: dict[str, tuple[float, int]] = {}  # said when, still to be said how often
        self._cases: dict[str, Case] = {}
        self._out = Flights(rng)
        self._ticked: float | None = None
        self._number = 0
        self._calm = 0
        self.lag = 0
        """How much this host distrusts its own eyes; 0: not at all."""
        self._quiet: dict[str, Silence] = {}  # what is concluded, acted upon or not
        self._stood: dict[str, float] = {}  # when somebody last stood by a conclusion
        self.silenced: dict[str, Silence] = {}
        """What is acted upon: all that is concluded, or nothing while `divided`."""
        self.isolated = False
        """Whether this host hears nobody: then it concludes nothing, and says nothing."""
        self.divided = False
        """Whether half of the cluster or more is silent: then nothing is done about it."""

    def members(self, names: Iterable[str], now: float) -> None:
        """Take the names of all hosts that take part, with or without this one."""
        others = set(names) - {self.me}
        if others == self._others:
            return
        for name in self._others - others:
            for known in (self._contact, self._talked, self._vouched, self._vouching, self._cases):
                known.pop(name, None)
            if name in self._quiet:
                self._left[name] = now
        for name in others:
            self._left.pop(name, None)
        self._others = others
        self._arrange(now)

    # Time ---------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """Do what is due; called each `step` seconds, after all that has arrived was taken."""
        done: list[Action] = []
        late = self._ticked is not None and now - self._ticked > LATE * self.step
        self._ticked = now
        self._number += 1
        self._mind(late, done)
        self._out.forget(now - SAID * self.step)
        for host, watch in self._watched.items():
            self._watch(host, watch, now, late, done)
        self._look_about(now, done)
        self._say(now, done)
        self._judge(now, late, done)
        return done

    def _mind(self, late: bool, done: list[Action]) -> None:
        if not late:
            self._calm += 1
            if self._calm >= CALM:
                self._calm, self.lag = 0, max(0, self.lag - 1)
            return
        # The answers may have been lost with the time: what was concluded so far counts nothing.
        self._calm, self.lag = 0, min(LAG_MAX, self.lag + 1)
        done.append(Noted("late"))
        for watch in self._watched.values():
            if not watch.saying:
                watch.rounds, watch.doubted = 0, False

    def _look_about(self, now: float, done: list[Action]) -> None:
        """See whether it is rather this host that hears nobody."""
        heard = max(self._contact.values(), default=0.0)
        lively = [watch for host, watch in self._watched.items() if host not in self._quiet]
        before, self.isolated = (
            self.isolated,
            len(self._others) > 1
            and bool(lively)
            and all(watch.rounds >= ROUNDS for watch in lively)
            and now - heard > RECENT * self.step,
        )
        if before and not self.isolated:
            self._vouch(self.me, now, done)

    def _watch(self, host: str, watch: Watch, now: float, late: bool, done: list[Action]) -> None:
        if not watch.pinged:
            if self._number % STEPS == 0:
                watch.pinged = True
                self._ping(host, now, done)
            return
        if watch.saying:
            watch.saying += 1
            if self._number % STEPS == 0:  # it may return
                self._ping(host, now, done)
                done.append(Knock(host))
            if watch.saying % (2 * AGAIN) == 0:
                self._ask(host, now, done)
            if watch.rounds < ROUNDS * ALONE * (1 + LAG_MAX) and not late:
                watch.rounds += 1
            return
        if watch.doubted and not late:
            watch.rounds += 1
        watch.doubted = True
        if watch.rounds >= ROUNDS * (1 + self.lag):
            watch.saying = 1
            done.append(Noted("suspicion", host))
            return
        self._ping(host, now, done)
        done.append(Knock(host))
        self._ask(host, now, done)

    def _ping(self, host: str, now: float, done: list[Action]) -> None:
        done.append(Send(host, Ping(self._out.start(Out(host, now)))))

    def _ask(self, host: str, now: float, done: list[Action]) -> None:
        able = [
            one
            for one in sorted(self._others - self._quiet.keys() - {host})
            if one not in self._watched or not self._watched[one].saying
        ]
        able.sort(key=lambda _: self._rng.random())
        chosen = able[:HELPERS]
        done += [Send(one, Ask(self._out.start(Out(host, now)), host)) for one in chosen]

    # What is said -------------------------------------------------------------------------------

    def _say(self, now: float, done: list[Action]) -> None:
        """Tell everybody what is seen; nobody is told by one that hears nobody."""
        for host, (_, left) in list(self._vouching.items()):
            if left:
                self._vouching[host] = (now, left - 1)
                self._broadcast(Word(alive=(host,)), done)
        said = []
        due = False
        for host, watch in self._watched.items():
            if watch.saying:
                said.append((host, max(0, int((now - watch.seen) * 1000))))
                due |= watch.saying <= EAGER or watch.saying % AGAIN == 0
                case = self._cases.setdefault(host, Case())
                case.witnesses[self.me] = (now, watch.seen)
        if due and not self.isolated:
            for at in range(0, len(said), NAMES_MAX):
                self._broadcast(Word(silent=tuple(said[at : at + NAMES_MAX])), done)

    def _broadcast(self, word: Word, done: list[Action]) -> None:
        done.extend(Send(host, word) for host in sorted(self._others))

    def _vouch(self, host: str, now: float, done: list[Action]) -> None:
        """Tell everybody that a host is alive; more often than lately is of no use."""
        at, left = self._vouching.get(host, (float("-inf"), 0))
        if not left and now - at > STEPS * self.step:
            self._vouching[host] = (now, EAGER - 1)
            done.append(Noted("refuted", host))
            self._broadcast(Word(alive=(host,)), done)

    # What is concluded --------------------------------------------------------------------------

    def _judge(self, now: float, late: bool, done: list[Action]) -> None:
        for host, case in list(self._cases.items()):
            for witness, (said, _) in list(case.witnesses.items()):
                if now - said > SAID * self.step:
                    del case.witnesses[witness]
            if not case.witnesses:
                del self._cases[host]
            elif host not in self._quiet:
                self._weigh(host, case, now, late)
        for host in list(self._quiet):
            self._keep(host, now, done)
        self._act(done)

    def _weigh(self, host: str, case: Case, now: float, late: bool) -> None:
        doubtful = self.isolated or late or self._known_alive(host, now)
        if doubtful or not self._enough(host, now):
            case.agreed = None
        elif case.agreed is None:
            case.agreed = now
        elif now - case.agreed > (CONFIRM - 0.5) * self.step:
            since = max(seen for _, seen in case.witnesses.values())
            self._quiet[host] = Silence(host, since, tuple(sorted(case.witnesses)))
            self._stood[host] = now
            self._arrange(now)

    def _keep(self, host: str, now: float, done: list[Action]) -> None:
        """Whether a conclusion holds: not without a witness, nor for long without a record."""
        if host in self._left:
            if now - self._left[host] > KEPT * self.step:
                self._release(host, now, "its record is gone", done)
        elif host in self._cases or self.isolated:
            self._stood[host] = now
        elif now - self._stood[host] > KEPT * self.step:
            self._release(host, now, "no host stands by it any more", done)

    def _act(self, done: list[Action]) -> None:
        known = self._quiet.keys() & self._others
        self.divided = len(self._others) > 1 and 2 * len(known) >= len(self._others) + 1
        if self.divided:
            for host in list(self.silenced):
                del self.silenced[host]
                done.append(Unsilence(host, "too many are silent at once"))
            return
        for host, silence in self._quiet.items():
            if host not in self.silenced:
                self.silenced[host] = silence
                done.append(silence)

    def _known_alive(self, host: str, now: float) -> bool:
        seen = self._contact.get(host, float("-inf"))
        vouched = self._vouched.get(host, float("-inf"))
        return now - seen < RECENT * self.step or now - vouched < VOUCHED * self.step

    def _enough(self, host: str, now: float) -> bool:
        """Whether the witnesses are: two, or the only one there can be, after twice the time."""
        witnesses = self._cases[host].witnesses
        if len(witnesses) > 1:
            return True
        if self.me not in witnesses or len(self._others) > WATCHED:
            return False
        # In so small a cluster everybody watches everybody: who else could say anything?
        for other in self._others - {host} - self._quiet.keys():
            if now - self._talked.get(other, float("-inf")) < SAID * self.step:
                return False
        return self._watched[host].rounds >= ROUNDS * ALONE * (1 + self.lag)

    def _release(self, host: str, now: float, why: str, done: list[Action]) -> None:
        self._left.pop(host, None)
        if self._quiet.pop(host, None) is None:
            return
        self._stood.pop(host, None)
        if self.silenced.pop(host, None) is not None:
            done.append(Unsilence(host, why))
        self._arrange(now)

    def _arrange(self, now: float) -> None:
        """Watch whom the ring says."""
        wanted = targets(self.me, self._others, self._quiet)
        for host in self._watched.keys() - set(wanted):
            del self._watched[host]
        for host in wanted:
            self._watched.setdefault(host, Watch(seen=max(now, self._contact.get(host, now))))

    # What arrives -------------------------------------------------------------------------------

    def signed(self, sender: str, now: float) -> list[Action]:
        """Take note that a host has signed something new: it lives."""
        if sender not in self._others:
            return []
        self._talked[sender] = now
        return self._alive(sender, now, "it speaks")

    def answered(self, host: str, now: float) -> list[Action]:
        """Take note that a host's kernel has answered."""
        if host not in self._others:
            return []
        done = self._alive(host, now, "it answers")
        done += [Send(out.asker, Seen(out.theirs)) for out in self._out.done_for_others(host)]
        return done

    def ack(self, nonce: int, now: float) -> list[Action]:
        """Take an answer to a ping: the nonce is proof that the host has had it."""
        out = self._out.get(nonce)
        if out is None:
            return []
        if not out.asker:
            self._out.end(nonce)
            return [Took(now - out.at), *self._alive(out.host, now, "it answers")]
        return self.answered(out.host, now)

    def take(self, sender: str, message: Message, now: float) -> list[Action]:
        """Take a message that is signed and new, from a host that takes part."""
        if sender not in self._others:
            return []
        match message:
            case Ping(nonce):
                return [Send(sender, Ack(nonce))]
            case Ack(nonce):
                return self.ack(nonce, now)
            case Ask(nonce, host):
                return self._help(sender, nonce, host, now)
            case Seen(nonce):
                out = self._out.end(nonce)
                return [] if out is None else self._hearsay(out.host, now, sender)
            case Word(silent, alive):
                done: list[Action] = []
                for host, milliseconds in silent:
                    self._accused(host, sender, milliseconds / 1000, now, done)
                for host in alive:
                    if host in self._others and host != sender:
                        done += self._hearsay(host, now, sender)
                return done

    def _help(self, asker: str, nonce: int, host: str, now: float) -> list[Action]:
        if host == self.me:
            return [Send(asker, Seen(nonce))]
        if host not in self._others or self._out.full:
            return []
        mine = self._out.start(Out(host, now, asker, nonce))
        return [Send(host, Ping(mine)), Knock(host)]

    def _accused(
        self, host: str, witness: str, silent: float, now: float, done: list[Action]
    ) -> None:
        if host == self.me:
            self._vouch(self.me, now, done)
        elif host in self._others and host != witness:
            case = self._cases.setdefault(host, Case())
            case.witnesses[witness] = (now, now - min(silent, now))
            if now - self._contact.get(host, float("-inf")) <= FRESH * self.step:
                self._vouch(host, now, done)

    def _alive(self, host: str, now: float, why: str) -> list[Action]:
        """A host has been seen alive by own eyes."""
        done: list[Action] = []
        self._contact[host] = now
        accused = bool(self._cases.pop(host, None))
        if accused or host in self._quiet:
            self._vouch(host, now, done)
        self._clear(host, now)
        self._release(host, now, why, done)
        return done

    def _hearsay(self, host: str, now: float, witness: str) -> list[Action]:
        """Another host has seen it alive."""
        done: list[Action] = []
        self._vouched[host] = now
        self._cases.pop(host, None)
        self._clear(host, now)
        self._release(host, now, f"{witness} sees it", done)
        return done

    def _clear(self, host: str, now: float) -> None:
        watch = self._watched.get(host)
        if watch is not None:
            watch.pinged, watch.doubted, watch.rounds, watch.saying = False, False, 0, 0
            watch.seen = now

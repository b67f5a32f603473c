"""What discod promises in faults: the bounds, in one place, as the fault suite asserts them.

Rule: a number here is one that README ("Promises") states, or a tolerance of the laboratory, and
says which. Seconds everywhere. A bound is asserted on a machine of two cores that runs three hosts
with all their parts, so it leaves room for what the kernel makes a process wait there.
"""

from __future__ import annotations

# Promises ---------------------------------------------------------------------------------------

AT_ONCE = 0.5
"""A local death leaves this host's answers, and by hint those of all it can reach. Measured 3 to 40
ms; the rest is room for a loaded machine. Far below any lease, so it tells the two ways apart."""

LEASE_SLACK = 2.0
"""A host that dies leaves DNS within its lease's TTL and this: etcd looks for ended leases every
0.5 s, deletes by consensus, and tells its watchers."""

ELECTION = 3.5
"""More, when the dead host's etcd member led: an election takes 1 to 2 s (etcd's default timeout of
1 s, drawn between one and two times), and the new leader begins every lease anew, with one election
timeout on top (lessor.Promote)."""

EARLIEST = 0.6
"""No host leaves DNS sooner after its last word than this share of the TTL: a lease is renewed at a
third, so two thirds are left at least, less the time that a renewal takes."""

BACK = 5.0
"""From the end of a fault until every host answers what the engines' lists say, and nothing is a
suspect any more."""

HOST_OUT = 2.0
"""From a host's death until the others leave it out, where hosts watch each other. By the steps of
the state machine 1.4 at most with three hosts."""

HOST_BACK = 3.0
"""From its return until all others have it again: a ping and a word."""

ENGINE_BACK = 6.0
"""From a Docker engine's return until all answers equal its list. 2 s are the goal and what an idle
machine stays below; the engine itself takes its time on a busy one."""

ENDS_ELSEWHERE = 2.0
"""A death leaves the other hosts' answers by hint, whatever etcd does meanwhile. Milliseconds on a
quiet machine; as with `AT_ONCE`, the rest is room, here for a fault of etcd at the same time."""

MOVED = 10.0
"""From a change of the host's own address until its published ports are offered at the new one: two
looks, `discod.addresses.LOOK` apart, that agree, and the store."""

FLOOR_TTL = 2
"""The shortest `store.lease_ttl` that both discod and etcd grant."""

# Tolerances of the laboratory -------------------------------------------------------------------

SILENCE = 1.0
"""The longest that a resolver may seem to say nothing: queries are 5 ms apart, and the machine's
two cores also run the fault. A resolver that waits for a lost store would be silent for seconds."""

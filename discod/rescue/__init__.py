"""Rescue of clients that ignore the TTL: packets to a dead endpoint go to a living sibling.

A feature, as the packages beside `discod` are: it sees values and the kernel, and only
`discod.rescuing` and the daemon see it.
"""

"""The case of a question's letters (RFC 4343; draft-vixie-dnsext-dns0x20).

Rule: a question here is QNAME, QTYPE and QCLASS in wire form. The octets of type and class are no
letters, and the lengths of labels (at most 63) are none either. Pure.
"""

from __future__ import annotations

_BIT = bytes(0x20 if chr(n).isalpha() else 0 for n in range(128)) + bytes(128)
"""The bit that tells a letter's case; 0 for what is no letter."""


def lowered(question: bytes) -> bytes:
    """The question in lower case: what all ways to write it have in common."""
    return question[:-4].lower() + question[-4:]


def flipped(question: bytes, bits: int) -> bytes:
    """The question in another case: `bits`, a number of as many bits as the name has, flips."""
    name = question[:-4]
    letters = int.from_bytes(name.translate(_BIT), "big")
    changed = int.from_bytes(name, "big") ^ (letters & bits)
    return changed.to_bytes(len(name), "big") + question[-4:]


def letters(question: bytes) -> int:
    """How many letters the name has: each is worth one bit."""
    name = question[:-4].translate(_BIT)
    return len(name) - name.count(0)

"""Signatures, against what BIND's dig and Knot's kdig signed, and against the RFC by hand."""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from dataclasses import replace

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resolver.record import to_name
from resolver.transfer.keys import Key, KeyFault, parse_keys
from resolver.transfer.tsig import (
    BADKEY,
    BADSIG,
    BADTIME,
    BADTRUNC,
    NOTAUTH,
    Failure,
    Signer,
    expand,
    read,
    verify,
    verify_response,
)
from resolver.wire import Malformed
from tests.resolving import packet

SECRET = bytes(range(32))
NAME = to_name("key.discod.internal")
QUESTION = "0120000100000000000106646973636f6408696e7465726e616c0000060001"
OWNER = "036b657906646973636f6408696e7465726e616c00"

CAPTURED = [
    # Program, algorithm, what it sent for "discod.internal SOA" with the key above.
    (
        "dig", "hmac-sha256",
        "863d" + QUESTION + OWNER + "00fa00ff00000000003d0b686d61632d7368613235360000006b02f160012c"
        "002005a4e09dbb14208b06524c8f6eb02ded9bde2365b2919a53b8bd825a0185fd57863d00000000",
    ),
    (
        "dig", "hmac-sha512",
        "180c" + QUESTION + OWNER + "00fa00ff00000000005d0b686d61632d7368613531320000006b02f161012c"
        "0040eddb745e0680e36c83777cff08246c7ab770982479137660e4a764ff9336e30f106fee28bb1ce19b8b53"
        "0091c8b0bd60d6aba72b8e9526e45c2ba63b4c2fa157180c00000000",
    ),
    (
        "dig", "hmac-sha1",
        "e570" + QUESTION + OWNER + "00fa00ff00000000002f09686d61632d736861310000006b02f162012c0014"
        "92d8f47259903b5860ffc1623f5e7ba852a244b7e57000000000",
    ),
    (
        "dig", "hmac-sha224",
        "4100" + QUESTION + OWNER + "00fa00ff0000000000390b686d61632d7368613232340000006b02f163012c"
        "001cffde21c61aec2bec170df24125e4c2a996a8eb9a724d93e2f2f758d2410000000000",
    ),
    (
        "dig", "hmac-sha384",
        "5c8a" + QUESTION + OWNER + "00fa00ff00000000004d0b686d61632d7368613338340000006b02f165012c"
        "0030f18ad3f27bcfdea1e31917ffa012c04034a55f105d58a60a0821e0a2d9e2b90b1eae62de1bc540e73e18"
        "3c3d9de4d1375c8a00000000",
    ),
    (
        "kdig", "hmac-sha256",
        "7717" + QUESTION + OWNER + "00fa00ff00000000003d0b686d61632d7368613235360000006b02f166012c"
        "002080d29d1c38e0341a4252cd10aedf0f7bd0138e5032591e031c30fbafe70eaada771700000000",
    ),
    (
        "kdig", "hmac-sha512",
        "13e6" + QUESTION + OWNER + "00fa00ff00000000005d0b686d61632d7368613531320000006b02f167012c"
        "00403016eb2df911d997c14bd63ccb7af9535b694c36718afe70b2b3c44487c1ba653ce09fdb10922679d509"
        "256e60f9c5ebac58ffd43aaab5f3c7a8135127e4183213e600000000",
    ),
]  # fmt: skip
TIME = 0x6B02F160
KEY = Key(NAME, (b"hmac-sha256",), SECRET)
KEYS = {NAME: KEY}
SIGNED = bytes.fromhex(CAPTURED[0][2])


def ring(algorithm: str) -> dict[tuple[bytes, ...], Key]:
    return {NAME: Key(NAME, (algorithm.encode(),), SECRET)}


def failure(of: object) -> Failure:
    assert isinstance(of, Failure)
    return of


@pytest.mark.parametrize(("program", "algorithm", "sent"), CAPTURED)
def test_what_others_signed(program: str, algorithm: str, sent: str) -> None:
    del program
    verdict = verify(bytes.fromhex(sent), ring(algorithm), TIME + 5)
    assert isinstance(verdict, Signer)


@pytest.mark.parametrize(("program", "algorithm", "sent"), CAPTURED)
def test_we_sign_as_others_do(program: str, algorithm: str, sent: str) -> None:
    del program
    whole = bytes.fromhex(sent)
    tsig = read(whole)
    assert tsig is not None
    plain = whole[:10] + b"\0\0" + whole[12 : tsig.start]
    signed = Signer(ring(algorithm)[NAME]).sign(plain, tsig.time)
    assert signed == whole


def test_every_octet_counts() -> None:
    for at in range(len(SIGNED)):
        for bit in (1, 0x20, 0x80):
            changed = bytearray(SIGNED)
            changed[at] ^= bit
            verdict = verify(bytes(changed), KEYS, TIME)
            name_case = bit == 0x20 and chr(SIGNED[at]).isalpha() and at >= 29
            if isinstance(verdict, Signer):
                # The id on the wire is not signed (the original one is), nor is the case of the
                # key's and the algorithm's names.
                assert at < 2 or name_case, at


def test_not_a_single_cut_is_taken() -> None:
    for end in range(len(SIGNED)):
        verdict = verify(SIGNED[:end], KEYS, TIME)
        assert isinstance(verdict, Failure), end
        assert verdict.rcode == 1


def test_an_id_that_a_forwarder_changed() -> None:
    assert isinstance(verify(b"\x12\x34" + SIGNED[2:], KEYS, TIME), Signer)


def test_the_key_name_may_be_compressed() -> None:
    """Against the question: BIND does that."""
    tsig = read(SIGNED)
    assert tsig is not None
    rest = SIGNED[tsig.start + len(OWNER) // 2 :]
    assert isinstance(verify(SIGNED[: tsig.start] + b"\3KEY\xc0\x0c" + rest, KEYS, TIME), Signer)


@pytest.mark.parametrize(
    ("wire", "at"),
    [
        (b"\xc0\x00", 0),  # itself
        (b"\xc0\x02\xc0\x00", 2),  # a circle
        (b"\1a\xc0\x00", 0),  # into its own labels
        (b"\xc0", 0),
        (b"\1a\0\xc0\x00\xc0\x03", 5),  # to a pointer
        (b"\x40a\0", 0),
        (b"\3ab", 0),
        (b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\0", 0),  # 257 octets
    ],
)
def test_names_that_are_none(wire: bytes, at: int) -> None:
    with pytest.raises(Malformed):
        expand(wire, at)


def test_two_questions() -> None:
    assert verify(SIGNED[:4] + b"\0\2" + SIGNED[6:], KEYS, TIME) == Failure(1)


def test_names_in_pieces() -> None:
    wire = b"\1a\0" + b"\1B\xc0\x00" + b"\1c\xc0\x03"
    assert expand(wire, 7) == ((b"c", b"b", b"a"), 11)
    longest = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(longest) == 255 and expand(longest, 0)[1] == 255


# By hand ----------------------------------------------------------------------------------------


def by_hand(prior: bytes, message: bytes, time: int, error: int = 0, other: bytes = b"") -> bytes:
    """The MAC of a response, from the words of RFC 8945, section 4.3."""
    data = struct.pack(">H", len(prior)) + prior if prior else b""
    data += message
    data += b"\3key\6discod\10internal\0" + b"\0\xff" + b"\0\0\0\0" + b"\13hmac-sha256\0"
    data += struct.pack(">Q", time)[2:] + struct.pack(">HHH", 300, error, len(other)) + other
    return hmac.new(SECRET, data, hashlib.sha256).digest()


def response(query: bytes) -> bytes:
    reply = dnslib.DNSRecord.parse(query).reply()
    reply.ar = []
    return bytes(reply.pack())


def test_a_response_is_signed_over_the_request() -> None:
    verdict = verify(SIGNED, KEYS, TIME)
    assert isinstance(verdict, Signer)
    asked, plain = read(SIGNED), response(SIGNED)
    signed = verdict.sign(plain, TIME + 7)
    tsig = read(signed)
    assert asked is not None and tsig is not None
    assert tsig.mac == by_hand(asked.mac, plain, TIME + 7)
    assert (tsig.time, tsig.fudge, tsig.error, tsig.other) == (TIME + 7, 300, 0, b"")
    assert tsig.original_id == int.from_bytes(plain[:2], "big")
    assert len(signed) - len(plain) == verdict.octets - 6  # of which 6 are for BADTIME
    assert verify_response(signed, KEY, asked.mac, TIME)
    assert not verify_response(signed, KEY, bytes(32), TIME)
    assert not verify_response(signed, KEY, asked.mac, TIME + 400)
    assert not verify_response(plain, KEY, asked.mac, TIME)
    assert not verify_response(signed, replace(KEY, secret=bytes(32)), asked.mac, TIME)
    assert not verify_response(signed, replace(KEY, name=(b"other",)), asked.mac, TIME)


def test_further_messages_are_signed_over_those_before() -> None:
    signer = verify(SIGNED, KEYS, TIME)
    assert isinstance(signer, Signer)
    plain = response(SIGNED)
    first = read(signer.sign(plain, TIME + 1))
    second = read(signer.sign(plain, TIME + 2))
    third = read(signer.sign(plain, TIME + 500))
    assert first is not None and second is not None and third is not None
    for before, after, time in ((first, second, TIME + 2), (second, third, TIME + 500)):
        timers = struct.pack(">Q", time)[2:] + b"\x01\x2c"
        data = struct.pack(">H", 32) + before.mac + plain + timers
        assert after.mac == hmac.new(SECRET, data, hashlib.sha256).digest()


# What is wrong ----------------------------------------------------------------------------------


def test_unsigned() -> None:
    assert verify(packet("web.discod.internal"), KEYS, TIME) is None
    assert verify(packet("web.discod.internal", size=1232), KEYS, TIME) is None


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {(b"other",): replace(KEY, name=(b"other",))},
        ring("hmac-sha512"),  # the right name, another algorithm
    ],
)
def test_an_unknown_key_gets_an_unsigned_badkey(keys: dict[tuple[bytes, ...], Key]) -> None:
    verdict = failure(verify(SIGNED, keys, TIME))
    assert (verdict.rcode, verdict.error) == (NOTAUTH, BADKEY)
    tsig = read(verdict.finish(response(SIGNED), TIME))
    assert tsig is not None
    assert (tsig.name, tsig.algorithm) == (NAME, (b"hmac-sha256",))
    assert (tsig.mac, tsig.error, tsig.other) == (b"", BADKEY, b"")


def test_a_wrong_secret_gets_an_unsigned_badsig() -> None:
    verdict = failure(verify(SIGNED, {NAME: replace(KEY, secret=bytes(32))}, TIME))
    assert (verdict.rcode, verdict.error) == (NOTAUTH, BADSIG)
    tsig = read(verdict.finish(response(SIGNED), TIME))
    assert tsig is not None and (tsig.mac, tsig.error) == (b"", BADSIG)


@pytest.mark.parametrize(("off", "good"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_the_clock(off: int, good: bool) -> None:
    verdict = verify(SIGNED, KEYS, TIME + off)
    if good:
        assert isinstance(verdict, Signer)
        return
    bad = failure(verdict)
    assert (bad.rcode, bad.error) == (NOTAUTH, BADTIME)
    plain, asked = response(SIGNED), read(SIGNED)
    tsig = read(bad.finish(plain, TIME + off))
    assert tsig is not None and asked is not None
    server = (TIME + off).to_bytes(6, "big")
    assert (tsig.time, tsig.error, tsig.other) == (TIME, BADTIME, server)
    assert tsig.mac == by_hand(asked.mac, plain, TIME, BADTIME, server)


def with_mac(length: int) -> bytes:
    """The request with the first `length` octets of its MAC (or with zeros behind it)."""
    tsig = read(SIGNED)
    assert tsig is not None
    mac = (tsig.mac + bytes(64))[:length]
    at = SIGNED.index(tsig.mac)
    rdata = tsig.start + len(OWNER) // 2 + 8
    size = int.from_bytes(SIGNED[rdata : rdata + 2], "big") - 32 + length
    return (
        SIGNED[:rdata] + size.to_bytes(2, "big") + SIGNED[rdata + 2 : at - 2]
        + length.to_bytes(2, "big") + mac + SIGNED[at + 32 :]
    )  # fmt: skip


@pytest.mark.parametrize("length", [0, 1, 9, 10, 15, 33, 64])
def test_macs_of_impossible_length(length: int) -> None:
    assert verify(with_mac(length), KEYS, TIME) == Failure(1)


@pytest.mark.parametrize("length", [16, 31])
def test_shortened_macs_are_not_enough(length: int) -> None:
    verdict = failure(verify(with_mac(length), KEYS, TIME))
    assert (verdict.rcode, verdict.error) == (NOTAUTH, BADTRUNC)
    plain = response(SIGNED)
    tsig = read(verdict.finish(plain, TIME))
    assert tsig is not None and tsig.error == BADTRUNC
    asked = read(SIGNED)
    assert asked is not None
    assert tsig.mac == by_hand(asked.mac[:length], plain, TIME, BADTRUNC)


def test_a_shortened_mac_that_is_wrong_is_badsig() -> None:
    keys = {NAME: replace(KEY, secret=bytes(32))}
    assert failure(verify(with_mac(16), keys, TIME)).error == BADSIG


def test_the_signature_must_be_last_and_alone() -> None:
    tsig = read(SIGNED)
    assert tsig is not None
    record = SIGNED[tsig.start :]
    opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
    plain = SIGNED[: tsig.start]
    two = plain[:10] + b"\0\2" + plain[12:]
    assert verify(two + record + opt, KEYS, TIME) == Failure(1)
    assert verify(two + record + record, KEYS, TIME) == Failure(1)
    assert failure(verify(two + opt + record, KEYS, TIME)).error == BADSIG  # OPT was not signed
    answer = plain[:6] + b"\0\1\0\0\0\0" + plain[12:]
    assert verify(answer + record, KEYS, TIME) == Failure(1)  # in another section
    assert Failure(1).finish(b"x", TIME) == b"x"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_garbage_behind_a_header(garbage: bytes) -> None:
    for head in (SIGNED[:12], SIGNED[: len(SIGNED) // 2]):
        verdict = verify(head + garbage, KEYS, TIME)
        assert verdict is None or isinstance(verdict, Failure)


# The file ---------------------------------------------------------------------------------------

B64 = base64.b64encode(SECRET).decode()


def test_a_key_file() -> None:
    text = f"""
    # secondaries
    Key.Discod.Internal. HMAC-SHA256 {B64}  # the first signs NOTIFY

    old hmac-sha1 {B64}
    """
    assert parse_keys(text) == (KEY, Key((b"old",), (b"hmac-sha1",), SECRET))
    assert parse_keys("# nothing\n") == ()
    assert "secret" not in repr(KEY)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"a hmac-md5 {B64}", "unknown algorithm hmac-md5"),
        (f"a hmac-md5.sig-alg.reg.int {B64}", "unknown algorithm"),
        ("a hmac-sha256", "expected NAME ALGORITHM BASE64"),
        (f"a hmac-sha256 {B64} more", "expected NAME ALGORITHM BASE64"),
        ("a hmac-sha256 ???", "not base64"),
        ("a hmac-sha256 AAAA", "fewer than 8 octets"),
        (f"a..b hmac-sha256 {B64}", "no domain name"),
        (f"{'a' * 64} hmac-sha256 {B64}", "no domain name"),
    ],
)
def test_faults_in_a_key_file(line: str, said: str) -> None:
    with pytest.raises(KeyFault, match="line 2: ") as raised:
        parse_keys(f"# one\n{line}\n")
    assert said in str(raised.value)
    assert B64 not in str(raised.value)


def test_a_name_twice() -> None:
    with pytest.raises(KeyFault, match="line 2: a second key of the name A"):
        parse_keys(f"a hmac-sha256 {B64}\nA hmac-sha512 {B64}\n")

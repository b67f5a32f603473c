"""DNS Cookies: SipHash by its authors' vectors, cookies by those of RFC 9018, appendix A."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resolver.cookies import REMEMBERED, Cookies, parse_secrets
from resolver.siphash import siphash24

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
OLD = bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715")
NEW = bytes.fromhex("445536bcd2513298075a5d379663c962")
V4 = ip_address("198.51.100.100").packed
V4_OTHER = ip_address("203.0.113.203").packed
V6 = ip_address("2001:db8:220:1:59de:d0f4:8769:82b8").packed
NOW = 1_800_000_000
CLIENT = b"12345678"

# Of the reference implementation (vectors.h): key 00..0f, messages of 0, 1, 2... octets 00 01 02...
SIPHASH = [
    "310e0edd47db6f72",
    "fd67dc93c539f874",
    "5a4fa9d909806c0d",
    "2d7efbd796666785",
    "b7877127e09427cf",
    "8da699cd64557618",
    "cee3fe586e46c9cb",
    "37d1018bf50002ab",
    "6224939a79f5f593",
    "b0e4a90bdf82009e",
    "f3b9dd94c5bb5d7a",
    "a7ad6b22462fb3f4",
    "fbe50e86bc8f1e75",
    "903d84c02756ea14",
    "eef27a8e90ca23f7",
    "e545be4961ca29a1",
]


@pytest.mark.parametrize(("size", "digest"), list(enumerate(SIPHASH)))
def test_siphash(size: int, digest: str) -> None:
    assert siphash24(bytes(range(16)), bytes(range(size))).hex() == digest


@pytest.mark.parametrize(
    ("secrets", "client", "now", "option", "verdict", "reply"),
    [
        pytest.param(
            [SECRET],
            V4,
            1559731985,
            "2464c4abcf10c957",
            "new",
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            id="A.1 a new cookie",
        ),
        pytest.param(
            [SECRET],
            V4,
            1559734385,
            "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            "valid",
            "2464c4abcf10c957010000005cf7a871d4a564a1442aca77",
            id="A.2 renewed after 40 minutes",
        ),
        pytest.param(
            [SECRET],
            V4_OTHER,
            1559727985,
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
            "valid",
            None,
            id="A.3 reserved octets count in the hash",
        ),
        pytest.param(
            [SECRET],
            V4_OTHER,
            1559734700,
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
            "bad",  # nearly two hours old, which section 4.3 came to forbid
            "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
            id="A.3 the new one has none",
        ),
        pytest.param(
            [NEW, OLD],
            V6,
            1559741961,
            "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
            "valid",
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
            id="A.4 IPv6, the secret has changed",
        ),
        pytest.param(
            [NEW],
            V6,
            1559741961,
            "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
            "bad",
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
            id="A.4 without the old secret",
        ),
    ],
)
def test_rfc_9018_appendix_a(
    secrets: list[bytes], client: bytes, now: int, option: str, verdict: str, reply: str | None
) -> None:
    got = Cookies(secrets).answer(bytes.fromhex(option), client, now)
    assert got[0] == verdict
    assert reply is None or got[1].hex() == reply


@pytest.mark.parametrize("size", range(50))
def test_lengths(size: int) -> None:
    verdict, reply = Cookies([SECRET]).answer(b"x" * size, V4, NOW)
    if size == 8:
        assert verdict == "new"
    elif 16 <= size <= 40:
        assert verdict == "bad"
    else:
        assert (verdict, reply) == ("malformed", b"")
        return
    assert len(reply) == 24 and reply[:8] == b"x" * 8


@pytest.mark.parametrize(
    ("age", "verdict", "same"),
    [
        (-301, "bad", False),
        (-300, "valid", True),
        (0, "valid", True),
        (1800, "valid", True),
        (1801, "valid", False),
        (3600, "valid", False),
        (3601, "bad", False),
        (1 << 31, "bad", False),
    ],
)
@pytest.mark.parametrize("now", [NOW, (1 << 32) - 100, (1 << 32) + 100])
def test_age(age: int, verdict: str, same: bool, now: int) -> None:
    _, made = Cookies([SECRET]).answer(CLIENT, V4, now - age)
    got, reply = Cookies([SECRET]).answer(made, V4, now)
    assert got == verdict
    assert (reply == made) is same
    assert Cookies([SECRET]).answer(reply, V4, now)[0] == "valid"


@given(st.integers(0, 23), st.integers(1, 255))
def test_a_changed_bit_is_seen(at: int, flip: int) -> None:
    cookies = Cookies([SECRET])
    _, made = cookies.answer(CLIENT, V4, NOW)
    changed = bytearray(made)
    changed[at] ^= flip
    assert cookies.answer(bytes(changed), V4, NOW)[0] == "bad"


def test_a_cookie_is_of_one_client() -> None:
    cookies = Cookies([SECRET])
    _, made = cookies.answer(CLIENT, V4, NOW)
    assert cookies.answer(made, V4, NOW)[0] == "valid"
    assert cookies.answer(made, V4_OTHER, NOW)[0] == "bad"
    assert cookies.answer(made, V6, NOW)[0] == "bad"


def test_a_secret_comes_and_goes() -> None:
    """Add the next one last, make it the first, take the old one away: nobody notices."""
    _, made = Cookies([OLD]).answer(CLIENT, V4, NOW)
    _, by_two = Cookies([OLD, NEW]).answer(CLIENT, V4, NOW)
    assert made == by_two
    verdict, fresh = Cookies([NEW, OLD]).answer(made, V4, NOW)
    assert verdict == "valid" and fresh != made
    assert Cookies([NEW]).answer(fresh, V4, NOW)[0] == "valid"
    assert Cookies([NEW]).answer(made, V4, NOW)[0] == "bad"


def test_what_is_remembered_is_what_would_be_said() -> None:
    cookies = Cookies([SECRET])
    _, made = cookies.answer(CLIENT, V4, NOW)
    for now in (*range(NOW, NOW + 3700, 7), NOW - 400, NOW + 3600, NOW + 3601):
        verdict, reply = cookies.answer(made, V4, now)
        plain, fresh = Cookies([SECRET]).answer(made, V4, now)
        assert verdict == plain
        assert reply[:8] == fresh[:8]
        stamps = [int.from_bytes(x[12:16], "big") for x in (reply, fresh)]
        assert 0 <= stamps[1] - stamps[0] <= 60 or (reply == made and now <= NOW + 1800 + 60)
        assert Cookies([SECRET]).answer(reply, V4, now)[0] == "valid"


def test_memory_is_bounded() -> None:
    cookies = Cookies([SECRET])
    for i in range(REMEMBERED + 100):
        cookies.answer(i.to_bytes(8, "big"), V4, NOW)
    assert len(cookies._known) == REMEMBERED
    cookies.answer(b"1234567", V4, NOW)  # a malformed one is not worth remembering
    assert len(cookies._known) == REMEMBERED


@pytest.mark.parametrize("secrets", [[], [b""], [SECRET, b"x" * 15], [b"x" * 17]])
def test_secrets_have_16_octets(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="16 octets"):
        Cookies(secrets)


def test_secrets_of_a_file() -> None:
    text = f"# by hand\n{SECRET.hex()}\n\n  {OLD.hex().upper()}  # old\r\n"
    assert parse_secrets(text) == (SECRET, OLD)
    assert parse_secrets("") == ()


@pytest.mark.parametrize("line", ["abc", "0" * 31, "0" * 34, "g" * 32, "00 " * 16, "0" * 32 + " 1"])
def test_what_is_no_secret_is_named_by_its_line(line: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: expected 32 hexadecimal digits$"):
        parse_secrets(f"{SECRET.hex()}\n{line}\n")

"""discod.model.names: labels, domains, and the labels that discod makes."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from discod.model.names import (
    LABEL_MAX,
    instance_label,
    is_domain,
    is_label,
    is_port_name,
    reversed_labels,
    service_fault,
    to_label,
)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("a", True),
        ("0", True),
        ("web", True),
        ("web-1", True),
        ("a--b", True),
        ("a" * 63, True),
        ("a" * 64, False),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("-", False),
        ("A", False),
        ("a.b", False),
        ("a_b", False),
        ("a b", False),
        ("a\n", False),
        ("a\nb", False),
        ("*", False),
        ("bücher", False),
        ("\u0661", False),  # a digit to str.isdigit, not to DNS
        ("a\x00", False),
    ],
)
def test_is_label(text: str, valid: bool) -> None:
    assert is_label(text) is valid


@pytest.mark.parametrize(
    ("text", "valid"),
    [("http", True), ("a" * 62, True), ("a" * 63, False), ("_http", False), ("", False)],
)
def test_a_port_name_leaves_room_for_its_underscore(text: str, valid: bool) -> None:
    assert is_port_name(text) is valid


@pytest.mark.parametrize("name", ["any", "*", "dns", "node", "service"])
def test_reserved_names_are_no_services(name: str) -> None:
    assert service_fault(name) == f"{name!r} is reserved"


@pytest.mark.parametrize("name", ["", "A", "a.b", "-", "a" * 64, "a\n", "ü"])
def test_a_service_is_a_label(name: str) -> None:
    assert "expected a DNS label" in str(service_fault(name))


def test_a_good_service_has_no_fault() -> None:
    assert service_fault("web") is None


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("discod.internal", True),
        ("internal", True),
        ("", False),
        (".", False),
        ("a.", False),
        (".a", False),
        ("a..b", False),
        ("A.b", False),
        (".".join(["a" * 63] * 3 + ["a" * 61]), True),  # 253 characters
        (".".join(["a" * 63] * 3 + ["a" * 62]), False),
    ],
)
def test_is_domain(text: str, valid: bool) -> None:
    assert is_domain(text) is valid


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Web", "web"),
        ("my_app.v1", "my-app-v1"),
        ("--a--", "a"),
        ("xn--bcher-kva", "xn--bcher-kva"),
        ("a..b", "a-b"),
        ("___", ""),
        ("", ""),
        ("bücher", "b-cher"),
        ("a" * 70, "a" * 63),
        ("a" * 62 + "_b", "a" * 62),
    ],
)
def test_to_label(text: str, label: str) -> None:
    assert to_label(text) == label


@given(st.text())
def test_to_label_makes_a_label_or_nothing_and_is_idempotent(text: str) -> None:
    label = to_label(text)
    assert label == "" or is_label(label)
    assert to_label(label) == label


@given(LABELS)
def test_to_label_keeps_labels(label: str) -> None:
    assert to_label(label) == label


@pytest.mark.parametrize(
    ("protocol", "family", "label"),
    [
        ("tcp", 4, "alpha-0123456789ab-8080"),
        ("udp", 4, "alpha-0123456789ab-8080-udp"),
        ("tcp", 6, "alpha-0123456789ab-8080-v6"),
        ("udp", 6, "alpha-0123456789ab-8080-udp-v6"),
    ],
)
def test_instance_labels_name_host_container_and_port(
    protocol: str, family: int, label: str
) -> None:
    assert instance_label("alpha", "0123456789ab", 8080, protocol=protocol, family=family) == label


def test_an_instance_label_without_a_usable_host_is_its_tail() -> None:
    assert instance_label("", "web", 80, protocol="tcp", family=4) == "web-80"
    assert instance_label("___", "web", 80, protocol="tcp", family=4) == "web-80"


def test_a_container_on_a_host_with_a_long_name_keeps_the_tail() -> None:
    label = instance_label("h" * 63, "0123456789ab", 8080, protocol="udp", family=6)
    assert len(label) == LABEL_MAX
    assert label.endswith("h-0123456789ab-8080-udp-v6")


@pytest.mark.parametrize("unit", ["web", "s" * 50, "s" * 63])
def test_long_host_names_with_a_common_start_get_different_labels(unit: str) -> None:
    labels = {
        instance_label("h" * 60 + tail, unit, 80, protocol="tcp", family=4)
        for tail in ("", "1", "2", "-1")
    }
    assert len(labels) == 4


EVERYTHING = st.tuples(
    LABELS, LABELS, st.integers(0, 65535), st.sampled_from(["tcp", "udp"]), st.sampled_from([4, 6])
)


def _label(of: tuple[str, str, int, str, int]) -> str:
    host, unit, port, protocol, family = of
    return instance_label(host, unit, port, protocol=protocol, family=family)


@given(EVERYTHING)
def test_instance_labels_are_labels_and_deterministic(
    one: tuple[str, str, int, str, int],
) -> None:
    assert is_label(_label(one))
    assert _label(one) == _label(one)


@given(EVERYTHING, st.data())
def test_two_endpoints_of_one_service_never_share_a_label(
    one: tuple[str, str, int, str, int], data: st.DataObject
) -> None:
    """Within a service, what differs is the host, the port, the protocol or the family."""
    position = data.draw(st.sampled_from([0, 2, 3, 4]))
    other = list(one)
    other[position] = data.draw(EVERYTHING)[position]
    assume(other[position] != one[position])
    assert _label(one) != _label((other[0], other[1], other[2], other[3], other[4]))  # type: ignore[arg-type]


def test_reversed_labels() -> None:
    assert reversed_labels("discod.internal") == "internal/discod"
    assert reversed_labels("internal") == "internal"

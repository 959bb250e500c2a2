"""Where a request comes from: who counts as one, and that nothing of the address is left in the name."""

import pytest
from aiohttp.test_utils import make_mocked_request

from visavis.core.limits import Source
from visavis.doors.sources import Sources

SECRET = b"s" * 40


def named(address: str, secret: bytes = SECRET) -> Source:
    return Sources(secret, trust_forwarded=False).named(address)


@pytest.mark.parametrize(
    ("one", "other", "same_address", "same_network"),
    [
        ("192.0.2.1", "192.0.2.2", False, True),
        ("192.0.2.1", "::ffff:192.0.2.1", True, True),
        ("192.0.2.1", "64:ff9b::192.0.2.1", True, True),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.2", False, True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True, True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False, True),
        ("2001:db8:1:2::1", "2001:db8:2:2::1", False, False),
        ("fe80::1%eth0", "fe80::1%eth1", True, True),
        ("nonsense", "", True, True),
    ],
)
def test_who_counts_as_one(one: str, other: str, same_address: bool, same_network: bool) -> None:
    """IPv4 whole, however it is written; IPv6 by /64 and /48; IPv4 has no network, and nonsense is all one."""
    a, b = named(one), named(other)
    assert (a.address == b.address, a.network == b.network) == (same_address, same_network)


def test_a_name_says_nothing_without_the_secret() -> None:
    """The same on every worker that has it, another with another, and no part of the address in it."""
    a = named("2001:db8:1:2::1")
    assert a == named("2001:db8:1:2::1")
    assert a.address != named("2001:db8:1:2::1", b"t" * 40).address
    assert a.address != a.network
    assert "db8" not in repr(a)
    assert "192" not in named("192.0.2.1").address


def test_only_a_trusted_proxy_says_where_others_come_from() -> None:
    """By what it added itself, at the end of the last such header: the rest may be anybody's."""
    headers = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "198.51.100.2, 203.0.113.7")]
    request = make_mocked_request("GET", "/", headers=headers)
    assert Sources(SECRET, trust_forwarded=True).of(request) == named("203.0.113.7")
    request = make_mocked_request("GET", "/", headers=headers)
    assert Sources(SECRET, trust_forwarded=False).of(request) == named(request.remote or "")

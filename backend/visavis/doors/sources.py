"""Where a request comes from: the only place that reads addresses, and it gives none of them away.

An address is counted whole if it is IPv4; of IPv6 a site has as many as it likes, so that its /64 counts as one, and
the /48 around it, coarser. What leaves here is a keyed hash: the same on every worker, of no use without the secret.
"""

import hmac
import ipaddress
import socket

from aiohttp import web

from visavis.core.limits import Source
from visavis.doors.carrying import Asking

HASHED = 22
"""Characters of a hash: with 88 bits, no two addresses are ever taken for one."""
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""NAT64's well-known prefix (RFC 6052): an IPv4 address stands in its last four bytes."""

_FOUND = web.RequestKey("source", Source)
"""What was found out already about this request."""


class Sources:
    """Names addresses."""

    def __init__(self, secret: bytes, *, trust_forwarded: bool) -> None:
        self._secret = hmac.digest(secret, b"addresses", "sha256")
        self._trust_forwarded = trust_forwarded

    def of(self, request: Asking) -> Source:
        """Where a request comes from: by the connection, or by what a trusted proxy says of it."""
        found: Source | None = request.get(_FOUND)
        if found is None:
            found = request[_FOUND] = self._find(request)
        return found

    def _find(self, request: Asking) -> Source:
        text = request.remote or ""
        if self._trust_forwarded:
            # The last one is the proxy's own word; what stands before it may be anybody's.
            said = ",".join(request.headers.getall("X-Forwarded-For", [text]))
            text = said.rpartition(",")[2].strip()
        return self.named(text)

    def named(self, text: str) -> Source:
        """The names of a written address; all that are none share one."""
        try:
            # Most of them; written otherwise, it is none.
            socket.inet_pton(socket.AF_INET, text)
            return Source(self._name(text))
        except (OSError, ValueError):
            pass
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return Source(self._name("unknown"))
        if isinstance(address, ipaddress.IPv6Address):
            inner = address.ipv4_mapped
            if inner is None and address in _TRANSLATED:
                inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
            if inner is None:
                near, wide = (ipaddress.ip_network((address, bits), strict=False) for bits in (64, 48))
                return Source(self._name(str(near)), self._name(str(wide)))
            address = inner
        return Source(self._name(str(address)))

    def _name(self, prefix: str) -> str:
        return hmac.digest(self._secret, prefix.encode(), "sha256").hex()[:HASHED]

"""Guests of one test, who hang up when it ends."""

import asyncio
from typing import Any

from rig import Guest, get_guest, meet


class Crowd:
    """Guests of one test."""

    def __init__(self, url: str, tongue: str) -> None:
        self._url = url
        self.tongue = tongue
        self.guests: list[Guest] = []

    async def arrive(self, url: str | None = None, device: str | None = None, **options: Any) -> Guest:
        """A new guest, connected; from a browser that is remembered, if its device token is given."""
        url = url or self._url
        guest = Guest(url, await get_guest(url, device), **options)
        self.guests.append(guest)
        await guest.connect()
        return guest

    async def find(self, guest: Guest, **wishes: Any) -> dict[str, Any]:
        """Search among the guests of this test."""
        return await guest.find(**{"languages": [self.tongue], **wishes})

    async def meet(self, a: Guest, b: Guest, **wishes: Any) -> str:
        """Have two guests of this test find each other; returns the conversation's id."""
        return await meet(a, b, **{"languages": [self.tongue], **wishes})

    async def pair(self, **wishes: Any) -> tuple[Guest, Guest, str]:
        """Two new guests in a conversation."""
        a, b = await self.arrive(), await self.arrive()
        return a, b, await self.meet(a, b, **wishes)

    async def leave(self) -> None:
        await asyncio.gather(*(guest.hang_up() for guest in self.guests))

"""Stands before the real uvloop where a worker is to be measured on the event loop that comes with Python."""

from asyncio import new_event_loop

__all__ = ["new_event_loop"]

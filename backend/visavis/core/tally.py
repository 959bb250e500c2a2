"""Plain numbers that code counts up and operators read.

Whoever counts binds its tallies once, when it is built; a count is then one addition, a duration one bisection, and
nothing is looked up, formatted or locked before the metrics are read. Both belong to the event loop's thread.
"""

from bisect import bisect_left
from collections.abc import Sequence


class Tally:
    """A number that only grows."""

    __slots__ = ("n",)

    def __init__(self) -> None:
        self.n: float = 0


class Durations:
    """How often something took how long: a histogram over `bounds`, in seconds, rising."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """One more than bounds: the last is for what took longer."""
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class Unread:
    """A `Meter` whose numbers nobody reads."""

    def tally(self, name: str, **labels: str) -> Tally:
        return Tally()

    def durations(self, name: str, **labels: str) -> Durations:
        return Durations(())

    def count(self, name: str, **labels: str) -> None:
        """Nothing to do."""

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Nothing to do."""

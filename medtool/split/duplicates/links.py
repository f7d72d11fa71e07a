"""Which things are linked, directly or through others."""

from __future__ import annotations


class Links:
    """Sets of numbers that grow together (union and find); a number that was never joined is alone."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def join(self, one: int, other: int) -> bool:
        """Link two things; return whether they were not linked before."""
        one, other = self.top(one), self.top(other)
        self._above[max(one, other)] = min(one, other)
        return one != other

    def are_linked(self, one: int, other: int) -> bool:
        """Tell whether two things are linked."""
        return self.top(one) == self.top(other)

    def top(self, thing: int) -> int:
        """Return the least of all things that are linked with one."""
        above = self._above
        while (higher := above.get(thing, thing)) != thing:
            above[thing] = above.get(higher, higher)
            thing = higher
        return thing

    def copy(self) -> Links:
        """Return the same links, to go on with separately."""
        links = Links()
        links._above = dict(self._above)
        return links

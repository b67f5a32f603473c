"""What this host itself has taken out, until the store says so too.

Rule: a map of this host's own word, and when it ends; says nothing of what is in DNS. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from discod.model.endpoint import Endpoint, EndpointId, Withdrawal
from discod.model.schema import Record


class Suppressed:
    """Statements of this host by endpoint, ahead of the store's."""

    __slots__ = ("_elsewhere", "_said")

    def __init__(self) -> None:
        self._said: dict[EndpointId, Withdrawal] = {}
        self._elsewhere: set[EndpointId] = set()  # of those: up again, and the store names a
        # place where nobody listens any more

    def __contains__(self, id_: EndpointId) -> bool:
        return id_ in self._said

    def __iter__(self) -> Iterator[EndpointId]:
        return iter(self._said)

    def said(self) -> Iterable[Withdrawal]:
        """All that was said."""
        return self._said.values()

    def get(self, id_: EndpointId) -> Withdrawal | None:
        """What was said of one endpoint, or None."""
        return self._said.get(id_)

    def put(self, withdrawal: Withdrawal) -> None:
        """Take one out."""
        id_ = withdrawal.endpoint.id
        self._said[id_] = withdrawal
        self._elsewhere.discard(id_)

    def drop(self, id_: EndpointId) -> None:
        """Forget what was said of one endpoint."""
        self._elsewhere.discard(id_)
        self._said.pop(id_, None)

    def confirmed(self, withdrawal: Withdrawal) -> None:
        """The store has a statement: that ends this host's own, unless it is an earlier one.

        A slow store tells of several ends and starts at once, and of the last one last.
        """
        said = self._said.get(withdrawal.endpoint.id)
        if said is not None and withdrawal.at >= said.at:
            self.drop(said.endpoint.id)

    def settle(self, present: Callable[[EndpointId], bool]) -> list[EndpointId]:
        """The store's state is known anew: what it has no record of needs no statement.

        Returns what was forgotten.
        """
        over = [id_ for id_ in self._said if not present(id_)]
        for id_ in over:
            self.drop(id_)
        return over

    def back(self, endpoint: Endpoint, stored: Record | None) -> bool:
        """It is up again as `endpoint`: whether that ends what was said of it.

        Where the store still has another address or port of it, that record stays out until the
        next version comes (`renewed`).
        """
        id_ = endpoint.id
        if id_ not in self._said:
            return False
        if isinstance(stored, Endpoint) and stored.place != endpoint.place:
            self._elsewhere.add(id_)
            return False
        self.drop(id_)
        return True

    def renewed(self, record: Record, before: Record | None) -> None:
        """The store has a record, and had `before`: what waited for the next version ends."""
        if record.id in self._elsewhere and (before is None or before.revision != record.revision):
            self.drop(record.id)

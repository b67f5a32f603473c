"""One try at one upstream: UDP, and what follows from the reply.

Rule: whatever happens in between (a question again in lower case, without EDNS, with the right
cookie, or over TCP), a try ends at its deadline, with a reply or with `TryFailed`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

import trio

from discod.model.settings import DnsSettings
from resolver.forwarding.exchange import Exchange
from resolver.forwarding.health import Upstream
from resolver.forwarding.reply import Reply
from resolver.forwarding.sending import Asked, Next, Other, Sent, learn, make
from resolver.wire import Malformed

REASKS_MAX: Final = 4
"""Queries over UDP of one try: the plain one, and one for each thing that can be learned."""


class TryFailed(Exception):
    """One try at one upstream came to nothing; `result` is its label in the metrics."""

    def __init__(self, result: str) -> None:
        super().__init__(result)
        self.result = result


class Attempts:
    """Asks upstreams.

    Args:
        exchange: How to reach them.
        own_id: This discod's mark; see `loops`.
    """

    def __init__(self, exchange: Exchange, settings: DnsSettings, own_id: bytes) -> None:
        self._exchange = exchange
        self._own_id = own_id
        self.configure(settings)

    def configure(self, settings: DnsSettings) -> None:
        """Put other settings in force."""
        self._udp_size = settings.udp_size
        self._random_case = settings.randomize_case

    async def ask(
        self, to: Upstream, what: Asked, deadline: float, sent: Callable[[bytes], object]
    ) -> Reply:
        """The upstream's reply; its response time is added to what is known of it.

        `deadline` is in trio's time; `sent` is told each question as it is sent.

        Raises:
            TryFailed.
        """
        started = trio.current_time()
        reply: Reply | None = None
        try:
            with trio.CancelScope(deadline=deadline):
                reply = await self._over_udp(to, what, deadline, sent)
        except (OSError, trio.BrokenResourceError):
            raise TryFailed("error") from None
        except Malformed:
            raise TryFailed("malformed") from None
        if reply is None:
            raise TryFailed("timeout")
        now = trio.current_time()
        to.answered(now - started, now)
        return reply

    async def _over_udp(
        self, to: Upstream, what: Asked, deadline: float, sent: Callable[[bytes], object]
    ) -> Reply:
        again = False
        for _ in range(REASKS_MAX):
            query = self._make(to, what)
            sent(query.question)
            taken: Reply | Other = await self._exchange.udp(to.server, query.packet, _taker(query))
            now = trio.current_time()
            if isinstance(taken, Other):
                # Whoever guessed id and port could have forged the reply itself if case did not
                # count: asking once more, from another port, gives away nothing.
                to.lost_case(now)
                continue
            match learn(to, query, taken, now, again):
                case Next.DONE:
                    return taken
                case Next.AGAIN:
                    again = True
                case Next.TCP:
                    return await self._over_tcp(to, what)
                case Next.MORE:
                    return await self._more(to, what, deadline, taken)
        raise TryFailed("malformed")

    async def _more(self, to: Upstream, what: Asked, deadline: float, cut: Reply) -> Reply:
        """The whole of a truncated reply; itself when that cannot be had."""
        with trio.move_on_at(deadline - 0.001):  # before the try's own end
            try:
                return await self._over_tcp(to, what)
            except (OSError, trio.BrokenResourceError, Malformed):
                return cut
        return cut  # truncated is better than nothing, and says so itself

    async def _over_tcp(self, to: Upstream, what: Asked) -> Reply:
        query = self._make(to, what)._replace(exact=False)  # nobody else is on the connection
        packet = await self._exchange.tcp(to.server, query.packet)
        reply = query.judge(packet)
        if isinstance(reply, Other):
            raise Malformed("another message")
        if query.cookie and not reply.cookie:
            to.server_cookie = b""  # it has none any longer
        return reply

    def _make(self, to: Upstream, what: Asked) -> Sent:
        return make(
            to,
            what,
            trio.current_time(),
            secrets.randbits,
            udp_size=self._udp_size,
            random_case=self._random_case,
            own_id=self._own_id,
        )


def _taker(query: Sent) -> Callable[[bytes], Reply | Other | None]:
    def take(packet: bytes) -> Reply | Other | None:
        taken = query.judge(packet)
        return None if taken is Other.NONE else taken

    return take

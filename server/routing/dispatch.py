"""The way into routing: a request is sent along its plan, and all of them are counted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping

from server.protocol.request import Request
from server.routing import gauges
from server.routing.attempt import Job, Pace
from server.routing.chain import Chain
from server.routing.means import Means
from server.routing.record import Record
from server.routing.relay import Sink
from server.routing.run import Run


class Dispatcher(Means):
    """Sends requests along their plans. One for the server, over all reloads of its config."""

    def forget(self, keys: Collection[str]) -> None:
        """Replicas that are gone."""
        self.standings.forget(keys)
        self.rooms.forget("target", keys)

    def retain(self, keys: Collection[str], accounts: Mapping[tuple[str, int], str | None]) -> None:
        """After a reload: forget targets that have none of these keys, and accounts' keys that are
        none of these (provider, number), each with what stands for its secret."""
        self.standings.retain(keys)
        self.limits.retain(accounts)

    def collect(self) -> None:
        """Bring the gauges up to now: before each scrape."""
        now = self.clock()
        gauges.collect(self.standings, self.metrics, self.budget.fill(now), now)
        self.limits.collect(self.metrics)

    def in_flight(self, key: str) -> int:
        """Attempts under way at the target with this key."""
        return self.standings.in_flight(key)

    def run(
        self,
        request: Request,
        chain: Chain,
        sink: Sink,
        record: Record,
        *,
        model_label: str,
        pace: Pace,
        who_can: Callable[[str], list[str]] = lambda ability: [],
    ) -> Coroutine[None, None, None]:
        """Answer the request through `sink`.

        Raises the error to render when nothing was committed. After the commit point an error has
        become an error event already, and `record` says so. Cancelling closes the upstream.
        `who_can` names the models with an ability that the client may use.
        """
        job = Job(
            request,
            sink,
            record,
            model_label,
            pace,
            self.transport,
            self.metrics,
            self.clock,
            self.limits,
            self.watch,
        )
        self.budget.offer(self.clock())
        return Run(self, job, chain, who_can).answer()

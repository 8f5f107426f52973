"""One external engine: its replicas looked up, checked and scraped."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog

from server.config.engine import Engine
from server.engines.control import Control
from server.engines.discovery import Place, Resolver, fixed, found
from server.engines.replicas import Check, Finding, Replica, Standing, after_check
from server.engines.state import EngineState, EngineView
from server.telemetry import rare
from server.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: Seconds that a replica always has for an answer, however short the interval: it is far away, and
#: this loop may be busy.
LEAST = 1.0
#: Seconds between two checks of one replica, however many requests say that it fails.
_GAP: Final = 0.1
#: Seconds until the next try after a fault of ours.
_FAULT: Final = 5.0
_STATES: Final = (EngineState.STARTING, EngineState.READY, EngineState.BACKOFF)


@dataclass(frozen=True, slots=True)
class Settings:
    """An external engine as it is meant to be. Seconds; either `urls` or `discover`."""

    urls: tuple[str, ...] = ()
    discover: str | None = None
    refresh: float = 5.0
    #: The replicas' own name of the model; None: what each lists first.
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    #: Between two checks of a replica.
    interval: float = 2.0
    misses: int = 3
    max_waiting: int = 64

    @classmethod
    def of(cls, engine: Engine) -> Settings:
        """Those of an engine whose runtime is `external`."""
        return cls(
            urls=engine.urls,
            discover=engine.discover,
            refresh=engine.refresh,
            model=engine.model,
            api_key=engine.api_key.get_secret_value() if engine.api_key else None,
            interval=engine.health_interval,
            misses=engine.health_misses,
            max_waiting=engine.max_waiting,
        )

    @property
    def deadline(self) -> float:
        """Of each question to a replica, in seconds."""
        return max(self.interval, LEAST)

    @property
    def headers(self) -> Mapping[str, str]:
        return {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}


@dataclass(frozen=True, slots=True)
class Means:
    """What all external engines share. `tls` is called for the first https URL."""

    metrics: Metrics
    in_flight: Callable[[str], int]
    resolve: Resolver
    clock: Callable[[], float]
    tls: Callable[[], ssl.SSLContext]
    publish: Callable[[EngineView], None]


@dataclass(slots=True, eq=False)
class Member:
    """A replica that is looked after. `due`: when its next check begins."""

    place: Place
    check: Check
    due: float
    began: float = float("-inf")
    standing: Standing = field(default_factory=Standing)
    probe: asyncio.Task[None] | None = None


class External:
    """`replicas` and `view` are replaced, never changed. All that runs is in `run` and tasks that
    it starts, none of which outlives `close`."""

    def __init__(self, name: str, settings: Settings, means: Means) -> None:
        self.name, self.settings, self.means = name, settings, means
        self.replicas: tuple[Replica, ...] = ()
        self.view = EngineView(name, EngineState.STARTING, since=means.clock())
        self.bell = asyncio.Event()  # replaced at each change of state
        self.waiting = 0
        self.closed = False
        rare.external_engine(means.metrics, name)
        self._members: dict[str, Member] = {}
        self._leaving: set[Member] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._look_up: asyncio.Task[None] | None = None
        self._look_up_due = float("-inf")
        self._looked_up = False
        self._settled = False
        self._was_empty = False
        #: Why the last look-up told nothing.
        self._trouble: str | None = None

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        self._place_fixed()
        self._runner = asyncio.get_running_loop().create_task(
            self._run(), name=f"external engine {self.name}"
        )

    async def close(self) -> None:
        """Ends all of it; requests that wait are woken."""
        self.closed = True
        self._ring()
        tasks = [task for task in (self._runner, *self._work) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for member in (*self._members.values(), *self._leaving):
            await member.check.control.close()

    def respec(self, settings: Settings) -> None:
        """Take over new settings. Replicas that stay keep their standing."""
        before, self.settings = self.settings, settings
        if settings == before:
            return
        for address, member in list(self._members.items()):
            if settings.headers != before.headers:
                self._retire(member)
                member = self._members[address] = self._member(member.place, member.standing)
            if settings.model is not None and member.standing.model is not None:
                member.standing = replace(member.standing, model=settings.model)
            member.due = self.means.clock()
        if settings.discover != before.discover:
            if self._look_up is not None:
                self._look_up.cancel()
            self._look_up, self._trouble, self._looked_up = None, None, False
        self._look_up_due = float("-inf")
        self._place_fixed()
        self._refresh()
        self._changed.set()

    async def _run(self) -> None:
        """Starts what is due; ends by being cancelled."""
        while True:
            self._changed.clear()
            now = self.means.clock()
            discover = self.settings.discover
            if discover is not None and self._look_up is None and now >= self._look_up_due:
                self._look_up = self._spawn(self._find(discover))
                self._look_up.add_done_callback(self._found)
            for at, member in enumerate(self._members.values(), 1):
                if member.probe is None and now >= member.due:
                    # They are found together; from the second on, checks are spread over time.
                    part = 1.0 if member.standing.looked else at / len(self._members)
                    self._begin_probe(member, now, self.settings.interval * part)
            try:
                async with asyncio.timeout(self._pause()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _pause(self) -> float | None:
        """Seconds until something is due; None: only something that happens can make it so."""
        dues = [member.due for member in self._members.values() if member.probe is None]
        if self.settings.discover is not None and self._look_up is None:
            dues.append(self._look_up_due)
        return max(0.0, min(dues) - self.means.clock()) if dues else None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    # --- where the replicas are ---------------------------------------------------------------

    async def _find(self, discover: str) -> None:
        """One look-up. When it fails, the replicas stay those that they were."""
        trouble = None
        try:
            places = found(await self.means.resolve(discover))
            # Name servers that have just started say that there is nothing. All replicas are only
            # given up when they say it twice.
            if places or self._was_empty or not self._looked_up:
                self._place(places)
            self._was_empty = not places
        except OSError as exc:
            trouble = f"Looking up {discover} failed: {exc}."
        except Exception:  # a fault of ours must not end the look-ups
            log.exception("look_up_fault", engine=self.name)
            trouble = "A fault in Roundhouse; see its log."
        if trouble is not None and not self._looked_up:
            self._place(())  # those of another name are not what is meant now
        if trouble is not None and self._trouble is None:
            log.warning("look_up_failed", engine=self.name, error=trouble)
        self._trouble, self._looked_up = trouble, True
        self._refresh()

    def _found(self, task: asyncio.Task[None]) -> None:
        if self._look_up is task:
            self._look_up = None
            self._look_up_due = self.means.clock() + self.settings.refresh
            self._changed.set()

    def _place_fixed(self) -> None:
        if self.settings.discover is None:
            self._looked_up, self._trouble = True, None
            self._place(fixed(self.settings.urls))
            self._refresh()

    def _place(self, places: Iterable[Place]) -> None:
        """The replicas are these, in this order."""
        before, self._members = self._members, {}
        for place in places:
            known = before.get(place.address)
            if known is None or known.place != place:
                self._tell("added", place.address)
                known = self._member(place)
            else:
                del before[place.address]
            self._members[place.address] = known
        for member in before.values():
            self._tell("removed", member.place.address)
            self._retire(member)
        self._changed.set()

    def _member(self, place: Place, standing: Standing | None = None) -> Member:
        url, headers = place.base_url, self.settings.headers
        if url.startswith("https:"):
            control = Control(None, url=url, headers=headers, tls=self.means.tls())
        else:
            control = Control(None, url=url, headers=headers)
        return Member(place, Check(control), self.means.clock(), standing=standing or Standing())

    def _retire(self, member: Member) -> None:
        """Only the looking ends: requests that it is answering go on."""
        if member.probe is not None:
            member.probe.cancel()
        self._leaving.add(member)
        self._spawn(self._let_go(member))

    async def _let_go(self, member: Member) -> None:
        if member.probe is not None:
            await asyncio.wait({member.probe})
        await member.check.control.close()
        self._leaving.discard(member)

    # --- how they are -------------------------------------------------------------------------

    def _begin_probe(self, member: Member, now: float, pause: float) -> None:
        member.began, member.due = now, now + pause
        member.probe = self._spawn(self._probe(member))

        def probed(_: asyncio.Task[None]) -> None:
            member.probe = None
            self._changed.set()

        member.probe.add_done_callback(probed)

    async def _probe(self, member: Member) -> None:
        """One check, and, when it is well, one scrape."""
        settings, address = self.settings, member.place.address
        try:
            self._judge(member, await member.check.look(settings.deadline, settings.model))
            if not member.standing.well:
                return
            load, ours = await member.check.load(
                settings.deadline, lambda: self.means.in_flight(f"engine/{self.name}@{address}")
            )
            before = member.standing
            member.standing = replace(before, load=load, load_ours=ours)
            if member.standing != before:
                self._refresh()
        except Exception:  # a fault of ours must not leave a replica unwatched
            log.exception("replica_check_fault", engine=self.name, replica=address)
            member.due = self.means.clock() + _FAULT

    def _judge(self, member: Member, finding: Finding) -> None:
        if finding.ours:
            log.warning("replica_not_asked", engine=self.name, error=finding.error)
        address, before = member.place.address, member.standing
        member.standing = after = after_check(before, finding, self.settings.misses)
        if after.well is not before.well:
            if not after.well:
                self._tell("lost", address, error=after.error)
            elif before.model is not None:  # it was well before
                self._tell("returned", address)
            else:
                log.info("replica_well", engine=self.name, replica=address, model=after.model)
        if before.well and after.well and before.model != after.model:
            log.info("replica_model", engine=self.name, replica=address, model=after.model)
        if after != before:
            self._refresh()

    def poke(self, address: str) -> None:
        """A request failed there: look now, and again if a look is under way."""
        member = self._members.get(address)
        if member is not None and member.standing.well:
            gap = min(_GAP, self.settings.interval)
            member.due = min(member.due, max(self.means.clock(), member.began + gap))
            self._changed.set()

    # --- what others see ----------------------------------------------------------------------

    def members(self) -> tuple[tuple[str, Standing], ...]:
        """Every replica's address and standing, the ill ones, too."""
        return tuple((address, member.standing) for address, member in self._members.items())

    def count_waiting(self, step: int) -> None:
        self.waiting += step
        self.means.metrics.engine_waiting.labels(self.name).set(self.waiting)
        self.view = replace(self.view, waiting=self.waiting)

    def _tell(self, change: str, address: str, **more: Any) -> None:
        self.means.metrics.replica_changes.labels(self.name, change).inc()
        say = log.warning if change == "lost" else log.info
        say(f"replica_{change}", engine=self.name, replica=address, **more)

    def _refresh(self) -> None:
        """Make the snapshots anew."""
        headers = self.settings.headers
        replicas = tuple(
            Replica(
                address, member.place.base_url, standing.model, headers,
                load=standing.load, load_ours=standing.load_ours,
            )
            for address, member in self._members.items()
            if (standing := member.standing).well and standing.model is not None
        )  # fmt: skip
        if replicas != self.replicas:
            self.replicas = replicas
        well, known = len(replicas), len(self._members)
        looked = all(member.standing.looked for member in self._members.values())
        self._settled = self._settled or well > 0 or (self._looked_up and looked)
        state, error = EngineState.READY, None
        if not well:
            state = EngineState.BACKOFF if self._settled else EngineState.STARTING
            error = self._error() if self._settled else None
        stage = f"{well} of {known} replicas well" if self._looked_up else "looking up"
        changed = state is not self.view.state
        before, self.view = (
            self.view,
            EngineView(
                self.name,
                state,
                stage=f"{stage}; {self._trouble}" if self._trouble and well else stage,
                since=self.means.clock() if changed else self.view.since,
                waiting=self.waiting,
                error=error,
                error_reason=None if error is None else "no_replica",
            ),
        )
        metrics = self.means.metrics
        metrics.replicas.labels(self.name, "well").set(well)
        metrics.replicas.labels(self.name, "ill").set(known - well)
        for one in _STATES:
            metrics.engine_state.labels(self.name, one).set(one is state)
        if changed:
            if error is not None:
                log.warning("engine_without_replicas", engine=self.name, error=error)
            self._ring()
        if self.view != before:
            self.means.publish(self.view)

    def _error(self) -> str:
        if self._trouble is not None:
            return self._trouble
        if not self._members:
            return f"{self.settings.discover} names no address."
        address, standing = next(iter(self.members()))
        told = f"{address}: {standing.error or 'It was not looked at yet.'}"
        return f"None of {len(self._members)} replicas is well. {told}"

    def _ring(self) -> None:
        bell, self.bell = self.bell, asyncio.Event()
        bell.set()

"""What is kept of processes that answered once: their connections, and how they did."""

from __future__ import annotations

from server.api.services import Services
from server.engines.state import EngineState, Instance

#: States in which a process that was ready once is still there.
_LIVING = (EngineState.STARTING, EngineState.DRAINING, EngineState.ASLEEP)


async def forget_dead(services: Services) -> None:
    """Close the pools of engines that are gone. A draining one still answers over its own."""
    known: dict[str, dict[int, Instance]] = {}  # of each engine, by generation
    with services.supervisor.subscribe() as changes:
        async for view in changes:
            before = known.pop(view.name, {})
            now = known[view.name] = {
                one.generation: one
                for one in view.instances
                if one.state is EngineState.READY
                or (one.state in _LIVING and one.generation in before)
            }
            for generation in now.keys() - before.keys():
                label = f"engine/{view.name}"
                for place in (label, f"{label}@{now[generation].replica}"):
                    services.dispatcher.standings.renew(place)
            for generation in before.keys() - now.keys():
                if (uds := before[generation].socket) is not None:
                    await services.transport.forget(uds)

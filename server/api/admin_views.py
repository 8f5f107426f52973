"""An engine as the admin API tells it, and which one a name means."""

from __future__ import annotations

import time
from typing import Any, Final

from server.api.services import Services
from server.api.unknown import near_matches
from server.config.reload import Watcher
from server.engines.state import EngineState, EngineView, Instance
from server.errors import Conflict, InvalidRequest, RouteNotFound

#: Lines of a failed engine's log.
LOG_LINES: Final = 20
#: Where an engine is from: the config, or a call of the admin API.
CONFIG: Final = "config"
LOADED: Final = "loaded"


class Views:
    """All engines: our own, then those that somebody else runs."""

    def __init__(self, services: Services, watcher: Watcher) -> None:
        self._services, self._watcher = services, watcher

    def all(self) -> tuple[EngineView, ...]:
        return (*self._services.supervisor.views(), *self._services.fleet.views())

    def view(self, name: str) -> EngineView:
        """Raises RouteNotFound when it is gone meanwhile."""
        view = self._services.supervisor.view(name) or self._services.fleet.view(name)
        if view is None:
            raise self._unknown(name)
        return view

    def origin(self, name: str) -> str:
        return LOADED if name in self._watcher.loaded.additions.engines else CONFIG

    def models(self, name: str) -> list[str]:
        """The models that it answers for, by their own names."""
        return [
            listed
            for listed, model in self._services.state.models.items()
            if model.name == listed and any(target.engine == name for target in model.targets)
        ]

    # --- which one ----------------------------------------------------------------------------

    def find(self, name: str) -> str:
        """The engine of this name; else the only one of the model of this name, or with these
        weights. Raises RouteNotFound, Conflict (it may be several)."""
        found = self.candidates(name)
        if not found:
            raise self._unknown(name)
        if len(found) > 1:
            listed = ", ".join(f"`{one}`" for one in found)
            raise Conflict(
                f"`{name[:200]}` may be any of these engines: {listed}. Name one of them.",
                code="ambiguous_name",
            )
        return found[0]

    def own(self, name: str) -> str:
        """Like `find`, of one that this server starts and stops. Raises InvalidRequest, too."""
        found = self.find(name)
        if self._services.fleet.view(found) is not None:
            raise InvalidRequest(
                f"Engine `{found}` is external: whoever runs its replicas starts and stops them, "
                "and has their logs."
            )
        return found

    def candidates(self, name: str) -> list[str]:
        """The engines that a name may mean."""
        services, config = self._services, self._services.state.config
        if services.supervisor.view(name) or services.fleet.view(name):
            return [name]
        model = services.state.models.get(name)
        if model is not None:
            engines = [target.engine for target in model.targets if target.engine is not None]
            return list(dict.fromkeys(engines))
        return [one for one, engine in config.engines.items() if engine.weights == name]

    def _unknown(self, name: str) -> RouteNotFound:
        views, model = self.all(), self._services.state.models.get(name)
        if model is not None:
            text = f"The model `{name[:200]}` has no engine here: providers answer for it."
            return RouteNotFound(text, code="engine_not_found")
        names = [view.name for view in views]
        models = self._services.state.models.items()
        on_engines = [name for name, one in models if any(t.engine for t in one.targets)]
        if near := near_matches(name, dict.fromkeys([*names, *on_engines])):
            hint = "Did you mean " + " or ".join(f"`{one}`" for one in near) + "?"
        else:
            hint = f"Engines: {', '.join(names) or 'none'}."
        return RouteNotFound(f"There is no engine `{name[:200]}`. {hint}", code="engine_not_found")

    # --- as JSON ------------------------------------------------------------------------------

    def told(self, view: EngineView) -> dict[str, Any]:
        """One engine for the admin API."""
        services, name, now = self._services, view.name, time.monotonic()
        engine = services.state.config.engines.get(name)
        error = services.supervisor.error(name) if view.state is EngineState.FAILED else None
        external = services.fleet.view(name) is not None
        told = {
            "name": name,
            "state": view.state.value,
            "origin": self.origin(name),
            "weights": None if engine is None else engine.weights,
            "models": self.models(name),
            "stage": view.stage,
            "eta_s": None if external else services.supervisor.eta(name),
            "since_s": round(now - view.since, 1),
            "restarts": view.restarts,
            "pid": view.pid,
            "waiting": view.waiting,
            "in_flight": sum(self._in_flight(name, one) for one in _replicas(view)),
            "devices": list(view.devices),
            "memory": {"planned": view.planned or None, "used": view.used},
            "pinned": engine is not None and engine.pinned,
            "idle_s": self._idle(view, now),
            "idle_limit_s": None if engine is None else engine.idle,
            "unload_in_s": _until(view.unload_at, now),
            "error": view.error,
            "error_reason": view.error_reason,
            "log": list(error.log_tail[-LOG_LINES:]) if error is not None else [],
            "instances": [self._instance(name, one, now) for one in view.instances],
        }
        return told | self._external(name) if external else told

    def _in_flight(self, name: str, replica: int | None) -> int:
        label = f"engine/{name}"
        count = self._services.dispatcher.in_flight
        # An engine with one replica has no numbers.
        alone = count(label) if not replica else 0
        return alone + (0 if replica is None else count(f"{label}@{replica}"))

    def _idle(self, view: EngineView, now: float) -> float | None:
        """Seconds without a request of one that is loaded; 0 while it answers some."""
        if view.state not in (EngineState.READY, EngineState.ASLEEP):
            return None
        if any(self._in_flight(view.name, one) for one in _replicas(view)):
            return 0.0
        if (begin := max(view.last_used, view.ready_since or 0.0)) == 0.0:
            return None
        return round(max(0.0, now - begin), 1)

    def _instance(self, name: str, one: Instance, now: float) -> dict[str, Any]:
        return {
            "replica": one.replica,
            "state": one.state.value,
            "pid": one.pid,
            "devices": list(one.devices),
            "in_flight": self._in_flight(name, one.replica),
            "since_s": round(now - one.since, 1),
        }

    def _external(self, name: str) -> dict[str, Any]:
        """What only an external engine has, and what all its replicas have together."""
        in_flight = self._services.dispatcher.in_flight
        replicas = [
            {
                "address": address,
                "well": standing.well,
                "model": standing.model,
                "load": standing.load,
                "in_flight": in_flight(f"engine/{name}@{address}"),
                "error": standing.error,
            }
            for address, standing in self._services.fleet.members(name)
        ]
        return {"in_flight": sum(one["in_flight"] for one in replicas), "replicas": replicas}


def _replicas(view: EngineView) -> list[int | None]:
    """Each once: one that drains and one that starts may have the same number."""
    return list(dict.fromkeys(one.replica for one in view.instances)) or [None]


def _until(then: float | None, now: float) -> float | None:
    return None if then is None else round(max(0.0, then - now), 1)

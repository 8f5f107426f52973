"""A config's services without a server: nothing listens, no engine is loaded, all is at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.access.admission import Admission
from server.api.intake import BodyBudget
from server.api.services import Services, build_state
from server.cli.version import roundhouse_version
from server.config.resolve import local_engines
from server.engines.fleet import Fleet, settings_of
from server.engines.state import EngineState, EngineView
from server.engines.supervisor import Supervisor
from server.routing.dispatch import Dispatcher
from server.routing.settings import Settings
from server.telemetry.metrics import Metrics
from server.transport import Transport

if TYPE_CHECKING:
    from server.config.load import Loaded


class _AtRest(Supervisor):
    """Whose engines nobody has asked for yet."""

    def view(self, name: str) -> EngineView | None:
        return EngineView(name, EngineState.STOPPED)

    def eta(self, name: str) -> float | None:
        return None


def services_of(loaded: Loaded) -> Services:
    """What the endpoints of a server would share; of use for questions only."""
    config, metrics, transport = loaded.config, Metrics(), Transport()
    supervisor = _AtRest(local_engines(config), config.runtimes, home=loaded.home, metrics=metrics)
    fleet = Fleet(settings_of(config.engines), metrics=metrics)
    admission = Admission(metrics)
    dispatcher = Dispatcher(transport, metrics, rooms=admission.rooms, settings=Settings.of(config))
    return Services(
        state=build_state(loaded, supervisor, fleet, dispatcher.standings),
        metrics=metrics,
        transport=transport,
        supervisor=supervisor,
        fleet=fleet,
        admission=admission,
        dispatcher=dispatcher,
        budget=BodyBudget(config.server.limits.all_bodies, metrics),
        version=roundhouse_version(),
    )

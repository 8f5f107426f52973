"""The planner's world, from the config and from what runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from server.config.engine import Engine
from server.config.placement import Placement
from server.engines import placement
from server.engines.fitting import Fitted
from server.engines.placement import FOREVER, Device, Policy, Running


def policy_of(config: Placement, devices: Iterable[Device]) -> Policy:
    """The config's wishes; the host's memory is the CPU's."""
    return Policy(
        starvation=config.starvation,
        drain=config.drain,
        forget=FOREVER if config.forget is None else config.forget,
        host=next((device.id for device in devices if device.kind == "cpu"), None),
    )


def engine_of(
    name: str,
    config: Engine,
    fitted: Fitted | None,
    *,
    there: bool = False,
    kept_out: bool = False,
    eager: bool = False,
    not_before: float = 0.0,
    failed: Iterable[int] = (),
) -> placement.Engine:
    """`there`: an instance of it is. `kept_out`: it is not to be started by anybody's wish, nor for
    being pinned. Without `fitted` nothing of it can be started."""
    known = fitted or Fitted()
    return placement.Engine(
        name,
        known.options,
        pinned=config.pinned and not kept_out and (there or fitted is not None),
        idle=FOREVER if config.idle is None else config.idle,
        residency=config.residency,
        groups=frozenset(config.groups),
        replicas=1 if kept_out or fitted is None else config.replicas,
        refusal=known.refusal,
        not_before=not_before,
        eager=eager and not kept_out and fitted is not None,
        failed=frozenset(failed),
    )


def planned(one: Running, host: str | None) -> dict[str, int]:
    """Bytes by device that are set aside for an instance."""
    asleep = one.phase in (placement.Phase.ASLEEP, placement.Phase.SLEEPING)
    left, away = one.option.asleep if asleep and one.option.asleep else (one.option.each, 0)
    found = dict.fromkeys(one.devices, left)
    if host is not None and (beside := one.option.host + away):
        found[host] = found.get(host, 0) + beside
    return found

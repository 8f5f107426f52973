"""Do all engines of a config fit at one time, or do they take turns? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from server.config.engine import Engine
from server.engines.devices import UNKNOWN, gib
from server.engines.fitting import Fitted
from server.engines.placement import Device, Option


def advice(
    engines: Mapping[str, Engine], fits: Mapping[str, Fitted], machine: Sequence[Device]
) -> tuple[str, ...]:
    """Sentences about who has to make room for whom; none when all fit together.

    Each is put where the least is left, the largest first: it may be that they fit, and this does
    not find out how.
    """
    free = {device.id: device.total - device.reserved for device in machine}
    fits = {name: fitted for name, fitted in fits.items() if fitted.refusal is None}
    pinned = [name for name in fits if engines[name].pinned]
    left = _packed(pinned, fits, machine, free)
    said = []
    if left:
        said.append(
            f"Not all pinned engines fit at one time: {_listed(left, fits)} will be refused. "
            "Pin fewer, or give them less memory."
        )
    rest = [name for name in fits if name not in pinned]
    left = _packed(rest, fits, machine, free)
    if left:
        where = {device for name in left for device in _reach(fits[name], machine)}
        among = [name for name in rest if where & set(_reach(fits[name], machine))]
        sizes = ", ".join(f"{device.id} has {gib(device.total - device.reserved)}"
                          for device in machine if device.id in where)  # fmt: skip
        said.append(
            f"Not all engines fit at one time ({sizes} for them): {_listed(among, fits)} take "
            "turns, as requests come."
        )
    return tuple(said)


def _packed(
    names: Iterable[str],
    fits: Mapping[str, Fitted],
    machine: Sequence[Device],
    free: dict[str, int],
) -> list[str]:
    """Takes what they need from `free`; those that did not fit."""
    return [
        name
        for name in sorted(names, key=lambda name: -_size(fits[name]))
        if not any(_put(option, machine, free) for option in fits[name].options)
    ]


def _put(option: Option, machine: Sequence[Device], free: dict[str, int]) -> bool:
    able = sorted(
        (free[one.id], one.id)
        for one in machine
        if _allowed(option, one) and free[one.id] >= option.each
    )
    if len(able) < option.devices or free.get("cpu", 0) < option.host:
        return False
    for _, name in able[: option.devices]:
        free[name] -= option.each
    free["cpu"] -= option.host
    return True


def _allowed(option: Option, device: Device) -> bool:
    return device.kind == option.kind and (not option.ids or device.id in option.ids)


def _reach(fitted: Fitted, machine: Sequence[Device]) -> list[str]:
    return [one.id for one in machine if any(_allowed(opt, one) for opt in fitted.options)]


def _size(fitted: Fitted) -> int:
    return min((option.each * option.devices for option in fitted.options), default=0)


def _listed(names: Iterable[str], fits: Mapping[str, Fitted]) -> str:
    return ", ".join(
        f"{name} ({gib(_size(fits[name]))})" if _size(fits[name]) < UNKNOWN else name
        for name in sorted(names)
    )

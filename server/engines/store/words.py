"""How sizes, times and the state of a pull read. Pure."""

from __future__ import annotations

from server.engines.store.progress import Look

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_of(count: float) -> str:
    """`312 B`, `4.7 GiB`"""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return (
        f"{count:.0f} {_UNITS[unit]}"
        if unit == 0 or count >= 100
        else f"{count:.1f} {_UNITS[unit]}"
    )


def duration_of(seconds: float) -> str:
    """`42 s`, `7 min`, `2 h 5 min`"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def stage_of(look: Look) -> str:
    """For an engine that waits for it: `pulling weights: 34% of 15.2 GiB, 80 MiB/s, 2 min left`"""
    if not look.size:
        return "pulling weights"
    share = min(100 * look.done // look.size, 100)
    parts = [f"pulling weights: {share}% of {size_of(look.size)}", *pace_of(look)]
    return ", ".join(parts)


def pace_of(look: Look) -> list[str]:
    """`80 MiB/s`, `2 min left`, as far as they are known; nothing once all is here."""
    if look.rate is None or look.done >= look.size:
        return []
    left = [] if look.left is None else [f"{duration_of(look.left)} left"]
    return [f"{size_of(look.rate)}/s", *left]

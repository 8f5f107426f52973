"""One replica of an external engine: what is asked of it, and what its answers make of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import msgspec

from server.engines.control import OURS, Control

#: Longer is no name of a model, or one that somebody wants to fill a log with.
_LONGEST_NAME: Final = 512
_LOAD: Final = re.compile(
    rb"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (\S+)(?: -?\d+)?$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that is well, at one moment.

    `model` is its own name of the model. `load`: requests that it had, running and waiting, at its
    last scrape; None: it does not say. `load_ours`: those of ours among them.
    """

    address: str
    base_url: str
    model: str
    headers: Mapping[str, str] = field(repr=False)
    load: float | None = None
    load_ours: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a replica. `error` says why it is not well; None before the first check.
    `model` is None until it was well once.
    """

    well: bool = False
    looked: bool = False
    misses: int = 0
    error: str | None = None
    model: str | None = None
    load: float | None = None
    load_ours: int = 0


class Finding(NamedTuple):
    """The end of one check. `error` None: it is well, and calls its model `model`.

    `gone`: nobody listens there, which needs no second look. `ours`: we could not even ask.
    """

    error: str | None = None
    model: str | None = None
    gone: bool = False
    ours: bool = False


def after_check(standing: Standing, finding: Finding, misses: int) -> Standing:
    """One good check brings a replica in; `misses` bad ones in a row take it out."""
    if finding.ours:
        return standing
    if finding.error is None:
        return replace(standing, well=True, looked=True, misses=0, error=None, model=finding.model)
    missed = standing.misses + 1
    if standing.well and missed < misses and not finding.gone:
        return replace(standing, misses=missed)
    return Standing(looked=True, misses=missed, error=finding.error, model=standing.model)


# --- what is asked ----------------------------------------------------------------------------


class Check:
    """The questions to one replica. Nothing here raises, and each question has its deadline."""

    def __init__(self, control: Control) -> None:
        self.control = control
        #: It has no /health: not a vLLM. Asked again for after each miss.
        self._plain = False

    async def look(self, timeout: float, model: str | None) -> Finding:
        """Is it well? Without `model`, its name of the model is found out, too."""
        if not self._plain:
            status, said = await self._get("/health", timeout)
            if status == 404:
                self._plain = True
            elif status != 200:
                return said
            elif model is not None:
                return Finding(model=model)
        status, said, body = await self._ask("/v1/models", timeout)
        if status == 200:
            listed = first_model(body)
            if model is not None or listed is not None:
                return Finding(model=model or listed)
            said = Finding("It lists no model.")
        self._plain = False
        return said

    async def load(self, timeout: float, ours: Callable[[], int]) -> tuple[float | None, int]:
        """(requests that it has, those of them that are ours); (None, 0) when it does not say."""
        # Its figures are from its last step, nearer to the asking than to the answer.
        then = ours()
        status, _, body = await self._ask("/metrics", timeout)
        found = load_of(body) if status == 200 else None
        return (None, 0) if found is None else (found, then)

    async def _get(self, path: str, timeout: float) -> tuple[int, Finding]:
        status, said, _ = await self._ask(path, timeout)
        return status, said

    async def _ask(self, path: str, timeout: float) -> tuple[int, Finding, bytes]:
        """(status, what a status other than 200 means, body); status 0: no answer."""
        try:
            status, body = await self.control.get(path, timeout)
        except ConnectionRefusedError:
            return 0, Finding("Nobody listens there.", gone=True), b""
        except TimeoutError:
            return 0, Finding(f"It did not answer {path} within {timeout:g} s."), b""
        except OSError as exc:
            return 0, Finding(_told(exc), ours=exc.errno in OURS), b""
        if status in (401, 403):
            return status, Finding(f"It refuses our key: {path} says {status}."), b""
        return status, Finding(f"Its {path} says {status}."), body


def _told(exc: OSError) -> str:
    name = exc.strerror or str(exc) or type(exc).__name__
    return f"It cannot be asked: {name}."


# --- what it answers --------------------------------------------------------------------------


def first_model(body: bytes) -> str | None:
    """The first model of a /v1/models, or None."""
    try:
        answer: Any = msgspec.json.decode(body)
        name = answer["data"][0]["id"]
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, RecursionError):
        return None
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        return None
    return name


def load_of(exposition: bytes) -> float | None:
    """Requests that run and wait, over all of vLLM's series; None when it has none of them."""
    values = _LOAD.findall(exposition)
    try:
        total = math.fsum(float(value) for value in values)
    except (ValueError, OverflowError):
        return None
    return total if values and math.isfinite(total) and total >= 0 else None

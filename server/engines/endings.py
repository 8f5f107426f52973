"""How an engine ended, and what that means: why a start failed, why a running one died."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.engines import failures
from server.engines.failures import Failure, diagnose, last_words
from server.engines.progress import Stage
from server.errors import EngineError

#: How many lines of its log an error brings along.
LINES: Final = 20
_VMSTAT: Final = Path("/proc/vmstat")
_NO_MEMORY: Final = "Lower `kv_cache`, use smaller weights, or stop what else uses the memory."
_NO_MEMORY_COMMAND: Final = "Use smaller weights, or stop what else uses the memory."


@dataclass(frozen=True, slots=True)
class Exit:
    """How the engine's first process ended. Both None: it was lost with its guard."""

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by {_signal_name(self.signal)}"
        return "lost" if self.code is None else f"exit code {self.code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def memory_kills() -> int | None:
    """How many processes of this machine the kernel has killed for want of memory; None: it does
    not say. They leave nothing in any log but the kernel's."""
    try:
        for line in _VMSTAT.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return None


def evidence(lines: Sequence[str], *, vllm: bool = True) -> tuple[str, ...]:
    """What an error shows of the log: the line that says why, where it is known, and the last."""
    return failures.evidence(lines, LINES, vllm=vllm)


def start_failure(
    ended: Exit, lines: Sequence[str], *, vllm: bool = True, no_memory: bool = False
) -> EngineError:
    """Why it ended before it was ready.

    `lines`: all that is known of its log. `no_memory`: the kernel killed something for want of
    memory meanwhile.
    """
    tail = evidence(lines, vllm=vllm)
    known = diagnose(lines, vllm=vllm)
    if known is None and ended.signal == signal.SIGKILL:
        known = _killed("it", vllm, certain=no_memory)
    if known is None and vllm and failures.silent(lines):
        known = _killed("one of its processes", vllm, certain=no_memory)
    if known is not None:
        return _told(known, tail)
    words = last_words(lines)
    # argparse and its kin, vLLM's API server too. What a shell ends with means that it found none.
    refused = ended.code == 2 and vllm
    missing = ended.code in (126, 127) and not vllm
    return EngineError(
        f"It ended while it started ({ended})" + (f": {words}" if words else "."),
        reason="arguments" if refused else "environment" if missing else "crash",
        terminal=refused or missing,
        log_tail=tail,
    )


def _killed(what: str, vllm: bool, *, certain: bool) -> Failure:
    hint = _NO_MEMORY if vllm else _NO_MEMORY_COMMAND
    if certain:
        told = f"The kernel killed {what} while it started, because memory ran out."
        return Failure("memory", told, hint, False)
    was = f"{what[0].upper()}{what[1:]} was killed while it started"
    return Failure("crash", f"{was}, most likely because memory ran out.", hint, False)


def _told(known: Failure, tail: tuple[str, ...]) -> EngineError:
    return EngineError(
        f"{known.message} {known.hint}",
        reason=known.reason,
        terminal=known.terminal,
        log_tail=tail,
    )


def not_ready(
    timeout: float,
    stage: Stage,
    stood: float,
    quiet: float,
    lines: Sequence[str],
    more: str = "",
) -> EngineError:
    """No good health within `start_timeout`.

    `stood`: for how long it has been at `stage`; `quiet`: since the last line of its log. Seconds.
    `more`: what else is known, in a sentence.
    """
    where = f"It was not ready within {timeout:g} s; it stood at «{stage.text}» for {stood:.0f} s"
    if more:
        return EngineError(f"{where}. {more}", reason="timeout", log_tail=evidence(lines))
    if quiet >= timeout / 2:
        return EngineError(
            f"{where}, and its log has been silent for {quiet:.0f} s: it hangs. See its last lines "
            "for what it waits for: a network, a disk, other devices.",
            reason="timeout",
            log_tail=evidence(lines),
        )
    return EngineError(
        f"{where}, and was still at work. Raise `start_timeout`, or make it load less.",
        reason="timeout",
        log_tail=evidence(lines),
    )


def death(
    ended: Exit, lines: Sequence[str], *, vllm: bool = True, no_memory: bool = False
) -> EngineError:
    """What a ready engine died of."""
    known = diagnose(lines, vllm=vllm)
    if known is not None and known.reason in _WHILE_READY:
        told, reason = f"It died: {known.message} {known.hint}", known.reason
    elif ended.signal == signal.SIGKILL and no_memory:
        hint = _NO_MEMORY if vllm else _NO_MEMORY_COMMAND
        told, reason = f"The kernel killed it, because memory ran out. {hint}", "memory"
    else:
        words = last_words(lines, exceptions=True)
        told, reason = f"It ended though nobody had asked it to ({ended})", "crash"
        told += f": {words}" if words else "."
    return EngineError(told, reason=reason, log_tail=evidence(lines, vllm=vllm))


#: What may befall a running engine; the other causes are those of starts, and their words may stand
#: in its log for harmless reasons.
_WHILE_READY: Final = frozenset({"memory", "disk"})

"""What an engine's log says of why it ended. Pure. The lines that are known stand in `causes`; one
that is not is shown as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from server.engines import causes
from server.engines.causes import Cause


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a start failed. `reason` is a label of `EngineError`; `terminal`: again cannot help."""

    reason: str
    message: str
    hint: str
    terminal: bool = True


def _compiled(rows: Iterable[Cause]) -> tuple[tuple[re.Pattern[str], Cause], ...]:
    return tuple((re.compile(row.pattern), row) for row in rows)


#: By `vllm`.
_ROWS: Final = {
    True: _compiled(
        (
            *(Cause(p, reason, said, hint, end) for p, reason, said, hint, _, end in causes.SHARED),
            *causes.VLLM,
            *causes.SETTINGS,
        )
    ),
    False: _compiled(
        (
            *causes.COMMAND,
            *(Cause(p, reason, said, hint, end) for p, reason, said, _, hint, end in causes.SHARED),
        )
    ),
}


def _read(pattern: re.Pattern[str], row: Cause, line: str) -> Failure | None:
    if (match := pattern.search(line)) is None:
        return None
    groups = ((group or "").strip().rstrip(".")[:200] for group in match.groups())
    return Failure(row.reason, row.message.format(*groups), row.hint, row.terminal)


#: What vLLM's loggers put before a line: the process, level, time and place.
_PREFIX: Final = re.compile(
    r"^(?:\([^)]*pid=\d+\) )?(?:(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:.,]+ "
    r"\[[\w./-]+:\d+\] )?"
)
#: Lines that speak of faults without having one.
_HARMLESS: Final = re.compile(r"\bWARNING\b|\w+Warning: |warnings\.warn\(")


def diagnose(lines: Iterable[str], *, vllm: bool = True) -> Failure | None:
    """What the last lines of a dead engine's log say, or None."""
    found = _cause(list(lines), vllm=vllm)
    return None if found is None else found[0]


def _cause(lines: Sequence[str], *, vllm: bool) -> tuple[Failure, int] | None:
    """(what they say, the line that says it)."""
    text = [_PREFIX.sub("", line) if not _HARMLESS.search(line) else "" for line in lines]
    # Long messages are wrapped: some patterns span two lines.
    joined = [*text, *(f"{one} {two}" for one, two in pairwise(text))]
    for pattern, row in _ROWS[vllm]:
        for at, line in enumerate(joined):
            if line and (failure := _read(pattern, row, line)) is not None:
                return failure, at if at < len(text) else at - len(text)
    return None


#: The line of an uncaught exception: what to show when nothing above matched.
_EXCEPTION: Final = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt): .+")
#: What vLLM's processes say of each other's ends.
_SECOND_HAND: Final = re.compile(r"See (?:root cause above|stack trace for root cause)")
#: What one says that speaks to another which is dead already.
_CUT_OFF: Final = re.compile(r"^(?:BrokenPipeError|ConnectionResetError): ")


def last_words(lines: Iterable[str], *, exceptions: bool = False) -> str:
    """The line that says most: an exception's, else the last one; "" where there is none.

    `exceptions`: only an exception's.
    """
    told = list(lines)
    at = _words(told, exceptions=exceptions)
    return "" if at is None else _PREFIX.sub("", told[at]).strip()[:300]


def _words(lines: Sequence[str], *, exceptions: bool = False) -> int | None:
    last = raised = echoed = cut_off = None
    for at, line in enumerate(lines):
        text = _PREFIX.sub("", line).strip()
        if text and not _HARMLESS.search(text):
            last = at
        if _EXCEPTION.match(text):
            if _SECOND_HAND.search(text):
                echoed = at
            elif _CUT_OFF.match(text):
                cut_off = at
            else:
                raised = at
    for found in (raised, echoed, cut_off):
        if found is not None:
            return found
    return None if exceptions else last


def silent(lines: Iterable[str]) -> bool:
    """Does one process of vLLM say that another has ended, and that one has said nothing?"""
    told = list(lines)
    at = _words(told, exceptions=True)
    return at is not None and bool(_SECOND_HAND.search(told[at]))


def evidence(lines: Sequence[str], count: int, *, vllm: bool = True) -> tuple[str, ...]:
    """The last `count` lines; where the one that says why stands further up, it comes first."""
    found = _cause(lines, vllm=vllm)
    at = _words(lines) if found is None else found[1]
    if at is None or at >= len(lines) - count or count < 3:
        return tuple(lines[-count:])
    return (lines[at], "…", *lines[-(count - 2) :])

"""Results as Markdown. Everything comes from the JSON, so an old run can be written anew."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from benchmarks import cases
from benchmarks.bars import BASELINES, judge
from benchmarks.cases import Case
from benchmarks.gateways import DIRECT
from benchmarks.stats import ENOUGH, Interval
from benchmarks.summary import FULL, ROOM, Row, Table

_NOTHING: Final = "–"


def markdown(results: dict[str, Any]) -> str:
    """The whole report."""
    table = Table(results["turns"])
    parts = [
        f"# Side by side, {results['date'][:10]}",
        _about(results),
        _contenders(results),
        *(_throughput(table, case) for case in (cases.REQUESTS, cases.STREAMS)),
        *(_paced(table, case) for case in (cases.PACED_200, cases.PACED_1000)),
        _latency(table, stream=False),
        _latency(table, stream=True),
        bars(results),
        _notes(results, table),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def bars(results: dict[str, Any]) -> str:
    """The table of the bars alone."""
    verdicts = judge(Table(results["turns"]), results["contenders"])
    rows = [(one.bar, one.measured, f"**{one.word}**", one.why) for one in verdicts]
    return "## Bars\n\n" + grid(("bar", "measured (95 %)", "", ""), rows, left={0, 2, 3})


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: set[int]) -> str:
    """A Markdown table, padded so that it reads well as plain text, too."""
    lines = [list(head), *(list(row) for row in rows)]
    wide = [max(3, *(len(line[at]) for line in lines)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(wide[at]) if at in left else cell.rjust(wide[at])
            for at, cell in enumerate(cells)
        )
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * wide[at] if at in left else "-" * (wide[at] - 1) + ":" for at in range(len(head))]
    return "\n".join([line(lines[0]), line(rule), *(line(cells) for cells in lines[1:])])


def _about(results: dict[str, Any]) -> str:
    machine, options = results["machine"], results["options"]
    changed = " with changes of server/ that are in no commit" if machine["server_changed"] else ""
    rounds = "1 round" if options["rounds"] == 1 else f"{options['rounds']} rounds"
    lines = [
        "- machine: {cpu}, {cores} cores, {memory_gib} GiB, {kernel}".format(**machine),
        "- gateway on core {gateway_core}; mock upstream and load in one process on core "
        "{load_core}, Python {python}, uvloop {uvloop}".format(**machine),
        f"- commit {machine['commit'] or 'unknown'}{changed}",
        f"- `{results['command']}`, begun {results['date']}; {rounds} of {options['seconds']:g} s",
    ]
    if not results["finished"]:
        lines.append("- **the run was ended early**")
    if options["rounds"] < ENOUGH:
        lines.append(f"- {rounds}: too few for intervals")
    return "\n".join(lines)


def _contenders(results: dict[str, Any]) -> str:
    rows = [
        (
            one["name"],
            one["version"],
            f"{one['start_seconds']:.1f}",
            f"{one['rss_mb']:.0f}",
            f"{one['idle']:.1%}" + (", stopped between turns" if one["stopped_between"] else ""),
        )
        for one in results["contenders"]
    ]
    head = ("gateway", "version", "starts in s", "RSS MB at rest", "idle CPU")
    text = "## At rest\n\n" + grid(head, rows, left={0, 1})
    left_out = [f"- {name} was not measured: {why}" for name, why in results["left_out"].items()]
    return text + ("\n\n" + "\n".join(left_out) if left_out else "")


def _throughput(table: Table, case: Case) -> str:
    rows = []
    for name in table.contenders:
        row = table.row(case.name, name)
        if row is None:
            continue
        # What the direct path takes is the load's own limit, no gateway's.
        rate = _number(row.values.get("rate", math.nan), 0)
        rows.append((
            name + _marks(row),
            rate if row.counts else f"({rate})",
            *(_ratio(table, case, name, peer, "rate") for peer in BASELINES),
            _NOTHING if name == DIRECT else _number(row.values.get("cpu_us", math.nan), 1),
            *(_ratio(table, case, name, peer, "cpu_us") for peer in BASELINES),
            _NOTHING if name == DIRECT else f"{row.values.get('gateway_busy', 0):.0%}",
            f"{row.values.get('load_busy', 0):.0%}",
            str(row.errors),
        ))  # fmt: skip
    if not rows:
        return ""
    what = "stream" if case.stream else "request"
    head = (
        "gateway", f"{what}s/s", *(f"× {peer}" for peer in BASELINES),
        f"CPU µs/{what}", *(f"× {peer}" for peer in BASELINES),
        "gateway core", "load core", "errors",
    )  # fmt: skip
    text = f"## {case.title[0].upper()}{case.title[1:]}\n\n{grid(head, rows, left={0})}"
    if any(row[1].startswith("(") for row in rows):
        text += (
            f"\n\nA rate in brackets does not count: the gateway's core was under {FULL:.0%} busy "
            f"or the load's over {ROOM:.0%}. Compare CPU µs there."
        )
    return text


def _paced(table: Table, case: Case) -> str:
    rows = []
    for name in table.contenders:
        row = table.row(case.name, name)
        if row is None:
            continue
        values = row.values
        rows.append((
            name + _marks(row),
            _NOTHING if name == DIRECT else _number(values.get("cpu_us", math.nan), 1),
            *(_ratio(table, case, name, peer, "cpu_us") for peer in BASELINES),
            _number(values.get("late_p50_ms", math.nan), 2),
            _number(values.get("late_p99_ms", math.nan), 2),
            _number(values.get("added_p99_ms", math.nan), 2),
            _sum(table, case, name, "lost"),
            _sum(table, case, name, "doubled"),
            _NOTHING if name == DIRECT else _number(values.get("rss_mb", math.nan), 0),
            _NOTHING if name == DIRECT else f"{values.get('gateway_busy', 0):.0%}",
            str(row.errors),
        ))  # fmt: skip
    if not rows:
        return ""
    head = (
        "gateway", "CPU µs/chunk", *(f"× {peer}" for peer in BASELINES), "late p50 ms",
        "late p99 ms", "added p99 ms", "lost", "doubled", "RSS MB", "gateway core", "errors",
    )  # fmt: skip
    note = "Late: arrival less the moment a chunk was due. Added: less the moment it was sent."
    return f"## {case.title}\n\n{grid(head, rows, left={0})}\n\n{note}"


def _latency(table: Table, *, stream: bool) -> str:
    wanted = [one for one in cases.LATENCY if one.stream == stream and one.name in table.cases]
    if not wanted:
        return ""
    p50, p99 = ("first_p50_ms", "first_p99_ms") if stream else ("p50_ms", "p99_ms")
    head = ["gateway"]
    for case in wanted:
        head += [f"{case.connections} × {case.prompt // cases.KIB} KiB p50", "p99"]
    rows = []
    for name in table.contenders:
        cells = [name]
        for case in wanted:
            row = table.row(case.name, name)
            for value in (p50, p99):
                if row is None:
                    cells.append(_NOTHING)
                elif name == DIRECT:
                    cells.append(_number(row.values.get(value, math.nan), 2))
                else:
                    added = table.added(case.name, name, value).middle
                    cells.append("+" * (added >= 0) + _number(added, 2) + _marks(row))
        rows.append(cells)
    what = "Time to the first event of a stream" if stream else "Time of an answer"
    return (
        f"## {what}: ms added to the direct path\n\n{grid(head, rows, left={0})}\n\n"
        "Columns: connections × prompt. The row of the direct path has its own times; the others "
        "have the median over rounds of what they take more in the same round."
    )


def _notes(results: dict[str, Any], table: Table) -> str:
    lines = [f"- {note}" for note in results["notes"]]
    for name in table.contenders:
        lines += _errors(table, name)
        left = {case: _sum(table, case, name, "left_open") for case in table.cases}
        left = {case: count for case, count in left.items() if count not in ("0", _NOTHING)}
        if left and name != DIRECT:
            counts = ", ".join(f"{count} ({case})" for case, count in left.items())
            lines.append(
                f"- {name} read on from the upstream for 3 s and more after the clients had left, "
                f"streams: {counts}"
            )
    noisy = sum(turn["noisy"] for turn in results["turns"])
    if noisy:
        lines.append(
            f"- ~: in more than half of the turns other processes had over 10 % of a core; "
            f"{noisy} of all {len(results['turns'])} turns were such. They count as the others do."
        )
    if any(turn["failed"] for turn in results["turns"]):
        lines.append("- †: in at least one turn more than half of the answers or streams failed.")
    return "## Notes\n\n" + "\n".join(lines) if lines else ""


def _errors(table: Table, name: str) -> list[str]:
    """Its errors, cases with the same one together."""
    same: dict[str, list[str]] = {}
    for case in table.cases:
        row = table.row(case, name)
        if row is not None and row.errors:
            first = row.first_error.replace("|", "/").replace("\n", " ")[:160]
            same.setdefault(first, []).append(f"{row.errors} ({case})")
    return [f"- {name} errors: {', '.join(counts)}: `{first}`" for first, counts in same.items()]


def _marks(row: Row) -> str:
    return ("†" if row.failed else "") + ("~" if row.noisy * 2 > row.turns else "")


def _number(value: float, digits: int) -> str:
    return _NOTHING if math.isnan(value) else f"{value:,.{digits}f}"


def _ratio(table: Table, case: Case, name: str, peer: str, value: str) -> str:
    if name in (peer, DIRECT):
        return _NOTHING
    return _interval(table.ratio(case.name, name, peer, value))


def _interval(found: Interval) -> str:
    if math.isnan(found.middle):
        return _NOTHING
    # Three digits that say something, of a ratio of 200 as of one of 0.004.
    digits = max(0, 2 - math.floor(math.log10(found.middle)))
    text = f"{found.middle:.{digits}f}"
    if found.low is not None and found.high is not None:
        text += f" ({found.low:.{digits}f}–{found.high:.{digits}f})"
    return text


def _sum(table: Table, case: Case | str, name: str, value: str) -> str:
    turns = table.turns(case if isinstance(case, str) else case.name, name)
    found = [turn["values"].get(value) for turn in turns]
    found = [one for one in found if one is not None]
    return f"{sum(found):.0f}" if found else _NOTHING

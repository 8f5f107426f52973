"""`roundhouse bench`."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from server.cli.options import Command, Name, client_options

if TYPE_CHECKING:
    from server.loadtest.bench import Outcome, Settings

#: Over this share of failed requests in any step the exit code is 1.
FAILED_SHARE: Final = 0.01
#: Open files beside the connections, and the most that are asked for where no limit is set.
_SPARE: Final = 64
_FILES: Final = 2**16


def load_options(command: Command) -> Command:
    """How hard the server is pressed, and for how long."""
    for option in reversed(
        (
            click.option(
                "--concurrency",
                metavar="N[,N…]",
                help="Closed loop: so many users, each asks again once it is answered. Several "
                "numbers are a sweep. [default: 8] Beside --rate: the most that "
                "are sent at a time.",
            ),
            click.option(
                "--rate",
                metavar="R[,R…]",
                help="Open loop: so many requests a second arrive at random (Poisson), whatever "
                "the server does. Several numbers are a sweep.",
            ),
            click.option(
                "--requests", type=click.IntRange(min=1), help="Requests of a step, at most."
            ),
            click.option(
                "--duration",
                metavar="TIME",
                help="No request of a step begins later than this (30s, 5m); open ones finish. "
                "[default: 30s, without --requests]",
            ),
            click.option(
                "--warmup",
                type=click.IntRange(min=0),
                default=1,
                show_default=True,
                help="Requests before each step that are not counted.",
            ),
            click.option(
                "--timeout",
                metavar="TIME",
                default="5m",
                show_default=True,
                help="For a whole request.",
            ),
            click.option(
                "--max-errors",
                type=click.IntRange(min=0),
                default=20,
                show_default=True,
                help="Stop when the first so many requests of a step all fail; 0: never.",
            ),
            click.option(
                "--seed",
                type=click.IntRange(min=0),
                help="Of the arrivals and the prompts. The same seed sends the same prompts, "
                "which a server's prefix cache may know. [default: a new one]",
            ),
        )
    ):
        command = option(command)
    return command


def request_options(command: Command) -> Command:
    """What is asked."""
    for option in reversed(
        (
            click.option(
                "--prompt-tokens",
                type=click.IntRange(1, 1_000_000),
                help="About how long the made-up prompts are, in words that are mostly one "
                "token. [default: 128]",
            ),
            click.option(
                "--same-prompt", is_flag=True, help="One made-up prompt for all requests."
            ),
            click.option(
                "--prompts",
                metavar="FILE",
                help='Prompts, a line each: text, or JSON {"prompt": …} or {"messages": …}.',
            ),
            click.option(
                "--max-tokens",
                type=click.IntRange(min=1),
                default=128,
                show_default=True,
                help="Longest answer.",
            ),
            click.option(
                "--ignore-eos",
                is_flag=True,
                help="Answers of exactly --max-tokens; an extension of vLLM and others.",
            ),
            click.option("--temperature", type=click.FloatRange(0), help="Sent along."),
            click.option(
                "--stream/--no-stream",
                default=True,
                show_default=True,
                help="Without streams there is no TTFT and no TPOT.",
            ),
        )
    ):
        command = option(command)
    return command


def output_options(command: Command) -> Command:
    """What is made of the figures."""
    for option in reversed(
        (
            click.option(
                "--goodput",
                metavar="LIMITS",
                help="Count answers within ttft:500ms,tpot:50ms,e2e:10s (any of them).",
            ),
            click.option(
                "--json",
                "json_file",
                metavar="FILE",
                help="Write all figures, settings and versions; `-` is the standard output.",
            ),
            click.option("--samples", is_flag=True, help="Add every single request to the JSON."),
            click.option(
                "--plot",
                "plot_file",
                metavar="FILE",
                help="Write a chart, .svg or .png; needs the extra `plots`.",
            ),
        )
    ):
        command = option(command)
    return command


@click.command(
    epilog="""\b
Examples:
  roundhouse bench guide                              8 at a time, for 30 s
  roundhouse bench guide --concurrency 1,8,64 --requests 200
  roundhouse bench guide --rate 2 --duration 1m --goodput ttft:500ms,tpot:50ms
  roundhouse bench gpt-6-luna --base-url https://llm.example.com --prompts mine.jsonl

\b
Exit codes: 0 done, 1 more than 1 % of a step's requests failed, 2 wrong usage,
130 interrupted; what was measured until then is shown all the same."""
)
@click.argument("model", type=Name())
@load_options
@request_options
@output_options
@client_options
def bench(
    model: str,
    base_url: str | None,
    api_key: str | None,
    json_file: str | None,
    samples: bool,
    plot_file: str | None,
    **given: Any,
) -> int:
    """Measure how fast an OpenAI-compatible server answers under load.

    It asks any server: TTFT, TPOT and end-to-end times at p50, p90 and p99, tokens a second,
    failures by kind. docs/load-testing.md says how to read them.
    """
    _outputs(json_file, samples, plot_file)
    settings = _settings(model, base_url, api_key, given)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    outcome, interrupted = _measured(settings)
    lines = text(settings, outcome, interrupted)
    click.echo("\n".join(lines), err=json_file == "-")
    if json_file is not None:
        _write_json(json_file, settings, outcome, started, interrupted, samples)
    if plot_file is not None and outcome.reports:
        _write_plot(plot_file, settings, outcome)
    if interrupted:
        return 130
    return int(any(report.failed_share > FAILED_SHARE for report in outcome.reports))


def _outputs(json_file: str | None, samples: bool, plot_file: str | None) -> None:
    """What could fail at the end of a long run fails before it."""
    from server.loadtest import plot

    if samples and json_file is None:
        raise click.UsageError("--samples adds to the JSON: say where that goes with --json FILE.")
    if json_file is not None and json_file != "-":
        _writable("--json", json_file)
    if plot_file is not None:
        if (why := plot.complaint(plot_file)) is not None:
            raise _bad("--plot", why)
        _writable("--plot", plot_file)


def _writable(flag: str, file: str) -> None:
    path = Path(file)
    if path.is_dir():
        raise _bad(flag, f"{file} is a folder: give a file's name.")
    if not path.parent.is_dir():
        raise _bad(flag, f"there is no folder {path.parent}: make it first.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _bad(flag, f"{file} may not be written.")


def _bad(flag: str, why: str) -> click.BadParameter:
    return click.BadParameter(why, param_hint=flag)


def _settings(
    model: str, base_url: str | None, api_key: str | None, given: dict[str, Any]
) -> Settings:
    from server.cli import client
    from server.loadtest import options

    with client.public(base_url, api_key) as server:
        url = server.url
        key = api_key or (client.here().key if base_url is None else None)
        seed = int.from_bytes(os.urandom(4))
        try:
            settings = options.settings(
                url, model, key and key.strip(), options.Given(**given), seed
            )
        except options.BadOption as error:
            raise _bad(error.flag, error.why) from None
        _room_for(max(load.concurrency or 0 for load in settings.steps))
        try:  # nobody there is better said once than for each request
            server.get("/v1/models")
        except client.NotRunning:
            raise
        except client.ClientError:
            pass  # other servers need not have it; the requests themselves will tell
    return settings


def _room_for(connections: int) -> None:
    """Lets this process open as many files as it may. Raises UsageError when that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, _FILES)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if connections + _SPARE > soft:
        raise click.UsageError(
            f"--concurrency {connections} needs as many open files, and this shell allows {soft}: "
            f"raise the limit with `ulimit -n {connections + _SPARE}`, or ask for less."
        )


def _measured(settings: Settings) -> tuple[Outcome, bool]:
    """Runs it; did Ctrl-C end it?"""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_interrupted(settings))


async def _until_interrupted(settings: Settings) -> tuple[Outcome, bool]:
    from server.loadtest.bench import run

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def interrupt() -> None:
        """The first Ctrl-C ends the run with its figures, a second one without."""
        loop.remove_signal_handler(signal.SIGINT)
        stop.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        outcome = await run(settings, stop)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return outcome, stop.is_set()


def text(settings: Settings, outcome: Outcome, interrupted: bool) -> list[str]:
    """What is printed."""
    from server.loadtest import table

    streamed = "streams" if settings.streamed else "no streams"
    title = f"{settings.model} at {settings.url}, {streamed}"
    reports = outcome.reports
    if len(settings.steps) == 1:
        lines = [f"{title}, {settings.steps[0].label}"]
        lines += ["", *table.one(reports[0])] if reports else []
    else:
        lines = [title, *(["", *table.sweep(reports)] if reports else [])]
    notes = []
    if settings.prompts.repeats(outcome.sent):
        notes.append("Prompts were sent more than once: a server's prefix cache may know them.")
    if failures := outcome.warmup_failures:
        notes.append(
            f"Of the warm-up {len(failures)} failed, first {failures[0].kind}: {failures[0].text}"
        )
    if interrupted:
        notes.append("Interrupted: this is what was measured until then.")
    for note in notes:
        lines += ["", f"  {note}"]
    return lines


def _write_json(
    file: str,
    settings: Settings,
    outcome: Outcome,
    started: str,
    interrupted: bool,
    samples: bool,
) -> None:
    from server.cli.client import ClientError
    from server.cli.version import roundhouse_version
    from server.loadtest.record import Occasion, document

    occasion = Occasion(started, roundhouse_version(), sys.argv)
    found = document(settings, outcome, occasion, interrupted=interrupted, raw=samples)
    written = json.dumps(found, indent=2, ensure_ascii=False)
    if file == "-":
        click.echo(written)
        return
    try:
        Path(file).write_text(written + "\n", "utf-8")
    except OSError as error:
        raise ClientError(f"{file} cannot be written: {error.strerror}.") from None


def _write_plot(file: str, settings: Settings, outcome: Outcome) -> None:
    from server.cli.client import ClientError
    from server.loadtest import plot

    try:
        plot.draw(outcome.reports, f"{settings.model} at {settings.url}", file)
    except OSError as error:
        raise ClientError(f"{file} cannot be written: {error.strerror}.") from None

"""From what a person gave to what a run is: every wrong value is a BadOption with the way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from server.config import units
from server.loadtest import goodput, plan, prompts
from server.loadtest.bench import Settings

T = TypeVar("T")

CONCURRENCY: Final = "8"
SECONDS: Final = 30.0
PROMPT_TOKENS: Final = 128


class BadOption(ValueError):
    """`flag` (such as `--rate`) has a value, or stands beside another flag, that cannot be."""

    def __init__(self, flag: str, why: str) -> None:
        super().__init__(why)
        self.flag = flag
        self.why = why


@dataclass(frozen=True, slots=True)
class Given:
    """The options as they were typed; None where nothing was."""

    concurrency: str | None = None
    rate: str | None = None
    requests: int | None = None
    duration: str | None = None
    warmup: int = 1
    timeout: str = "5m"
    max_errors: int = 20
    seed: int | None = None
    prompt_tokens: int | None = None
    same_prompt: bool = False
    prompts: str | None = None
    max_tokens: int = 128
    ignore_eos: bool = False
    temperature: float | None = None
    stream: bool = True
    goodput: str | None = None


def settings(url: str, model: str, key: str | None, given: Given, new_seed: int) -> Settings:
    """The run; reads the file with prompts. `new_seed` counts when none was given.

    Raises BadOption.
    """
    seed = new_seed if given.seed is None else given.seed
    seconds = None
    if given.duration is not None:
        seconds = _seconds("--duration", given.duration)
    elif given.requests is None:
        seconds = SECONDS
    return Settings(
        url=url,
        model=model,
        key=key,
        prompts=_prompts(given, seed),
        steps=_steps(given),
        ends=plan.Ends(given.requests, seconds, given.max_errors),
        seed=seed,
        streamed=given.stream,
        fields=_fields(given),
        warmup=given.warmup,
        timeout=_seconds("--timeout", given.timeout),
        limits=_limits(given),
    )


def _steps(given: Given) -> tuple[plan.Load, ...]:
    rates = _parsed("--rate", plan.rates, given.rate) if given.rate is not None else ()
    text = given.concurrency or ("" if rates else CONCURRENCY)
    users = _parsed("--concurrency", plan.concurrencies, text) if text else ()
    try:
        return plan.steps(users, rates)
    except ValueError as error:
        raise BadOption("--concurrency", str(error)) from None


def _prompts(given: Given, seed: int) -> prompts.Prompts:
    if given.prompts is None:
        tokens = given.prompt_tokens or PROMPT_TOKENS
        return prompts.Synthetic(tokens, seed, same=given.same_prompt)
    for flag, value in (
        ("--prompt-tokens", given.prompt_tokens),
        ("--same-prompt", given.same_prompt),
    ):
        if value:
            raise BadOption(flag, "is for made-up prompts: leave it or --prompts away.")
    path = Path(given.prompts)
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise BadOption("--prompts", f"{path} is no UTF-8 text.") from None
    except OSError as error:
        raise BadOption("--prompts", f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:  # a NUL in the name
        raise BadOption("--prompts", "that is no name of a file.") from None
    try:
        return prompts.parse(text, path.name)
    except ValueError as error:
        raise BadOption("--prompts", f"{path}: {error}.") from None


def _fields(given: Given) -> dict[str, Any]:
    found: dict[str, Any] = {"max_tokens": given.max_tokens}
    if given.temperature is not None:
        found["temperature"] = given.temperature
    if given.ignore_eos:
        found["ignore_eos"] = True
    return found


def _limits(given: Given) -> goodput.Limits | None:
    if given.goodput is None:
        return None
    limits = _parsed("--goodput", goodput.parse, given.goodput)
    if not given.stream and (limits.ttft or limits.tpot):
        raise BadOption(
            "--goodput",
            "only streams have a TTFT and a TPOT: with --no-stream give e2e alone.",
        )
    return limits


def _seconds(flag: str, text: str) -> float:
    found: float = _parsed(flag, units.seconds, text)
    if not 0 < found < float("inf"):
        raise BadOption(flag, "must be longer than nothing, such as 30s.")
    return found


def _parsed(flag: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise BadOption(flag, f"{error}.") from None

"""What a client is told when no target of its plan could even be tried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from server.errors import EngineNotReady, InvalidRequest, RoundhouseError, UpstreamStatus
from server.routing.chain import Route
from server.routing.lineup import LineUp, Ranked
from server.routing.plan import Cause

_WORDS: Final = {
    "tools": "call tools",
    "json_schema": "keep to a JSON schema",
    "logprobs": "give log probabilities",
    "n": "give several choices at once (`n`)",
    "vision": "take pictures",
    "audio": "take or give sound",
}
_PARAMS: Final = {
    "tools": "tools",
    "json_schema": "response_format",
    "logprobs": "logprobs",
    "n": "n",
    "vision": "messages",
    "audio": "messages",
}
_BROKEN: Final = frozenset({Cause.BREAKER, Cause.RATE_LIMITED})


def soonest(plan: Sequence[Ranked], now: float) -> float | None:
    """Seconds until the first of those that are kept back lets something through again."""
    waits = [r.route.standing.wait(now) for r in plan]
    return min((wait for wait in waits if wait > 0), default=None)


def loading(route: Route) -> EngineNotReady:
    """For a model whose `while_loading` is `refuse`, while its engine loads."""
    return route.target.loading()


def nobody(
    lineup: LineUp,
    plan: Sequence[Ranked],
    now: float,
    who_can: Callable[[str], list[str]],
    refused: InvalidRequest | None = None,
) -> RoundhouseError:
    """The error for a plan in which every target is passed over: that of the nearest hope.
    `refused`: what a dialect has no word for.

    A target that a breaker keeps back may answer soon; an engine that failed may be brought back;
    what none of them can do at all is the request's own fault.
    """
    model = lineup.request.model
    causes = {ranked.step.cause for ranked in plan}
    if causes & _BROKEN:
        kept = [r for r in plan if r.step.cause in _BROKEN]
        after = soonest(kept, now)
        if all(ranked.step.cause is Cause.RATE_LIMITED for ranked in kept):
            return UpstreamStatus(
                429,
                message=f"All that can answer for `{model}` are rate limited by their providers.",
                code="upstream_rate_limited",
                retry_after=after,
            )
        if not any(ranked.route.standing.accepted(now) for ranked in kept):
            return UpstreamStatus(
                401,
                message="The upstream refused this server's credentials or account lately; it is "
                "left alone for a while.",
                retry_after=after,
            )
        return EngineNotReady(
            f"All that can answer for `{model}` failed lately and are left alone for a while.",
            code="no_target_left",
            retry_after=after,
        )
    if Cause.NOT_READY not in causes:
        if refused is not None:
            return refused
        for ranked in plan:
            if ranked.step.cause is Cause.ABILITY:
                return _unable(lineup, ranked, who_can)
    told = (r.route.target.hopeless() for r in plan if r.step.cause is Cause.NOT_READY)
    nothing = EngineNotReady(f"No target of `{model}` can answer now.", code="no_target_left")
    return next(filter(None, told), nothing)


def _unable(lineup: LineUp, ranked: Ranked, who_can: Callable[[str], list[str]]) -> RoundhouseError:
    route, model = ranked.route, lineup.request.model
    if (refusal := route.refuses(lineup.request)) is not None:
        return refusal
    ability = lineup.missing(route)
    if ability == "context":
        return InvalidRequest(
            f"The prompt is longer than the context window of `{model}`, "
            f"{route.able.window} tokens.",
            param="messages" if "messages" in lineup.request.members else "prompt",
            code="context_length_exceeded",
        )
    assert ability is not None
    others = who_can(ability)
    known = f" These can: {', '.join(f'`{name}`' for name in others)}." if others else ""
    return InvalidRequest(
        f"`{model}` cannot {_WORDS[ability]}.{known}",
        param=_PARAMS[ability],
        code="unsupported_ability",
    )

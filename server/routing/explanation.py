"""A plan as data, for people and for the admin API: every target, and what is known of it now.

Times are seconds; what nobody knows is None.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from server.errors import RoundhouseError
from server.protocol.envelope import Surface
from server.routing.breaker import State
from server.routing.chain import Loading
from server.routing.plan import Action, Cause
from server.routing.policies import Policy


class Part(enum.StrEnum):
    """Whose target it is, as the model asked for sees it."""

    OWN = "own"
    BRIDGE = "bridge"
    FALLBACK = "fallback"
    CONTEXT = "context_fallback"
    CONTENT = "content_fallback"


@dataclass(frozen=True, slots=True)
class Said:
    """A breaker: its state, and the same in words."""

    state: State
    words: str


@dataclass(frozen=True, slots=True)
class Places:
    """`taken` of `limit` are taken; `waiting` requests wait for one, of `bound` that may."""

    taken: int
    limit: int
    waiting: int
    bound: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One target. Times are seconds; what nobody knows is None."""

    #: From 1, in the order in which they would be tried, then those passed over.
    place: int
    action: Action
    #: Why this action, and why here.
    reason: str
    cause: Cause
    #: Why its model's policy puts it where it stands among the others of its model.
    policy: str
    target: str
    #: The address of an external engine's replica, the number of one of ours; `key 2` and on of an
    #: account's keys.
    replica: str | None
    model: str
    group: Part
    ready: bool
    #: Until it is ready.
    eta_s: float | None
    breaker: Said
    #: Of the key that it sends; None: it sends none.
    credential: Said | None
    in_flight: int
    #: Requests that a replica said it had itself.
    scraped: float | None
    #: None: it takes all that come.
    places: Places | None
    #: To a stream's first event, or to the end of an answer that is no stream; and when last seen.
    latency_s: float | None
    latency_age_s: float | None
    #: Of the tokens in `OfRequest`.
    price_usd: float | None
    weight: float
    #: Why it can never answer this request.
    lacks: str | None
    #: Members of the body that it is not sent.
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OfRequest:
    """What routing sees in the request. Tokens are estimates, good enough for prices."""

    surface: Surface
    stream: bool
    key: str
    prompt_tokens: int
    output_tokens: int
    #: Abilities that it needs.
    needs: tuple[str, ...]
    #: Is there anything that binds it to a target under `affinity`?
    affinity_key: bool


@dataclass(frozen=True, slots=True)
class OfServer:
    """`panic`: so many are out that breakers are ignored. `retry_budget`: how much of it is used
    up, 0 to 1. `attempts`: the most that one request has."""

    panic: bool
    retry_budget: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client is told when no target can be tried."""

    status: int
    code: str
    message: str
    param: str | None
    retry_after_s: float | None

    @classmethod
    def of(cls, error: RoundhouseError) -> Answer:
        after = error.retry_after
        after = None if after is None else round(after, 1)
        return cls(error.status, error.code, error.message, error.param, after)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`name` is what was asked for, `model` its own name. `answer`: None, if there is hope."""

    name: str
    model: str
    policy: Policy
    while_loading: Loading
    request: OfRequest
    server: OfServer
    targets: tuple[Entry, ...]
    answer: Answer | None


class Now(enum.StrEnum):
    """How a target is, in a word."""

    READY = "ready"
    FULL = "full"
    RAMP = "ramp"
    HALF_OPEN = "half_open"
    OPEN = "open"
    RESTING = "resting"
    #: Its engine is not loaded; waiting for it is of use.
    NOT_READY = "not_ready"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Line:
    """One target of a model, as the config has them in order."""

    target: str
    replica: str | None
    model: str
    group: Part
    state: Now

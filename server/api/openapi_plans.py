"""The two paths of the admin API that explain routing, and their schemas."""

from __future__ import annotations

from typing import Any, Final

from server.api.openapi_parts import Paths, json_of, ok, one, operation, path, query
from server.api.openapi_schemas import (
    NULL,
    Schema,
    either,
    flag,
    many,
    number,
    ref,
    text,
    thing,
    whole,
)
from server.protocol.envelope import Surface
from server.routing.breaker import State
from server.routing.chain import Loading
from server.routing.explanation import Now, Part
from server.routing.plan import Action, Cause
from server.routing.policies import Policy


def _or_null(kind: Schema, description: str) -> Schema:
    return either(kind, NULL, description=description)


_POLICY: Final = text("`balance` of the model.", enum=[one.value for one in Policy])
_LOADING: Final = text("`while_loading` of the model.", enum=[one.value for one in Loading])
_TARGET: Final[dict[str, Schema]] = {
    "target": text("As in `x-roundhouse-target`.", examples=["engine/qwen"]),
    "replica": _or_null(text(), "Its address, where an external engine has several."),
    "model": text("The model that it belongs to."),
    "group": text("What that model is to the one asked for.", enum=[one.value for one in Part]),
}
_BREAKER: Final = {
    "state": text(enum=[one.value for one in State]),
    "words": text("The same for people."),
}

PLAN_SCHEMAS: Final[dict[str, Schema]] = {
    "Plans": thing({"plans": many(ref("PlanLine"))}, "plans"),
    "PlanLine": thing(
        {
            "model": text(),
            "aliases": many(text()),
            "policy": _POLICY,
            "while_loading": _LOADING,
            "offered": flag("The catalog adds it; the config has no entry."),
            "targets": many(
                thing({**_TARGET, "state": text(enum=[one.value for one in Now])}, *_TARGET)
            ),
        },
        *("model", "policy", "targets"),
    ),
    "PlanRequest": thing(
        {"messages": many(thing({})), "prompt": {}, "input": {}},
        description="A body of `/v1/chat/completions`, `/v1/completions` or `/v1/embeddings`. Its "
        "`model` counts for nothing.",
    ),
    "Plan": thing(
        {
            "name": text("The name that was asked for."),
            "model": text("The model that it stands for."),
            "policy": _POLICY,
            "while_loading": _LOADING,
            "request": thing(
                {
                    "surface": text(enum=[one.value for one in Surface]),
                    "stream": flag(),
                    "key": text("Name of the client's key."),
                    "prompt_tokens": whole("An estimate."),
                    "output_tokens": whole("The longest answer, as far as it is said."),
                    "needs": many(text(), "Abilities that it needs."),
                    "affinity_key": flag("Is there something to hash under `affinity`?"),
                }
            ),
            "server": thing(
                {
                    "panic": flag("So many targets are out that breakers are ignored."),
                    "retry_budget": number("How much of it is used up, 0 to 1."),
                    "attempts": whole("The most that one request has."),
                }
            ),
            "targets": many(ref("PlanTarget"), "In order; those passed over stand last."),
            "answer": either(
                thing(
                    {
                        "status": whole(),
                        "code": text(),
                        "message": text(),
                        "param": either(text(), NULL),
                        "retry_after_s": either(number(), NULL),
                    }
                ),
                NULL,
                description="What the client is told, where no target can be tried.",
            ),
        },
        *("name", "model", "policy", "request", "server", "targets", "answer"),
    ),
    "PlanTarget": thing(
        {
            "place": whole("From 1."),
            "action": text(enum=[one.value for one in Action]),
            "reason": text("Why this action."),
            "cause": text("The same for programs.", enum=[one.value for one in Cause]),
            "policy": text("Why the policy of its model puts it where it stands."),
            **_TARGET,
            "ready": flag(),
            "eta_s": _or_null(number(), "Estimated seconds until it is ready."),
            "breaker": thing(_BREAKER),
            "credential": _or_null(thing(_BREAKER), "Of the key that it sends; null: none."),
            "in_flight": whole("Attempts of ours under way."),
            "scraped": _or_null(number(), "Requests that a replica said it had."),
            "places": _or_null(
                thing({name: whole() for name in ("taken", "limit", "waiting", "bound")}),
                "Attempts at one time, and requests that wait; null: no limit.",
            ),
            "latency_s": _or_null(
                number(), "To a stream's first event, or to the end of a whole answer."
            ),
            "latency_age_s": _or_null(number(), "Since that was last measured."),
            "price_usd": _or_null(number(), "For the estimated tokens."),
            "weight": number(),
            "lacks": _or_null(text(), "Why it can never answer this request."),
            "dropped": many(text(), "Members of the body that it is not sent."),
        },
        *("place", "action", "reason", *_TARGET),
    ),
}

_WELL: Final = {"state": "closed", "words": "closed"}
_ENTRY: Final[dict[str, Any]] = {
    "place": 1,
    "action": "send",
    "reason": "place 2 of the order",
    "cause": "",
    "policy": "place 2 of the order",
    "target": "lab/qwen3-8b-instruct",
    "replica": None,
    "model": "qwen3-8b",
    "group": "own",
    "ready": True,
    "eta_s": None,
    "breaker": _WELL,
    "credential": _WELL,
    "in_flight": 0,
    "scraped": None,
    "places": {"taken": 0, "limit": 8, "waiting": 0, "bound": 64},
    "latency_s": 0.412,
    "latency_age_s": 7.5,
    "price_usd": 0.0000531,
    "weight": 1.0,
    "lacks": None,
    "dropped": [],
}
_LATER: Final = {
    **_ENTRY,
    "place": 2,
    "action": "wait",
    "reason": "place 1 of the order; not ready yet, waits when nothing else can answer",
    "cause": "not_ready",
    "policy": "place 1 of the order",
    "target": "engine/qwen",
    "ready": False,
    "eta_s": 12.0,
    "credential": None,
    "places": None,
    "latency_s": None,
    "latency_age_s": None,
    "price_usd": None,
}
_PLAN: Final = {
    "name": "fast",
    "model": "qwen3-8b",
    "policy": "ordered",
    "while_loading": "fallback",
    "request": {
        "surface": "chat",
        "stream": False,
        "key": "team-a",
        "prompt_tokens": 11,
        "output_tokens": 256,
        "needs": [],
        "affinity_key": True,
    },
    "server": {"panic": False, "retry_budget": 0.0, "attempts": 3},
    "targets": [_ENTRY, _LATER],
    "answer": None,
}
_OVERVIEW: Final = {
    "model": "qwen3-8b",
    "aliases": ["fast"],
    "policy": "ordered",
    "while_loading": "fallback",
    "offered": False,
    "targets": [
        {
            "target": "engine/qwen",
            "replica": None,
            "model": "qwen3-8b",
            "group": "own",
            "state": "not_ready",
        }
    ],
}
_ASKED: Final = {"messages": [{"role": "user", "content": "What is a turntable?"}]}


PLANS: Final[Paths] = {
    "/plans": {
        "get": operation(
            "routing",
            "listPlans",
            "Every model, its policy, and how its targets are",
            ok("All models.", json_of("Plans", one({"plans": [_OVERVIEW]}))),
            fails=("401", "403"),
        )
    },
    "/plans/{model}": {
        "post": operation(
            "routing",
            "explain",
            "Where a request for this model would go now, and why",
            ok("The plan.", json_of("Plan", one(_PLAN))),
            description="Without a body: a chat that needs nothing. The headers "
            "`x-roundhouse-fallbacks` and `x-roundhouse-session` count as they do with a request. "
            "Nothing is sent anywhere, and nothing changes.",
            body=json_of("PlanRequest", one(_ASKED)),
            fails=("400", "401", "403", "404", "408", "413"),
            parameters=(
                path("model", "Any name that clients may send; it may hold slashes.", "qwen3-8b"),
                query("key", "Name of a key: as if its client asked. Default: all is allowed."),
                query(
                    "surface",
                    "Where the body's members do not tell.",
                    text(enum=[surface.value for surface in Surface]),
                ),
            ),
        )
    },
}
PLANS["/plans/{model}"]["post"]["requestBody"]["required"] = False

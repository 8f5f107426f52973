"""The paths of the admin API for weights and pulls, and their schemas."""

from __future__ import annotations

from typing import Any, Final

from server.api.openapi_parts import Paths, json_of, ok, one, operation, path, plain, query
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

_HOLDING: Final[dict[str, Schema]] = {
    "name": text("The hub's id, or a registered folder's name.", examples=["Qwen/Qwen3-0.6B"]),
    "state": text(enum=["verified", "cached", "partial", "damaged", "gone"]),
    "commit": either(text(), NULL),
    "refs": many(text(), "Branches and tags that were asked for and were this commit."),
    "size": whole("Bytes on the disk."),
    "when": either(text(), NULL, description="UTC."),
    "path": either(text(), NULL),
    "licence": either(text(), NULL),
    "asked_by": either(text(), NULL),
    "used_by": many(text(), "Engines that are served from it."),
}
_PROGRESS: Final[dict[str, Schema]] = {
    "files": whole(),
    "files_done": whole(),
    "size": whole("Bytes of all; 0 until it is known."),
    "done": whole("Bytes that are here."),
    "rate": either(number(), NULL, description="Bytes a second."),
    "seconds_left": either(number(), NULL),
}

WEIGHTS_SCHEMAS: Final[dict[str, Schema]] = {
    "Holdings": thing(
        {
            "store": text("The server's folder."),
            "size": whole("Bytes of all."),
            "free": whole("Bytes that its disk has left."),
            "models": many(ref("Holding")),
            "usage": many(thing({"name": text(), "size": whole(), "partial": whole()})),
        },
        *("store", "models"),
    ),
    "Holding": thing(_HOLDING, *("name", "state", "size")),
    "HoldingDetails": thing(
        {
            "models": many(
                thing(
                    {
                        **_HOLDING,
                        "record": either(
                            thing({}), NULL, description="What was verified: files and hashes."
                        ),
                    },
                    *("name", "state", "size"),
                )
            )
        },
        "models",
    ),
    "Removal": thing(
        {"name": text(), "commits": many(text()), "freed": whole("Bytes."), "removed": flag()},
        *("name", "freed", "removed"),
    ),
    "PullRequest": thing(
        {
            "model": text("An id on the hub, or an engine's name.", examples=["Qwen/Qwen3-0.6B"]),
            "revision": either(
                text(), NULL, description="A branch, tag or commit; default: main, or the engine's."
            ),
            "allow_code": flag("Take the repository's own Python, too.", default=False),
        },
        "model",
    ),
    "Pull": thing(
        {
            "id": text(examples=["pull-1"]),
            "model": text(),
            "revision": text(),
            "state": text(enum=["running", "done", "failed", "stopped"]),
            "since_s": number("Seconds since it began."),
            **_PROGRESS,
            "commit": either(text(), NULL),
            "error": either(text(), NULL),
            "reason": either(text(), NULL),
        },
        *("id", "model", "state"),
    ),
    "Pulls": thing({"pulls": many(ref("Pull"))}, "pulls"),
}

_MODEL: Final = "Qwen/Qwen3-0.6B"
_ROW: Final[dict[str, Any]] = {
    "name": _MODEL,
    "state": "verified",
    "commit": "c1899de289a04d12100db370d81485cdf75e47ca",
    "refs": ["main"],
    "size": 1519219180,
    "when": "2026-11-21T18:02:11+00:00",
    "path": "/models/models--Qwen--Qwen3-0.6B/snapshots/c1899de289a04d12100db370d81485cdf75e47ca",
    "licence": "apache-2.0",
    "asked_by": "an engine of the server",
    "used_by": ["qwen"],
}
_PULL: Final[dict[str, Any]] = {
    "id": "pull-1",
    "model": _MODEL,
    "revision": "main",
    "state": "done",
    "since_s": 19.4,
    "files": 9,
    "files_done": 9,
    "size": 1519219180,
    "done": 1519219180,
    "rate": 83886080,
    "seconds_left": 0,
    "commit": _ROW["commit"],
    "error": None,
    "reason": None,
}
_ID: Final = path("id", "A model's id on the hub, with its slash.", _MODEL)


_OFF: Final = flag(default=False)
_REVISION: Final = query("revision", "Only this branch, tag or commit.")

WEIGHTS: Final[Paths] = {
    "/weights": {
        "get": operation(
            "weights",
            "listWeights",
            "The models on the server's disk, and what they take",
            ok(
                "All of them.",
                json_of(
                    "Holdings",
                    one(
                        {
                            "store": "/models",
                            "size": 1519219180,
                            "free": 412316860416,
                            "models": [_ROW],
                            "usage": [{"name": _MODEL, "size": 1519219180, "partial": 0}],
                        }
                    ),
                ),
            ),
            fails=("401", "403", "503"),
        ),
        "post": operation(
            "weights",
            "pullWeights",
            "Pull a model to the server's disk",
            ok(
                "Events until it has ended: `pull`, then `note` and `progress`, last `done`, or "
                "`error` with an error object. Who accepts `application/json` alone gets the end.",
                {
                    **plain(
                        "text/event-stream",
                        'event: progress\ndata: {"files":9,"files_done":2,"size":1519219180,…}\n\n',
                    ),
                    **json_of("Pull", one(_PULL)),
                },
            ),
            description="One pull of a model serves all who ask, and goes on when they leave.",
            body=json_of("PullRequest", one({"model": _MODEL})),
            fails=("400", "401", "403", "404", "408", "409", "413", "502", "503"),
        ),
    },
    "/weights/{id}": {
        "get": operation(
            "weights",
            "showWeights",
            "All that is known of one model on the server's disk",
            ok(
                "At each commit that is here.",
                json_of("HoldingDetails", one({"models": [{**_ROW, "record": None}]})),
            ),
            fails=("400", "401", "403", "404", "503"),
            parameters=(_ID, _REVISION),
        ),
        "delete": operation(
            "weights",
            "removeWeights",
            "Remove a model from the server's disk, unless an engine uses it",
            ok(
                "What was freed.",
                json_of(
                    "Removal",
                    one(
                        {
                            "name": _MODEL,
                            "commits": [_ROW["commit"]],
                            "freed": 1519219180,
                            "removed": True,
                        }
                    ),
                ),
            ),
            fails=("400", "401", "403", "404", "409", "503"),
            parameters=(
                _ID,
                _REVISION,
                query("force", "Even if an engine that does not run now has it.", _OFF),
                query("dry_run", "Remove nothing, and tell what would be freed.", _OFF),
            ),
        ),
    },
    "/pulls": {
        "get": operation(
            "weights",
            "listPulls",
            "Pulls that were asked for here: under way, and the last that ended",
            ok("The oldest first.", json_of("Pulls", one({"pulls": [_PULL]}))),
            fails=("401", "403"),
        )
    },
    "/pulls/{id}": {
        "delete": operation(
            "weights",
            "stopPull",
            "Stop a pull; what has come is kept",
            ok("It has ended.", json_of("Pull", one({**_PULL, "state": "stopped"}))),
            fails=("401", "403", "404"),
            parameters=(path("id", "As `/pulls` has it.", "pull-1"),),
        )
    },
}

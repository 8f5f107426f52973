"""Pydantic's findings as ConfigErrors: which line, what is wrong, what to write instead."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from server.config.engine import HEALTH
from server.config.parts import MEMBER, MODEL_NAME, NAME, UPSTREAM
from server.config.placement import DEVICE
from server.config.places import SECRETS, Path, Places, Problem, dotted
from server.config.schema import Config

_PATTERNS: Final = {
    NAME: "may hold letters, digits, '.', '_' and '-', begins with a letter or a digit, and has at "
    "most 64 of them.",
    MODEL_NAME: "may hold letters, digits and . _ : @ / + -, begins with a letter or a digit, and "
    "has at most 200 of them.",
    MEMBER: "must be the name of a member of a request's body, such as logit_bias.",
    UPSTREAM: "must have 1 to 200 characters, and no line breaks among them.",
    r"^(auto|cpu|cuda(:\d+(,\d+)*)?)$": "must be auto, cpu, cuda, or GPUs by number: cuda:0, "
    "cuda:0,1.",
    HEALTH: "must be a path that begins with /, such as /health.",
    DEVICE: "must be cpu, cuda (each GPU), or one GPU by number, such as cuda:0.",
}
#: Keys that were removed or renamed: path with `*` for any name → what to write now.
REMOVED: Final[dict[tuple[str, ...], str]] = {}
#: Keys of other servers' configs: the key → what to write here.
_FOREIGN: Final = {
    "model_list": "Models stand under `models`, by name.",
    "router_settings": "Fallbacks stand with each model: `fallbacks: [other-model]`.",
    "general_settings": "Keys and listeners stand under `server`.",
    "routing_strategy": "Write `balance` with each model under `models`.",
    "num_retries": "Write `attempts` under `routing`.",
    "allowed_fails": "Write `failures` under `routing.breaker`.",
    "cooldown_time": "Write `open_first` and `open_cap` under `routing.breaker`.",
    "context_window_fallbacks": "Write `context_fallbacks` with each model under `models`.",
    "content_policy_fallbacks": "Write `content_fallbacks` with each model under `models`.",
    "rpm_limit": "Write `rpm`.",
    "tpm_limit": "Write `tpm`.",
    "max_parallel_requests": "Write `max_in_flight`.",
    "master_key": "Keys stand under `server.keys`; the admin API's is `server.admin_key`.",
    "api_keys": "Clients' keys stand under `server.keys`.",
    "gpu_memory_utilization": "Write it as a flag of vLLM: `args: {gpu-memory-utilization: 0.9}`.",
    "max_model_len": "Write it as a flag of vLLM: `args: {max-model-len: 4096}`.",
    "tensor_parallel_size": "Write it as a flag of vLLM: `args: {tensor-parallel-size: 2}`.",
    "max_num_seqs": "Write it as a flag of vLLM: `args: {max-num-seqs: 16}`.",
    "api_base": "Write `base_url`.",
    "api_version": "Anthropic's stands under `settings`, as `version`; Azure's v1 API has none.",
    "row": "Write `like`.",
}
#: The same, of an engine's entry.
_FOREIGN_ENGINE: Final = {
    "ttl": "Write `idle`.",
    "keep_alive": "Write `idle`.",
    "keepalive": "Write `idle`.",
    "checkendpoint": "Write `health`.",
    "healthchecktimeout": "Write `start_timeout`.",
    "concurrencylimit": "Write `max_in_flight`.",
    "usemodelname": "Write `model`.",
    "command": "Write `cmd`, with `runtime: command`.",
    "aliases": "Other names stand under `models`: `name: {alias: model}`.",
    "gpu": 'Write `device`, such as `device: "cuda:0"`.',
    "gpus": 'Write `device`, such as `device: "cuda:0,1"`.',
}
_OUR_WORDS: Final = (
    ("Value error, ", ""),
    ("Input should be a valid dictionary", "should be a mapping (lines of `key: value`)"),
    ("Input should be a valid tuple", "should be a list"),
    ("Input should be a valid list", "should be a list"),
    ("Input should be a valid string", "should be text"),
    ("Input should be a valid boolean, unable to interpret input", "should be true or false"),
    ("Input should be a valid boolean", "should be true or false"),
    (", unable to parse string as an integer", ""),
    ("Input should be ", "should be "),
)


def problems(error: ValidationError, tree: Any, places: Places) -> list[Problem]:
    """What pydantic found, one Problem for each place."""
    by_path: dict[Path, list[Any]] = {}
    for detail in error.errors(include_url=False, include_context=True):
        by_path.setdefault(_path(detail, tree), []).append(detail)
    return [_explain(path, details, places) for path, details in by_path.items()]


def near(word: str, known: Iterable[str]) -> str | None:
    """`Did you mean …?`, or None."""
    folded = {k.lower().replace("-", "_"): k for k in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), folded, n=1, cutoff=0.6)
    return f"Did you mean `{folded[found[0]]}`?" if found else None


def _path(detail: Any, tree: Any) -> Path:
    """The part of pydantic's location that is in the tree (it also names branches of unions)."""
    path: Path = ()
    at = tree
    for part in detail["loc"]:
        inside = isinstance(at, dict) and part in at
        if inside or (isinstance(at, list) and isinstance(part, int) and part < len(at)):
            path, at = (*path, part), at[part]
            continue
        if detail["type"] == "missing":
            path = (*path, part)
        break
    return path


def _explain(path: Path, details: list[Any], places: Places) -> Problem:
    detail = details[0]
    kind = detail["type"]
    if kind == "extra_forbidden":
        return places.error(path, "is not a known key.", _unknown(path))
    if kind == "missing":
        hint = "Begin the file with `version: 1`." if path == ("version",) else None
        return places.error(path, "is missing.", hint)
    if "[key]" in detail["loc"]:
        return places.error(path, f"is no name that can be used here: it {_pattern(detail)}")
    if path[:1] == ("engines",) and path[2:3] == ("args",) and len(path) > 3:
        return places.error(
            path, "should be text, a number, true, false, or a list of those, as vLLM's flag takes."
        )
    if kind == "literal_error":
        return _literal(path, detail, places)
    secret = any(part in SECRETS for part in path)
    written = places.scalars.get(path)
    if kind == "string_type" and written is not None:
        if written in ("", "~", "null"):
            return places.error(path, "has no value.", "Give it one, or remove the line.")
        shown = '"…"' if secret else f'"{written}"'
        what = "true or false" if isinstance(detail["input"], bool) else "a number"
        return places.error(
            path, f"should be text, but YAML reads what stands here as {what}.", f"Write {shown}."
        )
    if kind == "string_pattern_mismatch":
        return places.error(path, _pattern(detail))
    return places.error(path, _sentence(detail["msg"]), _for_empty(detail))


def _sentence(message: str) -> str:
    message = message.partition(" or instance of ")[0]  # a name of a class says nothing
    for theirs, ours in _OUR_WORDS:
        message = message.replace(theirs, ours)
    return message.rstrip(".") + "."


def _for_empty(detail: Any) -> str | None:
    return "Give it a value, or remove the line." if detail["input"] is None else None


def _pattern(detail: Any) -> str:
    pattern = detail.get("ctx", {}).get("pattern", "")
    return _PATTERNS.get(pattern, f"must match {pattern}.")


def _literal(path: Path, detail: Any, places: Places) -> Problem:
    expected = str(detail["ctx"]["expected"])
    given = detail["input"]
    if path == ("version",):
        return places.error(path, "must be 1, the only version of the config that there is.")
    choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
    hint = near(given, choices) if isinstance(given, str) else None
    return places.error(path, f"must be {expected}.", hint)


# --- unknown keys ---------------------------------------------------------------------------


def _unknown(path: Path) -> str | None:
    key = str(path[-1])
    for old, successor in REMOVED.items():
        if len(old) == len(path) and all(o in ("*", p) for o, p in zip(old, path, strict=True)):
            return successor
    folded = key.replace("-", "_").lower()
    if path[:1] == ("engines",) and len(path) == 3 and folded in _FOREIGN_ENGINE:
        return _FOREIGN_ENGINE[folded]
    if key.replace("-", "_") in _FOREIGN:
        return _FOREIGN[key.replace("-", "_")]
    fields = fields_at(path[:-1])
    if hint := near(key, fields):
        return hint
    if elsewhere := _elsewhere(key, path[:-1]):
        return f"`{key}` stands under `{elsewhere}`."
    if path[:1] == ("engines",) and len(path) == 3:
        return f"Flags of vLLM stand under `args`: `args: {{{key.replace('_', '-')}: …}}`."
    return f"Known here: {', '.join(fields)}." if fields else None


def _elsewhere(key: str, here: Path) -> str | None:
    sections = (
        ("server",),
        ("log",),
        ("routing",),
        ("placement",),
        ("weights",),
        ("server", "limits"),
        ("server", "timeouts"),
        ("routing", "breaker"),
        (),
    )
    for section in sections:
        if section != here and key in fields_at(section):
            return dotted(section) or "the top level of the file"
    return None


def fields_at(path: Path) -> tuple[str, ...]:
    """The known keys of the mapping at `path`; none where any name may stand."""
    found = model_at(path)
    return tuple(found.model_fields) if found else ()


def model_at(path: Path) -> type[BaseModel] | None:
    """The schema's class for the mapping at `path`."""
    at: Any = Config
    for part in path:
        at = _inner(at, part)
    return _model(at)


def _inner(annotation: Any, part: str | int) -> Any:
    if found := _model(annotation):
        field = found.model_fields.get(str(part))
        return field.annotation if field else None
    for option in _options(annotation):
        arguments = typing.get_args(option)
        if typing.get_origin(option) in (dict, Mapping) and isinstance(part, str):
            return arguments[1]
        if typing.get_origin(option) in (tuple, list) and isinstance(part, int):
            return arguments[0]
    return None


def _model(annotation: Any) -> type[BaseModel] | None:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _options(annotation: Any) -> tuple[Any, ...]:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _options(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(o for inner in typing.get_args(annotation) for o in _options(inner))
    return (annotation,)

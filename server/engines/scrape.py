"""Many engines' `/metrics` as one exposition: each sample gets the labels `roundhouse_engine` and
`roundhouse_replica`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from server.engines.control import Control
from server.engines.state import ON_SOCKET, EngineState, EngineView, Instance

LABEL = "roundhouse_engine"
REPLICA = "roundhouse_replica"
#: An engine's name, with the number of an instance where it may have several.
Source = str | tuple[str, int]
# What a command runs may have anything at that path, and of one line that is wrong a scraper takes
# none: a type that it does not know, a value that is no number.
_META = re.compile(
    r"^# (?:(HELP) ([A-Za-z_:][\w:]*)(?: (.*))?"
    r"|(TYPE) ([A-Za-z_:][\w:]*) (counter|gauge|histogram|summary|untyped))$",
    re.ASCII,
)
_NUMBER = r"(?:[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?Inf|NaN)"
_LABELS = r'\s*[A-Za-z_]\w*="(?:[^"\\]|\\["\\n])*"\s*'
_SAMPLE = re.compile(
    rf"^([A-Za-z_:][\w:]*)(?:\{{((?:{_LABELS}(?:,{_LABELS})*,?)?)\}})? ({_NUMBER}(?: -?\d+)?)$",
    re.ASCII,
)
_SUFFIXES = ("_bucket", "_count", "_sum", "_total", "_created", "_info", "_gsum", "_gcount")


@dataclass(slots=True)
class _Family:
    meta: dict[str, str] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


def merge(texts: Mapping[Source, str]) -> str:
    """One exposition of several. Each family stands once, with its first HELP and TYPE. A line that
    is no sample is left out."""
    families: dict[str, _Family] = {}
    for source, text in texts.items():
        engine, replica = (source, None) if isinstance(source, str) else source
        label = f'{LABEL}="{_escape(engine)}"'
        if replica is not None:
            label += f',{REPLICA}="{replica}"'
        current = ""
        for line in text.split("\n"):  # a label may hold what splitlines takes for an end
            if meta := _META.match(line):
                kind, current, rest = meta.groups()[:3] if meta[1] else meta.groups()[3:]
                families.setdefault(current, _Family()).meta.setdefault(kind, rest or "")
            elif sample := _SAMPLE.match(line):
                name, labels, value = sample.groups()
                if _has_label(labels):
                    continue
                owner = current if _belongs(name, current) else _owner(name, families)
                joined = f"{label},{labels}" if labels else label
                families.setdefault(owner, _Family()).samples.append(f"{name}{{{joined}}} {value}")
    lines = []
    for name, family in families.items():
        if family.samples:
            lines += [f"# {kind} {name} {text}".rstrip() for kind, text in family.meta.items()]
            lines += family.samples
    return "\n".join(lines) + "\n" if lines else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _has_label(labels: str | None) -> bool:
    return (
        labels is not None and re.search(rf"(?:^|,)\s*(?:{LABEL}|{REPLICA})=", labels) is not None
    )


def _belongs(name: str, family: str) -> bool:
    return bool(family) and (
        name == family or (name.startswith(family) and name[len(family) :] in _SUFFIXES)
    )


def _owner(name: str, families: Mapping[str, _Family]) -> str:
    """The family of a sample that does not stand below its TYPE."""
    if name in families:
        return name
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name.removesuffix(suffix) in families:
            return name.removesuffix(suffix)
    return name


async def fetch(views: Iterable[EngineView], timeout: float = 1.0) -> tuple[str, tuple[str, ...]]:
    """(merged exposition of all ready engines, names of those that did not answer in time)."""
    asked: dict[Source, EngineView | Instance] = {}
    for view in views:
        ready = [one for one in view.instances if one.state is EngineState.READY]
        if ready:
            asked |= {(view.name, one.replica): one for one in ready}
        elif view.state is EngineState.READY and view.socket:
            asked[view.name] = view
    answers = await asyncio.gather(*(_one(one, timeout) for one in asked.values()))
    texts = {source: text for source, text in zip(asked, answers, strict=True) if text is not None}
    # What a command runs need not have metrics.
    late = [source for source, one in asked.items() if one.socket and source not in texts]
    names = (source if isinstance(source, str) else source[0] for source in late)
    return merge(texts), tuple(dict.fromkeys(names))


async def _one(view: EngineView | Instance, timeout: float) -> str | None:
    if view.socket is None and view.url == ON_SOCKET:
        return None
    async with Control(view.socket, url=view.url) as control:
        try:
            status, body = await control.get("/metrics", timeout)
        except OSError:
            return None
    return body.decode("utf-8", "replace") if status == 200 else None

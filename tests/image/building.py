"""Builds a stage of a Dockerfile in miniature: each COPY and RUN as it stands there."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.image.dockerfile import Dockerfile, Instruction, Stage, expand
from tests.image.miniature import PATH, Image, Root

#: Where packages come from is the machine's business; all else of its environment stays out.
OUTSIDE = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT", "PIP_PROXY"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)


@dataclass
class Builder:
    """`base` makes the image that a registry would have under a name, in a folder; `cache` is what
    cache mounts are. `twins`: stages that are made once for two, since only their bases differ,
    which here are the same."""

    dockerfile: Dockerfile
    context: Path
    work: Path
    cache: Path
    base: Callable[[str, Path], Image]
    arguments: Mapping[str, str] = field(default_factory=dict)
    twins: Mapping[str, str] = field(default_factory=dict)
    _built: dict[str, Image] = field(default_factory=dict)

    def build(self, name: str) -> Image:
        stage = self.dockerfile.stages[name]
        if (twin := self.twins.get(name)) is not None:
            assert _steps(stage) == _steps(self.dockerfile.stages[twin])
            return self.build(twin)
        if name not in self._built:
            self._built[name] = self._make(stage)
        return self._built[name]

    @property
    def _global(self) -> dict[str, str]:
        return {**self.dockerfile.arguments, **self.arguments}

    def _from(self, stage: Stage) -> Image:
        """A new image of what the stage begins with. Stages that others begin with are names."""
        base = stage.base
        if base in self.dockerfile.stages:
            above = self.dockerfile.stages[base]
            assert not above.instructions, "would have to be copied"
            base = above.base
        return self.base(expand(base, self._global), self.work / stage.name)

    def _make(self, stage: Stage) -> Image:
        image = self._from(stage)
        scope: dict[str, str] = {}
        for one in stage.instructions:
            values = scope | image.env
            match one.keyword:
                case "ARG":
                    name, given, default = one.rest.partition("=")
                    inherited = self._global.get(name, "")
                    scope[name] = self.arguments.get(name, default if given else inherited)
                case "ENV" | "LABEL":
                    pairs = {name: expand(value, values) for name, value in one.pairs.items()}
                    (image.env if one.keyword == "ENV" else image.labels).update(pairs)
                case "COPY":
                    self._copy(image, one)
                case "RUN":
                    self._run(image, one, scope)
                case _:
                    _configure(image, one, expand(one.rest, values))
        return image

    def _copy(self, image: Image, one: Instruction) -> None:
        *sources, target = one.words
        at = image.root.at(target)
        origin = one.flag("from")
        for source in sources:
            path = self.context / source if origin is None else self._in(origin, source)
            assert path.exists(), f"COPY {source}"
            if path.is_dir():
                shutil.copytree(path, at, symlinks=True, dirs_exist_ok=True)
            else:
                assert target.endswith("/"), one
                at.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, at)

    def _in(self, origin: str, path: str) -> Path:
        return self.build(origin).root.at(path)

    def _run(self, image: Image, one: Instruction, scope: Mapping[str, str]) -> None:
        binds = {}
        for mount in one.mounts:
            if mount["type"] == "secret":
                continue  # given by nobody here
            if mount["type"] == "cache":
                path = self.cache
            else:
                assert mount["type"] == "bind", mount
                origin = mount.get("from")
                source = mount["source"]
                path = self.context / source if origin is None else self._in(origin, source)
            binds[mount["target"]] = path
        outside = {name: os.environ[name] for name in OUTSIDE if name in os.environ}
        env = {"PATH": PATH, "HOME": "/root"} | outside | dict(scope) | image.env
        image.root.run(one.rest, env, binds=binds, folder=image.folder)


def _configure(image: Image, one: Instruction, said: str) -> None:
    match one.keyword:
        case "WORKDIR":
            image.folder = said
        case "VOLUME":
            image.volumes = one.words
        case "EXPOSE":
            image.ports = said.split()
        case "STOPSIGNAL":
            image.stop = signal.Signals[said]
        case "HEALTHCHECK":
            keyword, _, command = said.partition(" ")
            assert keyword == "CMD"
            image.health = Instruction("CMD", (), command.strip(), one.line).words
        case "USER":
            image.user = said
        case "ENTRYPOINT":
            image.entrypoint, image.command = one.words, []
        case "CMD":
            image.command = one.words


def _steps(stage: Stage) -> list[tuple[object, ...]]:
    return [(one.keyword, one.flags, one.rest) for one in stage.instructions]


def plain(name: str, folder: Path) -> Image:
    """This machine's Debian, by whatever name: an image with Python."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return Image(Root(folder), env={"PATH": PATH}, user="0:0")

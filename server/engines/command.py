"""From the config of an engine with `runtime: command` to a `Launch`: any program with OpenAI's API
on a port of loopback."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from server.config.engine import PORT, Engine, Runtime
from server.engines import ports, runtimes
from server.engines.runtimes import Launch, Placement
from server.errors import EngineError

#: As vLLM on a CPU: the server, which relays for all, has the first say on the cores.
NICE: Final = 5


def launch(
    name: str,
    engine: Engine,
    runtime: Runtime | None,
    *,
    placement: Placement,
    environ: Mapping[str, str],
    base: Path,
    home: Path,
    scratch: str,
) -> Launch:
    """The command line, with a port that is free at this moment: call it anew for each start.

    It runs in `base`, the config's folder. `home` must be there for the log. Raises EngineError
    (`environment`).
    """
    env = environment(engine, runtime, environ=environ, placement=placement, scratch=scratch)
    program, *arguments = _words(name, engine)
    found = find(program, path=env.get("PATH", os.defpath), base=base)
    try:
        port = ports.free()
    except OSError as exc:
        raise EngineError(
            f"No port of {ports.LOOPBACK} is free ({exc.strerror}).", reason="environment"
        ) from exc
    return Launch(
        argv=(found, *(word.replace(PORT, str(port)) for word in arguments)),
        env=env,
        cwd=str(base),
        remove=(scratch,),
        nice=NICE if placement.kind == "cpu" else 0,
        # Not the arguments: a key may stand among them.
        facts={"command": program, "device": placement.kind, "port": port},
        port=port,
        health=engine.health,
    )


def check(
    name: str, engine: Engine, runtime: Runtime | None, *, environ: Mapping[str, str], base: Path
) -> None:
    """Is its program here? Raises EngineError (`environment`), before anything is started."""
    env = environment(engine, runtime, environ=environ, placement=Placement("cpu"), scratch="")
    find(_words(name, engine)[0], path=env.get("PATH", os.defpath), base=base)


def _words(name: str, engine: Engine) -> list[str]:
    try:
        words = shlex.split(engine.cmd or "")
    except ValueError as exc:
        raise _environment(f"The `cmd` of {name!r} cannot be cut into words: {exc}.") from None
    if not words or not words[0]:
        raise _environment(f"The `cmd` of {name!r} names no program.")
    return words


def environment(
    engine: Engine,
    runtime: Runtime | None,
    *,
    environ: Mapping[str, str],
    placement: Placement,
    scratch: str,
) -> dict[str, str]:
    """The program's environment: inherited < ours < the runtime's `env` < the engine's `env`."""
    env = runtimes.inherited(environ)
    env["TMPDIR"] = scratch  # what it leaves there when it is killed goes with it
    env["PYTHONUNBUFFERED"] = "1"  # its log is read while it starts
    if placement.kind == "cuda" and placement.ids:
        outer = environ.get("CUDA_VISIBLE_DEVICES")
        env["CUDA_VISIBLE_DEVICES"] = runtimes.visible(placement.ids, outer)
    return {**env, **(runtime.env if runtime is not None else {}), **engine.env}


def find(program: str, *, path: str, base: Path) -> str:
    """The program's file: by `path` where it is a bare name, else relative to `base`.

    Raises EngineError (`environment`, terminal) that names it.
    """
    if os.sep not in program:
        # Relative folders of a PATH are meant from where the program runs.
        folders = os.pathsep.join(str(base / part) for part in path.split(os.pathsep) if part)
        if (found := shutil.which(program, path=folders)) is not None:
            return found
        raise _environment(
            f"There is no program {program!r} in the PATH that the engine gets. "
            "Install it, or write its whole path in `cmd`."
        )
    file = base / program
    if not file.exists():
        raise _environment(f"There is no program {program!r} (looked for {file}). Correct `cmd`.")
    if not file.is_file() or not os.access(file, os.X_OK):
        raise _environment(
            f"{file} is no program that can be run. Correct `cmd`, or `chmod +x` the file."
        )
    return str(file)


def _environment(message: str) -> EngineError:
    return EngineError(message, reason="environment", terminal=True)

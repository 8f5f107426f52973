"""The chart's manifests for its examples: `python -m scripts.helm_render [EXAMPLE ...]`."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

CHART = Path(__file__).resolve().parents[1] / "helm" / "roundhouse"
EXAMPLES = CHART / "examples"
RELEASE = "roundhouse"
NAMESPACE = "models"


@cache
def chart() -> Chart:
    """The chart, loaded once."""
    return Chart.load(CHART)


def example(name: str) -> dict[str, Any]:
    """The values of an example."""
    values: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text("utf-8"))
    return values


def examples() -> list[str]:
    return sorted(path.stem for path in EXAMPLES.glob("*.yaml"))


def render(values: dict[str, Any], release: str = RELEASE) -> dict[str, str]:
    """Template → text, as in a cluster that has nothing yet. Raises HelmError."""
    return chart().render(values, name=release, namespace=NAMESPACE)


def manifests(values: dict[str, Any], release: str = RELEASE) -> list[dict[str, Any]]:
    """Every object, as Helm would apply it. Raises HelmError."""
    texts = [text for path, text in render(values, release).items() if path.endswith(".yaml")]
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def main(names: list[str]) -> int:
    known = examples()
    if unknown := sorted(set(names) - set(known)):
        print(f"no example {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or known:
        print(f"# ==== {name} ====")
        for path, text in sorted(render(example(name)).items()):
            if text.strip():
                print(f"---\n# {path}\n{text.strip()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

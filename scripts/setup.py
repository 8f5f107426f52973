#!/usr/bin/env python3
"""Makes or updates the environments, from the locks in requirements/.

    python3 scripts/setup.py server          .venv: what `roundhouse serve` needs
    python3 scripts/setup.py dev             .venv: that and the development tools
    python3 scripts/setup.py weights         .venv: an embedding model, for the tests
    python3 scripts/setup.py engine          .venv-engine: vLLM, for this machine's CPU or GPU
    python3 scripts/setup.py node            tests/node/node_modules: the Node SDK, for the tests

Several names at once are fine. A second run finds everything stamped and is done at once.
Variables: PYTHON (the interpreter to build from), ROUNDHOUSE_ENGINE (auto, cpu or cuda).
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

if sys.version_info < (3, 11):  # noqa: UP036 - this file alone may be started by an old python3
    import shutil

    for _name in ("python3.13", "python3.12", "python3.11"):
        _newer = shutil.which(_name)
        if _newer and os.system('"%s" -c ""' % _newer) == 0:  # noqa: UP031
            os.execv(_newer, [_newer] + sys.argv)  # noqa: RUF005
    sys.exit(
        "Roundhouse needs Python 3.11 to 3.13; python3 is %d.%d.\n"  # noqa: UP031
        "Debian, Ubuntu: apt install python3 python3-venv    macOS: brew install python@3.12\n"
        "or name one: make serve PYTHON=/path/to/python3.12" % sys.version_info[:2]
    )

sys.path.insert(0, ROOT)

from scripts.environments.run import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What `scripts/setup.py` is made of. Standard library only: it runs before anything is installed.

facts.py    what this machine is: platform, CPU flags, memory, disk, GPUs   (reads, decides nothing)
verdict.py  which engine goes here, or why none does and what works instead (pure)
pythons.py  which interpreter environments are built from                   (pure, over probes)
venvs.py    one virtual environment: steps, stamps, pip                     (acts)
plans.py    which steps make up .venv, .venv-engine and tests/node          (data)
"""

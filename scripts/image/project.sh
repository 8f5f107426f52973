#!/bin/sh
# Puts the wheel of FOLDER into an environment that dependencies.sh has made, and asks what came of it.
#   project.sh VENV FOLDER
set -eu
venv=$1 folder=$2

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
pip() { "$tools/venv/bin/python" -m pip --python "$venv/bin/python" "$@"; }
pip install --no-deps --no-index --root-user-action=ignore "$folder"/roundhouse_llm-*.whl
# Does the lock hold all that the wheel asks for?
pip check
"$venv/bin/roundhouse" --version

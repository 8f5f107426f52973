#!/bin/sh
# The project's wheel, in FOLDER, built by the tools of an environment that dependencies.sh has made.
#   wheel.sh VENV PROJECT FOLDER
set -eu
venv=$1 project=$2 folder=$3

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/python" -m pip --python "$venv/bin/python" \
  wheel --no-deps --no-index --no-build-isolation --wheel-dir "$folder" "$project"

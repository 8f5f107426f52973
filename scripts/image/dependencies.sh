#!/bin/sh
# A virtual environment with exactly what a lock lists: every file checked against its hash, nothing
# built, nobody else's packages in sight. Without pip: what runs in an image installs nothing.
#   dependencies.sh VENV LOCK
set -eu
venv=$1 lock=$2

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
python3 -m venv --without-pip "$venv"
"$tools/venv/bin/python" -m pip --python "$venv/bin/python" \
  install --no-deps --require-hashes --only-binary=:all: --root-user-action=ignore -r "$lock"

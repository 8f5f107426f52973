#!/bin/sh
# The user, the folders that he may write, and the command on everybody's path. Whoever runs the image
# as another user in the group 0, as OpenShift does, may write them as well.
#   runtime.sh VENV FOLDER...
set -eu
venv=$1
shift

groupadd --gid 10001 roundhouse
useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/roundhouse \
  --shell /usr/sbin/nologin roundhouse
# The environment itself stays off the path: engines' tools would find its `python`.
ln -s "$venv/bin/roundhouse" /usr/local/bin/roundhouse
mkdir -p /etc/roundhouse "$@"
chown 10001:0 "$@"
chmod 0770 "$@"

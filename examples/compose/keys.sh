#!/bin/sh
# Makes .env from .env.example with new keys, and secrets/metrics-key. Never touches what is there.
set -eu
cd "$(dirname "$0")"
if [ -e .env ] || [ -e secrets ]; then
  echo "There is a .env or secrets/ already; remove both for new keys." >&2
  exit 1
fi
umask 077
key() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
metrics=$(key)
sed -e "s/^ROUNDHOUSE_API_KEY=/&sk-rh-$(key)/" \
  -e "s/^ROUNDHOUSE_ADMIN_KEY=/&sk-rh-$(key)/" \
  -e "s/^ROUNDHOUSE_METRICS_KEY=/&$metrics/" \
  -e "s/^GRAFANA_PASSWORD=/&$(key)/" .env.example > .env
mkdir secrets
printf %s "$metrics" > secrets/metrics-key
# Prometheus runs as nobody, and is given this file alone; the folder keeps it from others here.
chmod 0444 secrets/metrics-key
echo "Made .env and secrets/metrics-key."

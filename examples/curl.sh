#!/bin/sh
# The server that `make serve` starts, asked with curl.
set -eu

curl -s http://127.0.0.1:8000/v1/models
echo

curl -s http://127.0.0.1:8000/v1/chat/completions \
  -H 'content-type: application/json' \
  -d '{"model": "guide", "messages": [{"role": "user", "content": "What is Roundhouse?"}]}'
echo

# As a stream (-N: show each event as it comes)
curl -sN http://127.0.0.1:8000/v1/chat/completions \
  -H 'content-type: application/json' \
  -d '{"model": "guide", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'

# The admin listener: engines and metrics
curl -s http://127.0.0.1:8001/engines
echo
curl -s http://127.0.0.1:8001/metrics | grep roundhouse_requests_total

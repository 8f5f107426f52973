"""What `helm test` runs in the gateway's image: is a gateway ready, does it take the secret's key,
does a model answer? Needs a Python and nothing else. Exits 1 with one sentence if not."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

QUESTION = "In one short sentence: what is a roundhouse, where trains are kept?"
# Kinds of models that answer a question; one without a card has no kind.
CHATS = ("chat", None)

URL = os.environ["ROUNDHOUSE_URL"]
KEY = os.environ.get("ROUNDHOUSE_API_KEY", "")
DEADLINE = time.monotonic() + float(os.environ["SECONDS_IN_ALL"])
# What stands between here and the Service is no proxy of the environment.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(path, body=None):
    """Status and JSON of an answer; status 0 and why, if there is none."""
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, headers)
    try:
        with OPENER.open(request, timeout=max(1.0, DEADLINE - time.monotonic())) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            return error.code, json.load(error)
        except ValueError:
            return error.code, {}
    except (OSError, ValueError) as error:
        return 0, {"error": {"message": str(error)}}


def said(answer):
    """What an error says."""
    error = answer.get("error")
    return error.get("message") if isinstance(error, dict) else answer


def ready():
    """Waits for a gateway that takes requests."""
    while True:
        status, answer = call("/ready")
        if status == 200:
            return
        if time.monotonic() > DEADLINE - 1:
            sys.exit(f"No gateway is ready at {URL}: {said(answer) or status}")
        time.sleep(1)


def chosen():
    """The model to ask; none if there is none."""
    status, answer = call("/v1/models")
    if status == 401:
        sys.exit(f"The gateway does not take the secret's ROUNDHOUSE_API_KEY: {said(answer)}")
    if status != 200:
        sys.exit(
            f"The gateway does not list its models ({status or 'nothing came'}): {said(answer)}"
        )
    models = answer["data"]
    print(f"Ready. Models: {', '.join(m['id'] for m in models[:10]) or 'none yet'}.")
    if wanted := os.environ.get("MODEL"):
        return wanted
    chats = [m["id"] for m in models if m.get("roundhouse", {}).get("type") in CHATS]
    return chats[0] if chats else None


def ask(model):
    """Prints the answer."""
    print(f"{model}: {QUESTION}")
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "max_tokens": 64,
    }
    began = time.monotonic()
    status, answer = call("/v1/chat/completions", body)
    if status != 200:
        sys.exit(f"{model} does not answer ({status or 'nothing came'}): {said(answer)}")
    text = answer["choices"][0]["message"].get("content")
    print(f"After {time.monotonic() - began:.1f} s: {text or '(no text: it was still thinking)'}")


ready()
if model := chosen():
    ask(model)
else:
    print("Nothing was asked: no model chats.")

"""Ask the server that `make serve` starts: once whole, once as a stream."""

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="not-needed-on-loopback")
question = [{"role": "user", "content": "What is Roundhouse?"}]

answer = client.chat.completions.create(model="guide", messages=question)
print(answer.choices[0].message.content)

for chunk in client.chat.completions.create(model="guide", messages=question, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()

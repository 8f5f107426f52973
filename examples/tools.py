"""A tool call: the model asks for it, we run it, the model answers with the result."""

import json

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="not-needed-on-loopback")
tools = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
messages = [{"role": "user", "content": "What is the weather in Paris?"}]

first = client.chat.completions.create(model="guide", messages=messages, tools=tools, temperature=0)
message = first.choices[0].message
messages.append(message.model_dump(exclude_none=True))
for call in message.tool_calls or []:
    print("the model calls", call.function.name, call.function.arguments)
    result = {"city": json.loads(call.function.arguments).get("city"), "degrees": 18}
    messages.append({"role": "tool", "tool_call_id": call.id, "content": json.dumps(result)})

last = client.chat.completions.create(model="guide", messages=messages, tools=tools, temperature=0)
print(last.choices[0].message.content)

// The official OpenAI SDK for Node, unchanged, against a running server.
// node conformance.mjs BASE_URL KEY: prints one line per check; exits 1 at the first that fails.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = [{ role: "user", content: "What is Roundhouse?" }];
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "The weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
  },
};
const weatherAsk = [{ role: "user", content: "What is the weather in Paris?" }];

const checks = {
  async chat() {
    const answer = await client.chat.completions.create({ model: "guide", messages: ask });
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.ok(answer.choices[0].message.content);
    assert.ok(answer.usage.total_tokens > 0);
  },
  async stream() {
    const stream = await client.chat.completions.create({
      model: "guide", messages: ask, stream: true, stream_options: { include_usage: true },
    });
    let text = "", usage = 0, finish = 0;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage += chunk.usage ? 1 : 0;
      finish += chunk.choices[0]?.finish_reason ? 1 : 0;
    }
    assert.ok(text.length > 0);
    assert.deepEqual([usage, finish], [1, 1]);
  },
  async streamHelper() {
    const runner = client.chat.completions.stream({ model: "guide", messages: ask });
    const final = await runner.finalChatCompletion();
    assert.ok(final.choices[0].message.content);
  },
  async toolsAuto() {
    const answer = await client.chat.completions.create({
      model: "guide", messages: weatherAsk, tools: [weather], tool_choice: "auto", temperature: 0,
    });
    assert.equal(answer.choices[0].message.tool_calls[0].function.name, "get_weather");
    assert.equal(answer.choices[0].finish_reason, "tool_calls");
  },
  async toolsRequired() {
    const answer = await client.chat.completions.create({
      model: "guide", messages: weatherAsk, tools: [weather], tool_choice: "required",
      temperature: 0, max_tokens: 200,
    });
    JSON.parse(answer.choices[0].message.tool_calls[0].function.arguments);
  },
  async toolsNamedStream() {
    const stream = await client.chat.completions.create({
      model: "guide", messages: weatherAsk, tools: [weather], stream: true, temperature: 0,
      tool_choice: { type: "function", function: { name: "get_weather" } },
    });
    let args = "";
    for await (const chunk of stream) {
      for (const call of chunk.choices[0]?.delta?.tool_calls ?? []) {
        args += call.function?.arguments ?? "";
      }
    }
    assert.ok("city" in JSON.parse(args));
  },
  async jsonSchema() {
    const schema = {
      type: "object",
      properties: { name: { type: "string", maxLength: 40 }, port: { type: "integer" } },
      required: ["name", "port"], additionalProperties: false,
    };
    const answer = await client.chat.completions.create({
      model: "guide", messages: ask, temperature: 0, max_tokens: 200,
      response_format: { type: "json_schema", json_schema: { name: "s", schema, strict: true } },
    });
    assert.deepEqual(Object.keys(JSON.parse(answer.choices[0].message.content)), ["name", "port"]);
  },
  async logprobs() {
    const answer = await client.chat.completions.create({
      model: "guide", messages: ask, logprobs: true, top_logprobs: 2, max_tokens: 4,
    });
    assert.equal(answer.choices[0].logprobs.content.length, 4);
  },
  async twoChoices() {
    const answer = await client.chat.completions.create({
      model: "guide", messages: ask, n: 2, temperature: 1, max_tokens: 8,
    });
    assert.deepEqual(answer.choices.map((c) => c.index), [0, 1]);
  },
  async stopAndSeed() {
    const options = {
      model: "guide", messages: ask, seed: 7, temperature: 1.5, max_tokens: 24, stop: ["."],
    };
    const [a, b] = [
      await client.chat.completions.create(options),
      await client.chat.completions.create(options),
    ];
    assert.equal(a.choices[0].message.content, b.choices[0].message.content);
    assert.ok(!a.choices[0].message.content.includes("."));
  },
  async completions() {
    const answer = await client.completions.create({
      model: "guide", prompt: "Roundhouse is", max_tokens: 8,
    });
    assert.ok(answer.choices[0].text);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "minilm", input: ["a", "b"] });
    assert.equal(answer.data.length, 2);
    assert.equal(answer.data[0].embedding.length, 384);
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes("guide"));
    assert.equal((await client.models.retrieve("org/guide-with-slash")).id, "org/guide-with-slash");
  },
  async errors() {
    await assert.rejects(
      client.chat.completions.create({ model: "guid", messages: ask }),
      (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found",
    );
    await assert.rejects(
      client.chat.completions.create({ model: "guide", messages: [] }),
      (error) => error instanceof OpenAI.BadRequestError && error.param === "messages",
    );
    await assert.rejects(
      new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).models.list(),
      OpenAI.AuthenticationError,
    );
  },
  async abort() {
    const stream = await client.chat.completions.create({
      model: "guide", messages: ask, stream: true, max_tokens: 2000, ignore_eos: true,
    });
    for await (const _ of stream) break;
  },
};

for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    console.error(`not ok ${name}: ${error.stack}`);
    process.exit(1);
  }
}
console.log(`${Object.keys(checks).length} checks passed`);

// Ask the server that `make serve` starts, as a stream. Needs: npm install openai
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8000/v1", apiKey: "not-needed" });
const stream = await client.chat.completions.create({
  model: "guide",
  messages: [{ role: "user", content: "What is Roundhouse?" }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
console.log();

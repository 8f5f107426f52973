"""The load client behind `roundhouse bench`: it asks any OpenAI-compatible server, and knows
nothing of what is inside ours.

What is measured, in seconds of one monotonic clock (`server.loadtest.sample` computes it):

**Due and sent.** A request is *due* at its arrival in an open loop (`--rate`), and when its turn
comes in a closed one (`--concurrency`). It is *sent* when it is handed to the transport: opening a
connection, where none is kept, counts as part of the request. Users feel the time from being due;
a server that stalls must not look better because the client could not send meanwhile (coordinated
omission). So every latency counts from being due, and its twin, `…_service`, from being sent.

**TTFT**, time to first token: to the first chunk whose delta is not empty (content, reasoning,
refusal, a tool call). The chunk with the role and no text, and comments, do not count.

**Inter-chunk time**: between one such chunk and the next. A server may put several tokens into a
chunk, and chunks that were read at one time are 0 apart.

**E2E**: to `[DONE]`, or to the last byte of an answer that is no stream.

**TPOT**, time per output token: (E2E - TTFT) / (n - 1), where n is `usage.completion_tokens`. A
stream without usage is counted in chunks, and the report says so ("tokens are chunks"). It is
undefined for n < 2.

**Failures** are everything but a whole answer: an error status, no connection, a time-out, an
error event, a stream without `[DONE]` or `finish_reason`, a `finish_reason` of `abort` or `error`.
They are counted by kind and enter no latency.

**Rates** are of whole answers: their number, or their tokens, divided by the time from the step's
start to its last answer's end. The mean number in flight is the sum of all requests' times from
being sent, divided by the same.

**Percentiles** are nearest rank: a value that was measured, never a mean of two.

Pure: `plan`, `arrivals`, `prompts`, `goodput`, `figures`, `sample`, `answer`, `report`, `table`,
`options`, `record`. With effects: `caller` (one request), `drive` (the loops), `mirror` (the client
watches itself), `bench` (steps in a row), `progress`, `plot`.
"""

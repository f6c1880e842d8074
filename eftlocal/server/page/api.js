/** Talks to the server that the page came from, through its public API alone. */

/** Why a request was not answered; status 0 where the server could not be reached. */
export class Failure extends Error {
  constructor(message, status = 0, retryAfter = 0) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may be answered a little later. */
  get isPassing() {
    return this.status === 503 || this.status === 0;
  }
}

/** The API key, kept until the tab is closed; a browser may refuse to keep it that long. */
let apiKey = read();

export function setKey(key) {
  apiKey = key;
  try {
    sessionStorage.setItem("eftlocal.key", key);
  } catch {
    // It is known as long as the page is open.
  }
}

function read() {
  try {
    return sessionStorage.getItem("eftlocal.key");
  } catch {
    return null;
  }
}

/** The JSON of a GET. */
export async function get(path) {
  return (await ask(path, {})).json();
}

/** The chunks of a streamed chat completion; aborting the signal ends it with an AbortError. */
export async function* streamChat(body, signal) {
  const options = { stream: true, stream_options: { include_usage: true } };
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, ...options }),
    signal,
  });
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Failure(chunk.error.message, statusOf(chunk.error));
    yield { choices: [], ...chunk };
  }
  throw new Failure("the connection was lost");
}

/** Resolves after so many seconds, or rejects when the signal aborts. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

async function ask(path, options) {
  const own = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  const headers = { ...options.headers, ...own };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("the server does not answer");
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  const message = answer.error?.message ?? `the server answered with status ${response.status}`;
  throw new Failure(message, response.status, Number(response.headers.get("Retry-After")));
}

/** The data of server-sent events; comments, which keep a connection open, are left out. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) if (block.startsWith("data: ")) yield block.slice(6);
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("the connection was lost");
  } finally {
    reader.cancel().catch(() => {});
  }
}

// In a stream the status line has been sent: the error object alone tells what it would have been.
function statusOf(error) {
  return error.type === "unavailable_error" ? 503 : 500;
}

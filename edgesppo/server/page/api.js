// The server: requests to it, and its errors in words that say what to do.

import { local, session } from "./browser_storage.js";
import { eventData } from "./sse.js";

const STATE_TIMEOUT = 10_000; // milliseconds, for what the server says of itself at once
const ROOT = new URL(".", document.baseURI); // also where a proxy serves the page below a path
const KEY = "edgesppo.key";

/** An answer that the server refused, or could not give. */
export class ServerError extends Error {
  constructor(status, { message = "", code = null } = {}, retryAfter = null) {
    super(message || `The server answered with status ${status}.`);
    this.name = "ServerError";
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The connection could not be made, or ended before the answer did. */
export class ConnectionLost extends Error {
  constructor() {
    super("There is no connection to the server.");
    this.name = "ConnectionLost";
  }
}

/** The API key: for this tab, or, if the person wants that, for this browser. */
export const apiKey = {
  /** Without what no key has: no header can hold an invisible character that came with a copy. */
  get: () => (session.getItem(KEY) ?? local.getItem(KEY) ?? "").replace(/[^ -~]/g, "").trim(),
  set(key, remember) {
    session.removeItem(KEY);
    local.removeItem(KEY);
    if (key) (remember ? local : session).setItem(KEY, key);
  },
};

async function request(path, { body, signal } = {}) {
  const headers = {};
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = {
    method: body ? "POST" : "GET",
    headers,
    signal,
    cache: "no-store",
    credentials: "omit",
  };
  let response;
  try {
    response = await fetch(new URL(path, ROOT), { ...options, body: body && JSON.stringify(body) });
  } catch (error) {
    throw lost(error);
  }
  return response;
}

/** A fetch that the person aborted stays what it is; whatever else went wrong is the connection. */
function lost(error) {
  return error.name === "AbortError" ? error : new ConnectionLost();
}

async function refusal(response) {
  const body = await response.json().catch(() => ({}));
  const seconds = Number.parseFloat(response.headers.get("Retry-After"));
  const error = typeof body?.error === "object" ? body.error : {};
  return new ServerError(response.status, error ?? {}, Number.isFinite(seconds) ? seconds : null);
}

async function json(path, options) {
  const response = await request(path, options);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** How the server is: "loading", "ok", "draining" or "unreachable". */
export async function health() {
  try {
    const response = await request("health", { signal: AbortSignal.timeout(STATE_TIMEOUT) });
    const { status } = await response.json();
    return typeof status === "string" ? status : "unreachable";
  } catch {
    return "unreachable";
  }
}

/** The models that the server has, as OpenAI lists them. */
export async function models() {
  return (await json("v1/models", { signal: AbortSignal.timeout(STATE_TIMEOUT) })).data;
}

/** How many tokens the prompt has that these messages make; Infinity if it cannot be read at once. */
export async function countTokens(messages, signal) {
  try {
    return (await json("tokenize", { body: { messages }, signal })).tokens.length;
  } catch (error) {
    const tooLong = error.code === "context_length_exceeded" || error.status === 413;
    if (tooLong) return Infinity;
    throw error;
  }
}

/** How many tokens a text has, however long it is. */
export async function countText(content, signal) {
  return (await json("tokenize", { body: { content }, signal })).tokens.length;
}

/** The chunks of an answer as they come. */
export async function* streamChat(body, signal) {
  const streaming = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("v1/chat/completions", { body: streaming, signal });
  if (!response.ok) throw await refusal(response);
  try {
    for await (const data of eventData(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError(500, chunk.error);
      yield chunk;
    }
  } catch (error) {
    throw error instanceof ServerError ? error : lost(error);
  }
  throw new ConnectionLost();
}

/** What went wrong, and what a person can do about it. */
export function explain(error) {
  if (error instanceof ConnectionLost) {
    return "This was not answered: there was no connection to the server.";
  }
  if (!(error instanceof ServerError)) return `Something is wrong in this page: ${error.message}`;
  const { status, code, message, retryAfter } = error;
  if (code === "context_length_exceeded") {
    return `This does not fit into what the model can read at once. (${message})`;
  }
  if (status === 401) return "The server wants an API key.";
  if (status === 429) return `The server is busy${soon(retryAfter)}. (${message})`;
  if (status === 503) return `The server takes no questions now${soon(retryAfter)}. (${message})`;
  return message;
}

function soon(seconds) {
  return seconds ? `: ask again in ${Math.ceil(seconds)} s` : ": ask again in a while";
}

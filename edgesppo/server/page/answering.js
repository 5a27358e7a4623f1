// One answer as it comes: asked for, written into its node of the chat, kept, and stopped.

import { ConnectionLost, explain, ServerError, streamChat } from "./api.js";
import { touch } from "./chats.js";
import { LONGEST_COUNT, TooLong } from "./prompt.js";

const SAVE_EVERY = 1000; // milliseconds

/** The answer of a node, which goes on if it has begun. `finished` is a promise, for when it is over. */
export class Answering {
  constructor(chat, node, { server, fitter, changed, save, askForKey }) {
    Object.assign(this, { chat, node, server, fitter, changed, save, askForKey });
    this.controller = new AbortController();
    this.saved = 0;
    this.waiting = null; // in words, what is waited for
    this.before = node.tokens ?? 0; // tokens of earlier runs, where this one goes on
    this.pieces = 0;
    this.promptTokens = null; // of its prompt, if they were counted
  }

  start() {
    this.finished = this.run();
  }

  stop() {
    this.controller.abort();
    return this.finished;
  }

  async run() {
    const { node } = this;
    node.version += 1;
    node.state = "running";
    delete node.error;
    const clock = setInterval(() => this.changed(this), 1000);
    try {
      await this.read();
      if (node.state === "running") throw new ConnectionLost(); // it ended without saying why
    } catch (error) {
      this.broken(error);
    }
    clearInterval(clock);
    node.version += 1;
    this.waiting = null;
    touch(this.chat);
    this.save(this.chat);
  }

  /** Read the answer; a model that still loads is waited for, a missing key is asked for. */
  async read() {
    for (;;) {
      await this.untilLoaded();
      try {
        return await this.readOnce();
      } catch (error) {
        if (!(error instanceof ServerError)) throw error;
        const loading = error.status === 503 && (await this.server.check()) === "loading";
        const keyed = error.status === 401 && (await this.askForKey());
        if (!loading && !keyed) throw error;
        if (keyed) await this.server.check(); // which then says what model it has
      }
    }
  }

  async untilLoaded() {
    const { signal } = this.controller;
    while (this.server.state === "loading" && !signal.aborted) {
      this.waiting = "The model is still loading. Your question is sent when it is ready.";
      this.changed(this);
      await this.server.change(signal);
    }
    this.waiting = null;
    signal.throwIfAborted();
  }

  async readOnce() {
    const { chat, node } = this;
    const { signal } = this.controller;
    const within = firstOf(signal, AbortSignal.timeout(LONGEST_COUNT));
    const { messages, start, tokens } = await this.fitter
      .fit(chat, node, { signal: within })
      .catch((error) => {
        if (error instanceof TooLong || signal.aborted) throw error;
        return this.fitter.uncounted(chat, node); // the server says what does not fit
      });
    node.promptStart = start;
    this.promptTokens = tokens;
    this.asked = performance.now();
    const body = { ...chat.sampling, messages };
    for await (const chunk of streamChat(body, signal)) {
      this.take(chunk);
      this.changed(this);
      if (Date.now() - this.saved > SAVE_EVERY) {
        this.saved = Date.now();
        this.save(chat);
      }
    }
  }

  take({ model, choices, usage, timings }) {
    const { node } = this;
    if (model) node.model = model;
    const [choice] = choices ?? [];
    const text = choice?.delta?.content ?? "";
    if (text) {
      node.content += text;
      this.began ??= performance.now();
      this.pieces += 1;
    }
    if (choice?.finish_reason === "length") node.state = "length";
    else if (choice?.finish_reason) node.state = node.content.trim() ? "done" : "empty";
    if (usage) node.tokens = this.before + usage.completion_tokens;
    if (timings?.decode_tps > 0) node.speed = timings.decode_tps;
  }

  /** For how many seconds the model has read what was said, before the first word of its answer. */
  get reading() {
    return this.pieces === 0 && this.asked ? (performance.now() - this.asked) / 1000 : 0;
  }

  /** Tokens per second, as far as it can be told from here while the answer comes. */
  get speed() {
    const seconds = (performance.now() - this.began) / 1000;
    return this.pieces > 2 && seconds > 0.5 ? (this.pieces - 1) / seconds : null;
  }

  broken(error) {
    const { node } = this;
    if (node.state !== "running") return; // only the figures behind the answer are missing
    if (error.name === "AbortError") node.state = "stopped";
    else if (error instanceof ConnectionLost && node.content) node.state = "dropped";
    else if (error instanceof TooLong) {
      node.state = "long";
      node.error = error.message;
    } else {
      node.state = "failed";
      node.error = explain(error);
    }
    if (error instanceof ConnectionLost) this.server.check();
  }
}

/** Aborts with the first of the signals, as AbortSignal.any does in newer browsers. */
function firstOf(...signals) {
  const controller = new AbortController();
  for (const signal of signals) {
    const abort = () => controller.abort(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort, { once: true });
  }
  return controller.signal;
}

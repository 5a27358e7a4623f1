// How much of the model's context a chat takes, together with what is being written.

import { countTokens } from "./api.js";
import { messagesFor, shownPath } from "./chats.js";

const AFTER = 400; // milliseconds in which nothing changes

export class Gauge {
  /** `show(tokens, context)` draws it. */
  constructor(server, show) {
    Object.assign(this, { server, show, tokens: 0 });
  }

  /** The chat, or what is written, is another one. */
  changed(chat) {
    clearTimeout(this.timer);
    this.controller?.abort();
    if (this.chat !== chat) this.set(0);
    this.chat = chat;
    this.timer = setTimeout(() => this.count(), AFTER);
  }

  async count() {
    const last = shownPath(this.chat).at(-1);
    const messages = last ? messagesFor(this.chat, last) : [];
    if (this.chat.draft?.trim()) messages.push({ role: "user", content: this.chat.draft });
    if (!messages.some(({ role }) => role === "user")) return this.set(0);
    this.controller = new AbortController();
    try {
      this.set(await countTokens(messages, this.controller.signal));
    } catch {
      // What was shown stays: the server is busy, or away, or wants a key first.
    }
  }

  /** An answer that grows, by so many pieces, since it began. */
  grow(pieces) {
    clearTimeout(this.timer);
    this.show(this.tokens + pieces, this.server.context);
  }

  set(tokens) {
    this.tokens = tokens;
    this.show(tokens, this.server.context);
  }
}

// How much of the model's context the next prompt takes, with what is being written.

import { isEmpty, nodeOf } from "./chats.js";
import { TooLong } from "./prompt.js";

const AFTER = 400; // milliseconds in which nothing changes
const NOTHING = { tokens: 0, leavesOut: 0, tooLong: "" };

export class Gauge {
  /**
   * `show({tokens, context, leavesOut, tooLong})` draws it: how many turns more will be left out,
   * and, in words, that what is written can never be sent.
   */
  constructor(server, fitter, show) {
    Object.assign(this, { server, fitter, tokens: 0 });
    this.show = (found) => show({ ...NOTHING, ...found, context: this.server.context });
  }

  /** The chat, or what is written, is another one. */
  changed(chat) {
    clearTimeout(this.timer);
    this.controller?.abort();
    if (this.chat !== chat) this.set(NOTHING);
    this.chat = chat;
    this.timer = setTimeout(() => this.count(), AFTER);
  }

  async count() {
    const { chat, server } = this;
    if (isEmpty(chat) || !server.context) return this.set(NOTHING);
    const { signal } = (this.controller = new AbortController());
    const options = { draft: chat.draft ?? "", exact: true, signal };
    try {
      const { tokens, more } = await this.fitter.fit(chat, nodeOf(chat, chat.leaf), options);
      this.set({ tokens: tokens ?? 0, leavesOut: more });
    } catch (error) {
      if (signal.aborted || !(error instanceof TooLong)) return;
      // Otherwise what was shown stays: the server is busy, or away, or wants a key first.
      const written = options.draft.trim() !== "";
      this.set({ tokens: error.tokens || server.context, tooLong: written ? error.message : "" });
    }
  }

  /** An answer that grows, by so many pieces, behind a prompt of so many tokens, if it is known. */
  grow(pieces, promptTokens) {
    clearTimeout(this.timer);
    this.show({ tokens: (promptTokens ?? this.tokens) + pieces });
  }

  set(found) {
    this.tokens = found.tokens;
    this.show(found);
  }
}

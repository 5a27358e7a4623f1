// How the server is, asked again and again, and told in words with what to do.

import { health, models } from "./api.js";

const USUALLY = 30_000; // milliseconds between two questions
const WHEN_NOT_WELL = 2_000;

export const NOTICES = {
  loading:
    "The model is still loading. You can write already: your question is sent when it is ready.",
  draining:
    "The server is shutting down: it finishes the answers that it began and takes no new ones. " +
    "Your chats are kept here; ask again when it runs again.",
  failed:
    "The server could not load its model. Its log says why; start it again when that is mended.",
  unreachable:
    "There is no connection to the server. Is “edgesppo serve” still running? " +
    "Nothing is lost: this page looks for it again by itself.",
};

export class ServerState {
  /** `keyWanted()` is called when it turns out that the server wants an API key. */
  constructor({ keyWanted }) {
    this.keyWanted = keyWanted;
    this.state = "ok"; // until the first answer says otherwise
    this.model = null; // its name
    this.context = null; // how many tokens it can read at once
    this.sampling = null; // its defaults, by their names
    this.wantsKey = false;
    this.fault = null; // why it does not tell its model, other than a key
    this.listeners = new Set();
    this.timer = null;
    document.addEventListener("visibilitychange", () => document.hidden || this.check());
  }

  /** Ask now; returns the state. */
  async check() {
    clearTimeout(this.timer);
    const state = await health();
    const changed = state !== this.state;
    this.state = state;
    // It may be another server now, or there may be a key for it.
    const unknown = state === "ok" && (changed || this.model === null || this.wantsKey);
    const wanted = this.wantsKey;
    if (unknown) await this.askForModel();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.checkIfSeen(), state === "ok" ? USUALLY : WHEN_NOT_WELL);
    if (changed || unknown) for (const listener of [...this.listeners]) listener(this);
    if (this.wantsKey && !wanted) this.keyWanted();
    return state;
  }

  /** A page that nobody looks at does not ask, unless something waits for the answer. */
  checkIfSeen() {
    if (!document.hidden || this.state === "loading") this.check();
  }

  async askForModel() {
    try {
      const [model] = await models();
      this.model = model?.id ?? null;
      this.context = model?.meta?.n_ctx ?? null;
      this.sampling = model?.meta?.sampling ?? null;
      this.wantsKey = false;
      this.fault = null;
    } catch (error) {
      // Without a key the server does not say; it is asked again when there is one. Another refusal
      // says nothing of the key.
      if (error.status === 401) this.wantsKey = true;
      this.fault = error.status === undefined || error.status === 401 ? null : error;
    }
  }

  listen(listener) {
    this.listeners.add(listener);
  }

  /** Until the state changes, or the signal aborts. */
  change(signal) {
    return new Promise((resolve) => {
      const done = () => {
        this.listeners.delete(done);
        resolve();
      };
      this.listeners.add(done);
      signal.addEventListener("abort", done, { once: true });
    });
  }
}

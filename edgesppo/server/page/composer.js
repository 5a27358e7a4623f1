// Where a person writes: the field, what sends it, and how much of the context is used.

import { byId } from "./dom.js";
import { fitHeight, sends } from "./editor.js";

const NEARLY_FULL = 0.85;

export class Composer {
  /** `send(text)` is called with what was written; `stop()`; `written(text)` while it is. */
  constructor({ send, stop, written }) {
    Object.assign(this, { send, written });
    this.field = byId("message");
    this.sendButton = byId("send");
    this.stopButton = byId("stop");
    this.field.addEventListener("input", () => this.changed());
    this.field.addEventListener("keydown", (event) => this.pressed(event));
    byId("composer").addEventListener("submit", (event) => this.submit(event));
    this.stopButton.addEventListener("click", stop);
  }

  get text() {
    return this.field.value;
  }

  set text(text) {
    this.field.value = text;
    this.changed();
  }

  focus() {
    this.field.focus();
  }

  /** While an answer comes, the button stops it. */
  setBusy(busy) {
    const hadFocus =
      document.activeElement === this.sendButton || document.activeElement === this.stopButton;
    this.busy = busy;
    this.sendButton.hidden = busy;
    this.stopButton.hidden = !busy;
    if (hadFocus) this.focus();
    this.updateButton();
  }

  updateButton() {
    this.sendButton.disabled = this.text.trim() === "";
  }

  changed() {
    fitHeight(this.field);
    this.updateButton();
    this.written(this.text);
  }

  pressed(event) {
    if (!sends(event)) return;
    event.preventDefault();
    this.submit(event);
  }

  submit(event) {
    event.preventDefault();
    if (this.busy || this.text.trim() === "") return;
    const text = this.text.trimEnd();
    this.text = "";
    this.send(text);
  }

  /** Show how many tokens the chat has with what is written, and how many the model can read. */
  showTokens(tokens, context) {
    const gauge = byId("gauge");
    gauge.hidden = !context || !tokens;
    if (gauge.hidden) return;
    const share = tokens / context;
    gauge.classList.toggle("full", share > NEARLY_FULL);
    byId("gauge-meter").value = Math.min(share, 1);
    const tooLong = share > 1 ? ": too long" : "";
    byId("gauge-text").textContent =
      `${tokens.toLocaleString()} of ${context.toLocaleString()} tokens${tooLong}`;
  }
}

// Where a person writes: the field, what sends it, and how much of the context is used.

import { byId } from "./dom.js";
import { fitHeight, sends } from "./editor.js";

const NEARLY_FULL = 0.85;
const USUAL_HINT = byId("hint").textContent;

function willLeaveOut(turns) {
  const which = turns === 1 ? "oldest turn no longer fits" : `oldest ${turns} turns no longer fit`;
  return `The ${which} and will be left out.`;
}

export class Composer {
  /**
   * `send(text)` is called with what was written, and resolves to whether it was sent; `stop()`;
   * `written(text)` while it is.
   */
  constructor({ send, stop, written }) {
    Object.assign(this, { send, written });
    this.field = byId("message");
    this.sendButton = byId("send");
    this.stopButton = byId("stop");
    this.field.addEventListener("input", () => this.changed());
    this.field.addEventListener("keydown", (event) => this.pressed(event));
    addEventListener("resize", () => fitHeight(this.field));
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
    this.sendButton.disabled = this.text.trim() === "" || this.tooLong;
  }

  changed() {
    fitHeight(this.field);
    this.tooLong = false; // until it has been counted
    this.updateButton();
    this.written(this.text);
  }

  pressed(event) {
    if (!sends(event)) return;
    event.preventDefault();
    this.submit(event);
  }

  async submit(event) {
    event.preventDefault();
    const written = this.text;
    if (this.busy || this.sending || written.trim() === "") return;
    this.sending = true;
    try {
      const sent = await this.send(written.trimEnd());
      if (sent && this.text === written) this.text = "";
    } finally {
      this.sending = false;
    }
  }

  /**
   * Show how many tokens the prompt has with what is written, and how many the model can read; how
   * many turns more it leaves out, or why it can never be sent.
   */
  showTokens({ tokens, context, leavesOut, tooLong }) {
    this.tooLong = Boolean(tooLong);
    this.updateButton();
    this.field.setAttribute("aria-invalid", String(this.tooLong));
    const hint = byId("hint"); // which describes the field
    hint.textContent = tooLong || (leavesOut ? willLeaveOut(leavesOut) : USUAL_HINT);
    hint.classList.toggle("told", hint.textContent !== USUAL_HINT);
    hint.classList.toggle("fault", this.tooLong);
    const gauge = byId("gauge");
    gauge.classList.toggle("fault", this.tooLong);
    if (!tokens && tooLong) return; // it shows what it did
    gauge.hidden = !context || !tokens;
    if (gauge.hidden) return;
    const share = tokens / context;
    gauge.classList.toggle("full", share > NEARLY_FULL);
    byId("gauge-meter").value = Math.min(share, 1);
    byId("gauge-text").textContent =
      `${tokens.toLocaleString()} of ${context.toLocaleString()} tokens`;
  }
}

// The settings of a chat: its title, its system text, and how its answers are sampled.

import { byId, el } from "./dom.js";
import { NUMBERS, numberFault } from "./sampling.js";
import { setPreference } from "./storage.js";

export class SettingsDialog {
  /** `defaults()`: the server's sampling, by name; `saved(chat)` is called when it was changed. */
  constructor({ defaults, saved }) {
    Object.assign(this, { defaults, saved });
    this.dialog = byId("settings");
    for (const [name, label, hint] of NUMBERS) {
      const id = `sampling-${name}`;
      const field = el("input", {
        id,
        type: "text",
        inputMode: "decimal",
        autocomplete: "off",
        "aria-describedby": `${id}-hint settings-fault`,
      });
      const about = el("p", { id: `${id}-hint`, className: "hint" }, hint);
      byId("sampling").append(el("div", {}, el("label", { for: id }, label), field, about));
    }
    const stop = el("textarea", { id: "sampling-stop", rows: 2, placeholder: "one text a line" });
    byId("sampling").append(
      el("div", {}, el("label", { for: "sampling-stop" }, "Stop before"), stop),
    );
    byId("clear-settings").addEventListener("click", () => this.fill({ system: "", sampling: {} }));
    this.dialog.querySelector("form").addEventListener("submit", (event) => this.submit(event));
  }

  open(chat) {
    this.chat = chat;
    byId("chat-title").value = chat.title;
    byId("for-new-chats").checked = false;
    this.fill(chat);
    this.showDefaults();
    this.dialog.showModal();
    byId("system").focus();
  }

  fill({ system, sampling }) {
    byId("system").value = system;
    for (const [name] of NUMBERS) byId(`sampling-${name}`).value = sampling[name] ?? "";
    byId("sampling-stop").value = (sampling.stop ?? []).join("\n");
    this.showFault(null);
  }

  /** In the empty fields, what the server takes instead. */
  showDefaults() {
    const defaults = this.defaults() ?? {};
    for (const [name] of NUMBERS) {
      const value = defaults[name];
      byId(`sampling-${name}`).placeholder = typeof value === "number" ? `${value} (server)` : "";
    }
  }

  /** Say what is the matter, where it is seen, and go to the field that it is about. */
  showFault(fault) {
    byId("settings-fault").textContent = fault?.text ?? "";
    for (const [name] of NUMBERS)
      byId(`sampling-${name}`).setAttribute("aria-invalid", String(name === fault?.name));
    if (fault) byId(`sampling-${fault.name}`).focus();
  }

  submit(event) {
    const { sampling, fault } = readSampling();
    if (fault) {
      event.preventDefault();
      this.showFault(fault);
      return;
    }
    const system = byId("system").value;
    Object.assign(this.chat, { title: byId("chat-title").value.trim(), system, sampling });
    if (byId("for-new-chats").checked) setPreference("forNewChats", { system, sampling });
    this.saved(this.chat);
  }
}

/** The fields as the server takes them, or the first that it would not take. */
function readSampling() {
  const sampling = {};
  for (const [name, label, , limits] of NUMBERS) {
    const text = byId(`sampling-${name}`).value.trim().replace(",", ".");
    if (text === "") continue;
    const fault = numberFault(text, limits);
    if (fault) return { fault: { name, text: `${label}: ${fault}` } };
    sampling[name] = Number(text);
  }
  const stop = byId("sampling-stop")
    .value.split("\n")
    .filter((line) => line !== "");
  if (stop.length) sampling.stop = stop;
  return { sampling };
}

// Lines above the chat that say what is the matter, each with one thing that can be done about it.

import { button, byId, el } from "./dom.js";

/** Show a notice in the place of the one of the same name; without a text, take that away. */
export function notice(name, text, { label, action, seconds } = {}) {
  const id = `notice-${name}`;
  byId(id)?.remove();
  if (!text) return;
  const close = () => element.remove();
  const act = () => {
    close();
    action?.();
  };
  const element = el("div", { id }, el("p", {}, text), button(label ?? "Close", act));
  byId("notices").append(element);
  if (seconds) setTimeout(close, 1000 * seconds);
}

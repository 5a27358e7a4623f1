// Keys for what is done often. They go by the key's place: a Mac tells Alt+N as another character.

import { byId, el } from "./dom.js";
import { isMenuOpen } from "./menu.js";

/** `actions`: by name, what each key does. */
export function listenToKeys(actions) {
  const keys = [
    ["Enter", "Send (with Shift: a new line)"],
    ["Esc", "Stop the answer"],
    ["↑", "In an empty field: edit the last question"],
    ["Alt+N", "New chat", "KeyN", actions.newChat],
    ["Alt+M", "To the message", "KeyM", actions.toMessage],
    ["Alt+R", "Regenerate the last answer", "KeyR", actions.regenerate],
    ["Alt+C", "Continue the last answer", "KeyC", actions.goOn],
    ["Alt+L", "Show or hide the chats", "KeyL", actions.toggleChats],
    ["Alt+S", "Settings of this chat", "KeyS", actions.settings],
  ];
  for (const [name, meaning] of keys) {
    byId("shortcuts").append(el("dt", {}, el("kbd", {}, name)), el("dd", {}, meaning));
  }
  const byCode = new Map(
    keys.filter(([, , code]) => code).map(([, , code, action]) => [code, action]),
  );
  addEventListener("keydown", (event) => {
    const isElsewhere = document.querySelector("dialog[open]") || isMenuOpen();
    if (event.defaultPrevented || event.isComposing || isElsewhere) return;
    const { altKey, ctrlKey, metaKey, shiftKey } = event;
    const isAlt = altKey && !ctrlKey && !metaKey && !shiftKey && !writes(event);
    let action = isAlt ? byCode.get(event.code) : null;
    if (event.key === "Escape") action = actions.escape;
    const inEmptyField = event.target === byId("message") && event.target.value === "";
    if (event.key === "ArrowUp" && inEmptyField) action = actions.editLast;
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Whether a key writes another character with Alt, as on a Mac in a text: ń, ß, @. */
function writes({ target, key }) {
  const isMac = /Mac|iP/.test(navigator.platform);
  return isMac && target.matches("textarea, input") && !/^[a-z]$/.test(key);
}

// Copying a text, also where the page did not come over TLS and the browser has no clipboard API.

import { el } from "./dom.js";

/** Copy a text and say on the button whether that worked. */
export async function copyText(text, copy) {
  const before = (copy.dataset.label ??= copy.textContent);
  copy.textContent = (await copied(text)) ? "Copied" : "Not allowed";
  setTimeout(() => (copy.textContent = before), 1500);
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedFromField(text);
  }
}

/** The old way, which needs a selection. */
function copiedFromField(text) {
  const field = el("textarea", { value: text, className: "unseen" });
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return done;
}

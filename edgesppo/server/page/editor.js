// A text field that takes the place of a text, and the one rule for when Enter means "send".

import { button, el } from "./dom.js";

/** As high as its text, up to what the style sheet allows. */
export function fitHeight(field) {
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight + 2}px`;
}

/** Whether this is a phone or a tablet: the focus on a field there opens a keyboard. */
export function isTouch() {
  return matchMedia("(pointer: coarse)").matches;
}

/**
 * Whether this key sends: Enter, but not while an input method composes a character, nor on a
 * phone, whose keyboard has no Shift+Enter; Ctrl+Enter always does.
 */
export function sends(event) {
  const composes = event.isComposing || event.keyCode === 229; // as Safari tells it
  if (event.key !== "Enter" || composes) return false;
  if (event.ctrlKey || event.metaKey) return true;
  return !event.shiftKey && !event.altKey && !isTouch();
}

/** Calls back with the new text, or with null if there is to be none. */
export function openEditor(place, text, label, done) {
  const field = el("textarea", { value: text, "aria-label": "Text", rows: 1 });
  const save = () => (field.value.trim() ? done(field.value.trimEnd()) : field.focus());
  field.addEventListener("input", () => fitHeight(field));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") done(null);
    else if (sends(event)) save();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const choices = el(
    "div",
    { className: "choices" },
    button("Cancel", () => done(null)),
    button(label, save, { className: "main" }),
  );
  place.replaceChildren(el("div", { className: "editor" }, field, choices));
  fitHeight(field);
  field.focus();
  field.setSelectionRange(text.length, text.length);
}

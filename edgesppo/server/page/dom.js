// The only way that this page makes elements: text is always text, never markup.

/**
 * An element with properties, attributes (their names have a "-" or are "role" or "for") and
 * children. A string among the children becomes a text node.
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.includes("-") || name === "role" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** The element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A button with a text on it, and what it does. */
export function button(label, action, properties = {}) {
  const element = el("button", { type: "button", ...properties }, label);
  element.addEventListener("click", action);
  return element;
}

// The list of chats, at the side or, on a narrow screen, before the page.

import { button, byId, el } from "./dom.js";
import { preferences, setPreference } from "./storage.js";

const narrow = matchMedia("(max-width: 52rem)");

export class Sidebar {
  constructor({ open }) {
    this.open = open;
    byId("open-sidebar").addEventListener("click", () => this.toggle(true));
    byId("close-sidebar").addEventListener("click", () => this.toggle(false));
    byId("shade").addEventListener("click", () => this.toggle(false));
    narrow.addEventListener("change", () => this.reset());
    this.reset();
  }

  get isOpen() {
    return document.body.dataset.sidebar === "open";
  }

  get isDrawer() {
    return narrow.matches;
  }

  reset() {
    this.set(!narrow.matches && preferences().sidebar !== false);
  }

  set(open) {
    document.body.dataset.sidebar = open ? "open" : "closed";
    byId("main").inert = open && narrow.matches;
    byId("open-sidebar").setAttribute("aria-expanded", String(open));
  }

  toggle(open = !this.isOpen) {
    this.set(open);
    if (!narrow.matches) setPreference("sidebar", open);
    byId(open ? "close-sidebar" : "open-sidebar").focus();
  }

  /** After a chat was chosen in the drawer, the chat is what one wants to see. */
  closeDrawer() {
    if (narrow.matches) this.set(false);
  }

  /** Show these chats; `busy(chat)` tells where an answer comes. */
  show(chats, current, busy) {
    const items = [];
    let group = null;
    for (const chat of chats) {
      const age = ageOf(chat.updated);
      if (age !== group) items.push(el("li", {}, el("h2", {}, age)));
      group = age;
      items.push(this.item(chat, chat === current, busy(chat)));
    }
    const focused = document.activeElement?.dataset?.chat;
    byId("chats").replaceChildren(...items);
    if (focused)
      byId("chats")
        .querySelector(`[data-chat="${CSS.escape(focused)}"]`)
        ?.focus();
  }

  item(chat, isCurrent, isBusy) {
    const entry = button("", () => this.open(chat), {
      "data-chat": chat.id,
      "aria-current": isCurrent ? "page" : null,
    });
    entry.append(el("span", { className: "name" }, chat.title || "New chat"));
    if (isBusy)
      entry.append(el("span", { className: "busy", role: "img", "aria-label": "An answer comes" }));
    return el("li", {}, entry);
  }
}

function ageOf(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight - Date.parse(time)) / 86_400_000);
  if (!(days > 0)) return "Today";
  if (days === 1) return "Yesterday";
  return days <= 7 ? "This week" : days <= 31 ? "This month" : "Earlier";
}

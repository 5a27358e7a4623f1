// All chats of this browser: kept as they grow, and brought together with what other tabs wrote.

import { isEmpty, mergeChat } from "./chats.js";
import { notice } from "./notices.js";
import { forgetChat, loadChats, saveChat, storedChat, whenAnotherTabWrites } from "./storage.js";

export class Library {
  /** `changed(chat)` is called when another tab changed a chat. */
  constructor({ changed }) {
    const { chats, unread } = loadChats();
    this.chats = chats;
    this.removed = new WeakSet();
    if (unread) {
      const what = unread === 1 ? "One saved chat" : `${unread} saved chats`;
      notice("unread", `${what} cannot be read by this page. Nothing of it was changed.`);
    }
    whenAnotherTabWrites((id) => {
      const chat = this.read(id);
      if (chat) changed(chat);
    });
  }

  find(id) {
    return this.chats.find((chat) => chat.id === id) ?? null;
  }

  /** The chats, the one that changed last first. */
  newestFirst() {
    return this.chats.toSorted((one, other) => (one.updated < other.updated ? 1 : -1));
  }

  /** Save a chat, unless nothing is in it yet. */
  keep(chat) {
    if (this.chats.includes(chat) || !isEmpty(chat)) this.add(chat);
  }

  /** Save a chat in any case. What another tab added to it stays. */
  add(chat) {
    if (this.removed.has(chat)) return;
    if (!this.chats.includes(chat)) this.chats.push(chat);
    const stored = storedChat(chat.id);
    if (stored) mergeChat(chat, stored);
    notice("storage", saveChat(chat));
  }

  remove(chat) {
    this.removed.add(chat); // an answer that still comes must not bring it back
    this.chats = this.chats.filter((other) => other !== chat);
    forgetChat(chat);
  }

  restore(chat) {
    this.removed.delete(chat);
    this.add(chat);
  }

  /** Take over what another tab wrote. One that it deleted stays here until the page is closed. */
  read(id) {
    const stored = storedChat(id);
    const ours = this.find(id);
    if (!stored) return null;
    if (ours) mergeChat(ours, stored);
    else this.chats.push(stored);
    return ours ?? stored;
  }
}

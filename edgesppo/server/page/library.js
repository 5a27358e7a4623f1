// All chats of this browser: kept as they grow, and brought together with what other tabs wrote.

import { isEmpty, mergeChat } from "./chats.js";
import { notice } from "./notices.js";
import { forgetChat, loadChats, saveChat, storedChat, whenAnotherTabWrites } from "./storage.js";

export class Library {
  /** `changed(chat)` and `deleted(chat)` are called when another tab did that. */
  constructor({ changed, deleted }) {
    const { chats, unread } = loadChats();
    this.chats = chats;
    this.removed = new Map(); // by id: an answer that still comes must not bring them back
    if (unread) {
      const what = unread === 1 ? "One saved chat" : `${unread} saved chats`;
      notice("unread", `${what} cannot be read by this page. Nothing of it was changed.`);
    }
    whenAnotherTabWrites((id, isThere) => {
      const chat = isThere ? this.read(id) : this.drop(this.find(id));
      if (chat) (isThere ? changed : deleted)(chat);
    });
  }

  find(id) {
    return this.chats.find((chat) => chat.id === id) ?? null;
  }

  /** The chats, the one that changed last first. */
  newestFirst() {
    return [...this.chats].sort((one, other) => (one.updated < other.updated ? 1 : -1));
  }

  /** Save a chat, unless nothing is in it yet. */
  keep(chat) {
    if (this.chats.includes(chat) || !isEmpty(chat)) this.add(chat);
  }

  /** Save a chat in any case. What another tab added to it stays. */
  add(chat) {
    if (this.removed.has(chat.id)) return;
    if (!this.chats.includes(chat)) this.chats.push(chat);
    const stored = storedChat(chat.id);
    if (stored) mergeChat(chat, stored);
    notice("storage", saveChat(chat));
  }

  remove(chat) {
    this.drop(chat);
    forgetChat(chat);
  }

  /** Have a chat no longer, here; returns it. */
  drop(chat) {
    if (chat) this.removed.set(chat.id, chat);
    this.chats = this.chats.filter((other) => other !== chat);
    return chat;
  }

  restore(chat) {
    this.removed.delete(chat.id);
    this.add(chat);
  }

  /** Take over what another tab wrote. */
  read(id) {
    const stored = storedChat(id);
    if (!stored) return null;
    const ours = this.find(id) ?? this.removed.get(id);
    this.removed.delete(id);
    if (ours) mergeChat(ours, stored);
    const chat = ours ?? stored;
    if (!this.chats.includes(chat)) this.chats.push(chat);
    return chat;
  }
}

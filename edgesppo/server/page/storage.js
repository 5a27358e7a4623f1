// The chats and preferences that this browser keeps, one entry of localStorage for each chat.
//
// localStorage because it writes at once: also in the moment in which a page is closed, so that
// half an answer is kept. What cannot be read is left as it is, for it may be of a newer page.

import { checkedChat } from "./chats.js";

const PREFIX = "edgesppo.chat.";
const PREFERENCES = "edgesppo.preferences";

/** All chats, the one that changed last first; and how many entries could not be read. */
export function loadChats() {
  const chats = [];
  let unread = 0;
  for (const name of names()) {
    try {
      chats.push(checkedChat(JSON.parse(localStorage.getItem(name))));
    } catch {
      unread += 1;
    }
  }
  chats.sort((one, other) => (one.updated < other.updated ? 1 : -1));
  return { chats, unread };
}

function names() {
  try {
    return Object.keys(localStorage).filter((name) => name.startsWith(PREFIX));
  } catch {
    return []; // a browser that was told to keep nothing
  }
}

/** Keep a chat. Returns what went wrong, in words; null if nothing did. */
export function saveChat(chat) {
  return write(PREFIX + chat.id, chat);
}

export function forgetChat(chat) {
  localStorage.removeItem(PREFIX + chat.id);
}

/** What a chat is in the storage, as another tab may have left it; null if it is not there. */
export function storedChat(id) {
  try {
    return checkedChat(JSON.parse(localStorage.getItem(PREFIX + id)));
  } catch {
    return null;
  }
}

/** Calls back with the id of a chat that another tab of this browser has changed or deleted. */
export function whenAnotherTabWrites(changed) {
  addEventListener("storage", ({ key }) => {
    if (key?.startsWith(PREFIX)) changed(key.slice(PREFIX.length));
  });
}

export function preferences() {
  try {
    return JSON.parse(localStorage.getItem(PREFERENCES)) ?? {};
  } catch {
    return {};
  }
}

export function setPreference(name, value) {
  return write(PREFERENCES, { ...preferences(), [name]: value });
}

function write(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return null;
  } catch (error) {
    if (error.name === "QuotaExceededError") {
      return (
        "The room that this browser gives to the page is used up, so this chat is not saved. " +
        "Export it from the menu, or delete chats that you no longer need; it is then saved by itself."
      );
    }
    return "This browser keeps nothing for this page, so chats are lost when it is closed. Export what you want to keep.";
  }
}

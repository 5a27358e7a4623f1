// The chats and preferences that this browser keeps, one entry of localStorage for each chat.
//
// localStorage because it writes at once: also in the moment in which a page is closed, so that
// half an answer is kept. What cannot be read is left as it is, for it may be of a newer page.

import { isKept, local, names } from "./browser_storage.js";
import { checkedChat } from "./chats.js";

const PREFIX = "edgesppo.chat.";
const PREFERENCES = "edgesppo.preferences";
const KEEPS_NOTHING =
  "This browser keeps nothing for this page, so chats are lost when it is closed. " +
  "Export what you want to keep.";

/** All chats, the one that changed last first; and how many entries could not be read. */
export function loadChats() {
  const chats = [];
  let unread = 0;
  for (const name of names()) {
    if (!name.startsWith(PREFIX)) continue;
    try {
      chats.push(checkedChat(JSON.parse(local.getItem(name))));
    } catch {
      unread += 1;
    }
  }
  chats.sort((one, other) => (one.updated < other.updated ? 1 : -1));
  return { chats, unread };
}

/** Keep a chat. Returns what went wrong, in words; null if nothing did. */
export function saveChat(chat) {
  return write(PREFIX + chat.id, chat);
}

export function forgetChat(chat) {
  local.removeItem(PREFIX + chat.id);
}

/** What a chat is in the storage, as another tab may have left it; null if it is not there. */
export function storedChat(id) {
  try {
    return checkedChat(JSON.parse(local.getItem(PREFIX + id)));
  } catch {
    return null;
  }
}

/** Calls back with the id of a chat that another tab wrote, and whether it is there or deleted. */
export function whenAnotherTabWrites(wrote) {
  addEventListener("storage", ({ key, newValue }) => {
    if (key?.startsWith(PREFIX)) wrote(key.slice(PREFIX.length), newValue !== null);
  });
}

export function preferences() {
  try {
    return JSON.parse(local.getItem(PREFERENCES)) ?? {};
  } catch {
    return {};
  }
}

export function setPreference(name, value) {
  return write(PREFERENCES, { ...preferences(), [name]: value });
}

function write(name, value) {
  try {
    local.setItem(name, JSON.stringify(value));
    return isKept ? null : KEEPS_NOTHING;
  } catch (error) {
    if (error.name === "QuotaExceededError") {
      return (
        "The room that this browser gives to the page is used up, so this chat is not saved. " +
        "Export it from the menu, or delete chats that you no longer need; it is then saved by itself."
      );
    }
    return KEEPS_NOTHING;
  }
}

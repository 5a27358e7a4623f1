// Chats as files, and back.

import { STATES, checkedChat, shownPath } from "./chats.js";
import { el } from "./dom.js";

const FORMAT = "edgesppo chats";

/** What is shown of a chat, to read. */
export function asMarkdown(chat) {
  const parts = [`# ${chat.title || "Chat"}`];
  if (chat.system.trim()) parts.push(`> ${chat.system.trim().replaceAll("\n", "\n> ")}`);
  for (const { role, model, content, state, error } of shownPath(chat)) {
    parts.push(`## ${role === "user" ? "You" : (model ?? "Answer")}`, content);
    const note = error ?? STATES[state];
    if (note) parts.push(`*${note}*`);
  }
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

/** All that is kept of these chats, to read in again. */
export function asJson(chats) {
  return `${JSON.stringify({ format: FORMAT, version: 1, chats }, null, 2)}\n`;
}

/** The chats of a file that asJson() made; throws, in words, where it is none. */
export function fromJson(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch {
    throw new TypeError("It is not JSON.");
  }
  if (file?.format !== FORMAT || !Array.isArray(file.chats)) {
    throw new TypeError("It is not a file that this page exported as JSON.");
  }
  return file.chats.map(checkedChat);
}

/** Have the browser save a text as a file. */
export function download(text, name, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** A name for a chat's file: of its title, what every file system takes. */
export function fileName(chat, ending) {
  const words = chat.title.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return `${words.slice(0, 8).join("-").slice(0, 60) || "chat"}.${ending}`;
}

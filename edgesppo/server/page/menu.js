// The menu of a chat: export, import, delete.

import { asJson, asMarkdown, download, fileName, fromJson } from "./export.js";
import { byId } from "./dom.js";
import { notice } from "./notices.js";

/** `current()`: the chat that is shown; `remove()` it; `add(chat)` shows one. */
export function prepareMenu(library, { current, remove, add }) {
  const entry = (id, action) =>
    byId(id).addEventListener("click", () => {
      byId("menu").hidePopover();
      action();
    });
  entry("export-markdown", () => download(asMarkdown(current()), fileName(current(), "md"), "text/markdown"));
  entry("export-json", () => download(asJson([current()]), fileName(current(), "json"), "application/json"));
  entry("export-all", () => download(asJson(library.newestFirst()), "edgesppo-chats.json", "application/json"));
  entry("delete-chat", remove);
  entry("import", () => byId("import-file").click());
  byId("import-file").addEventListener("change", async ({ target }) => {
    for (const file of target.files) await read(file, library, add);
    target.value = "";
  });
}

/** Add the chats of a file; one that is here already is added as a copy if it is another. */
async function read(file, library, add) {
  try {
    for (const chat of fromJson(await file.text())) {
      const same = library.find(chat.id);
      if (same && asJson([same]) === asJson([chat])) continue;
      if (same) Object.assign(chat, { id: `${chat.id}.${Date.now()}`, title: `${chat.title} (imported)` });
      add(chat);
    }
  } catch (error) {
    notice("import", `“${file.name}” was not read. ${error.message}`);
  }
}

// The menu of a chat: export, import, delete.

import { mergeChat } from "./chats.js";
import { asJson, asMarkdown, download, fileName, fromJson } from "./export.js";
import { byId } from "./dom.js";
import { notice } from "./notices.js";

const HAS_POPOVERS = "popover" in HTMLElement.prototype; // browsers of 2023 may not

export function isMenuOpen() {
  return HAS_POPOVERS ? byId("menu").matches(":popover-open") : !byId("menu").hidden;
}

/** `current()`: the chat that is shown; `remove()` it; `add(chat)` shows one. */
export function prepareMenu(library, { current, remove, add }) {
  if (!HAS_POPOVERS) {
    byId("menu").hidden = true;
    byId("open-menu").addEventListener("click", () => (byId("menu").hidden = isMenuOpen()));
    byId("menu").hidePopover = () => (byId("menu").hidden = true);
  }
  const entry = (id, action) =>
    byId(id).addEventListener("click", () => {
      byId("menu").hidePopover();
      action();
    });
  entry("export-markdown", () =>
    download(asMarkdown(current()), fileName(current(), "md"), "text/markdown"),
  );
  entry("export-json", () =>
    download(asJson([current()]), fileName(current(), "json"), "application/json"),
  );
  entry("export-all", () =>
    download(asJson(library.newestFirst()), "edgesppo-chats.json", "application/json"),
  );
  entry("delete-chat", remove);
  entry("import", () => byId("import-file").click());
  byId("import-file").addEventListener("change", async ({ target }) => {
    for (const file of target.files) await read(file, library, add);
    target.value = "";
  });
}

/** Add the chats of a file; of one that is here already, what it has more. */
async function read(file, library, add) {
  try {
    const chats = fromJson(await file.text());
    for (const chat of chats) {
      const ours = library.find(chat.id);
      if (ours) mergeChat(ours, chat);
      add(ours ?? chat);
    }
    notice(
      "import",
      `${chats.length} ${chats.length === 1 ? "chat" : "chats"} of “${file.name}” read.`,
      { seconds: 10 },
    );
  } catch (error) {
    notice("import", `“${file.name}” was not read. ${error.message}`);
  }
}

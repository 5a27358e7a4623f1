// Asks for the API key of a server that wants one.

import { apiKey, explain } from "./api.js";
import { byId } from "./dom.js";

let asking = null; // two answers that need a key ask once
let giving = null;

/** Ask for a key until the server takes one; returns whether it did. */
export function giveKey(server) {
  giving ??= give(server).finally(() => (giving = null));
  return giving;
}

async function give(server) {
  while (server.wantsKey && (await askForKey(server))) await server.check();
  return !server.wantsKey;
}

/** Whether the person gave a key, which is then used. */
export function askForKey(server) {
  asking ??= ask(server).finally(() => (asking = null));
  return asking;
}

function ask({ fault }) {
  const dialog = byId("key");
  const had = apiKey.get() !== "";
  const unknown = "The server does not know the key that was used. Is it typed in full?";
  const hint = had ? unknown : "Whoever runs the server can give you one.";
  byId("key-hint").textContent = fault ? explain(fault) : hint;
  byId("key-field").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const key = byId("key-field").value.trim();
        const given = dialog.returnValue === "use" && key !== "";
        if (given) apiKey.set(key, byId("key-remember").checked);
        byId("key-field").value = "";
        resolve(given);
      },
      { once: true },
    );
  });
}

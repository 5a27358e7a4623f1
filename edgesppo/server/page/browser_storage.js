// What the browser stores for this page. Where it was told to store nothing, a stand-in that lasts
// as long as the page: even to look at a storage that is blocked throws.

class Memory {
  entries = new Map();

  getItem(name) {
    return this.entries.get(name) ?? null;
  }

  setItem(name, text) {
    this.entries.set(name, text);
  }

  removeItem(name) {
    this.entries.delete(name);
  }
}

function storageOf(name) {
  try {
    const storage = window[name];
    storage.getItem("");
    return storage;
  } catch {
    return new Memory();
  }
}

export const local = storageOf("localStorage");
export const session = storageOf("sessionStorage");

/** Whether what is stored is still there when the page is opened again. */
export const isKept = !(local instanceof Memory);

/** The names of all entries. */
export function names() {
  return isKept ? Object.keys(local) : [...local.entries.keys()];
}

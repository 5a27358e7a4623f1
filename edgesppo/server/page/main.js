// The page: brings its parts together.

import { Announcer } from "./announce.js";
import { Answering } from "./answering.js";
import { explain } from "./api.js";
import {
  addNode,
  canGoOn,
  isEmpty,
  newChat,
  nodeOf,
  showAlternative,
  shownPath,
  touch,
} from "./chats.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { isTouch } from "./editor.js";
import { Gauge } from "./gauge.js";
import { askForKey, giveKey } from "./key.js";
import { Library } from "./library.js";
import { prepareMenu } from "./menu.js";
import { notice } from "./notices.js";
import { LONGEST_COUNT, PromptFitter, TooLong } from "./prompt.js";
import { NOTICES, ServerState } from "./server_state.js";
import { SettingsDialog } from "./settings.js";
import { listenToKeys } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { preferences, setPreference } from "./storage.js";

const library = new Library({ changed: changedElsewhere, deleted: deletedElsewhere });
const keep = (chat) => library.keep(chat);
const running = new Map(); // chat -> the answer that comes in it
const server = new ServerState({ keyWanted });
const fitter = new PromptFitter(server);
const announcer = new Announcer();
const sidebar = new Sidebar({ open: openChat });
const settings = new SettingsDialog({ defaults: () => server.sampling, saved: settingsSaved });
const conversation = new Conversation({
  again: (node) => askAgain(node),
  goOn: (node) => begin(node),
  edit: edited,
  show: (node) => {
    showAlternative(current, node);
    keep(current);
    showChat();
    conversation.turnOf(node).focusOthers();
  },
});
const composer = new Composer({ send, stop, written });
const gauge = new Gauge(server, fitter, (found) => composer.showTokens(found));
let current = newChat(preferences().forNewChats);
let frame = 0;

function showChat() {
  document.title = current.title ? `${current.title} · edgesppo` : "edgesppo";
  byId("title").textContent = nameOf(current);
  conversation.show(current, running.get(current) ?? null);
  composer.setBusy(running.has(current));
  if (!running.has(current)) gauge.changed(current);
  showChats();
}

function showChats() {
  sidebar.show(library.newestFirst(), current, (chat) => running.has(chat));
}

function openChat(chat) {
  keep(current); // with what was being written
  current = chat;
  composer.text = chat.draft ?? "";
  setPreference("open", chat.id);
  sidebar.closeDrawer();
  showChat();
  if (!isTouch()) composer.focus();
}

function startChat() {
  if (current.nodes.length === 0) sidebar.closeDrawer();
  else openChat(newChat(preferences().forNewChats));
  composer.focus();
}

function written(text) {
  current.draft = text;
  if (!running.has(current)) gauge.changed(current);
}

/** Ask a question; returns whether it was sent. One that can never be stays where it was written. */
async function send(text) {
  const chat = current;
  const last = shownPath(chat).at(-1);
  if (server.wantsKey && !(await keyWanted())) return false;
  try {
    const signal = AbortSignal.timeout(LONGEST_COUNT);
    await fitter.fit(chat, last, { draft: text, signal });
  } catch (error) {
    if (error instanceof TooLong) {
      announcer.say(error.message);
      if (chat === current) composer.showTokens({ tooLong: error.message });
      return false;
    }
    // Else it is asked all the same, and the answer says what is the matter.
  }
  const question = addNode(chat, last, "user", text);
  chat.draft = "";
  begin(addNode(chat, question, "assistant", ""), chat);
  return true;
}

async function keyWanted() {
  const given = await giveKey(server);
  notice("key", !given && "The server wants an API key.", {
    label: "Give a key",
    action: keyWanted,
  });
  composer.focus();
  return given;
}

/** Let an answer come, or go on. Another that still comes in this chat is stopped. */
async function begin(node, chat = current) {
  while (running.has(chat)) await running.get(chat).stop();
  if (chat === current) {
    library.restore(chat); // another tab may have deleted it
    notice("deleted-elsewhere", null);
  }
  const answering = new Answering(chat, node, {
    server,
    fitter,
    changed,
    save: keep,
    askForKey: () => askForKey(server),
  });
  running.set(chat, answering);
  keep(chat);
  answering.start();
  showChat();
  conversation.showEnd();
  if (document.activeElement === document.body && !isTouch()) composer.focus();
  announcer.begin();
  await answering.finished;
  running.delete(chat);
  if (chat !== current) return showChats();
  showChat();
  const { text, note } = conversation.turnOf(node);
  announcer.tell(text, { whole: true });
  announcer.say(note.hidden ? "The answer is complete." : note.firstChild.textContent);
}

/** Draw a growing answer at most once for each picture that the screen shows. */
function changed(answering) {
  if (answering.chat !== current || frame) return;
  frame = requestAnimationFrame(() => {
    frame = 0;
    if (running.get(current) !== answering) return;
    conversation.grow(answering);
    gauge.grow(answering.pieces, answering.promptTokens);
    announcer.tell(conversation.turnOf(answering.node).text);
  });
}

function stop() {
  running.get(current)?.stop();
}

/** Say that the turns behind this one are out of sight: they stay with it, not with its successor. */
function tellWhatStays(node) {
  const shown = shownPath(current);
  const own = node.role === "user" ? 1 : 0; // its answer, which is expected to go
  if (shown.length - 1 - shown.indexOf(node) <= own) return;
  const text = "What followed stays with the text before: “‹” below the new one leads there.";
  notice("stays", text, { seconds: 15 });
}

/** A new answer beside this one; one that has no text yet is asked for again in its own place. */
function askAgain(node) {
  if (node.content) tellWhatStays(node);
  if (node.role === "user") begin(addNode(current, node, "assistant", ""));
  else if (node.content === "") begin(node);
  else begin(addNode(current, nodeOf(current, node.parent), "assistant", ""));
}

/** An edited text stands beside the old one; behind a question comes a new answer. */
function edited(node, content) {
  tellWhatStays(node);
  const other = addNode(current, nodeOf(current, node.parent), node.role, content);
  if (node.model) other.model = node.model;
  if (node.role === "user") askAgain(other);
  else {
    keep(current);
    showChat();
  }
}

function settingsSaved(chat) {
  touch(chat);
  library.add(chat);
  showChat();
}

function removeCurrent() {
  const chat = current;
  if (isEmpty(chat)) return composer.focus();
  running.get(chat)?.stop();
  library.remove(chat);
  openChat(newChat(preferences().forNewChats));
  const [label, action] = ["Undo", () => putBack(chat)];
  notice("deleted", `“${nameOf(chat)}” is deleted.`, { label, action, seconds: 15 });
}

function putBack(chat) {
  library.restore(chat);
  openChat(chat);
}

function nameOf(chat) {
  return chat.title || "New chat";
}

/** It stays in sight where it is shown, and is not saved again unless somebody wants that. */
function deletedElsewhere(chat) {
  running.get(chat)?.stop();
  const [label, action] = ["Keep it", () => putBack(chat)];
  if (chat === current)
    notice("deleted-elsewhere", `“${nameOf(chat)}” was deleted in another tab.`, { label, action });
  showChats();
}

/** Another tab wrote this chat: what it added is there now, and shown if it is newer. */
function changedElsewhere(chat) {
  if (chat === current) notice("deleted-elsewhere", null);
  const leaf = nodeOf(chat, chat.leaf) ?? chat.nodes[0];
  if (leaf && !running.has(chat)) showAlternative(chat, leaf);
  showChat();
}

function ofLast(role, action) {
  return () => {
    const turn = conversation.last(role);
    if (turn) action(turn);
  };
}

server.listen(({ state }) => {
  const fault = NOTICES[state] ?? (server.fault && explain(server.fault));
  notice("server", fault, { label: "Try now", action: () => server.check() });
  if (server.model)
    byId("about").textContent =
      `You talk to ${server.model}. What you write stays between this browser and this server.`;
  gauge.changed(current);
});

function keepAll() {
  keep(current); // with what was being written
  for (const chat of running.keys()) keep(chat);
}

addEventListener("pagehide", keepAll);
// A phone may end a page in the background without a word.
document.addEventListener("visibilitychange", () => document.hidden && keepAll());

for (const choice of byId("theme").querySelectorAll("input")) {
  choice.checked = choice.value === document.documentElement.dataset.theme;
  choice.addEventListener("change", () => {
    document.documentElement.dataset.theme = choice.value;
    setPreference("theme", choice.value);
  });
}
for (const closing of document.querySelectorAll("[data-closes]")) {
  closing.addEventListener("click", () => byId(closing.dataset.closes).close());
}
byId("new-chat").addEventListener("click", startChat);
byId("open-settings").addEventListener("click", () => settings.open(current));
byId("open-keys").addEventListener("click", () => byId("keys").showModal());
prepareMenu(library, {
  current: () => current,
  remove: removeCurrent,
  add: (chat) => {
    library.add(chat);
    openChat(chat);
  },
});
listenToKeys({
  newChat: startChat,
  toMessage: () => composer.focus(),
  regenerate: ofLast("assistant", (turn) => askAgain(turn.node)),
  goOn: ofLast("assistant", ({ node }) => {
    if (canGoOn(node)) begin(node);
    else notice("go-on", "There is nothing to add: this answer is complete.", { seconds: 5 });
  }),
  editLast: ofLast("user", (turn) => turn.edit()),
  toggleChats: () => sidebar.toggle(),
  settings: () => settings.open(current),
  escape: () => (sidebar.isOpen && sidebar.isDrawer ? sidebar.toggle(false) : stop()),
});
openChat(library.find(preferences().open) ?? current);
server.check();

// The page: brings its parts together.

import { Announcer } from "./announce.js";
import { Answering } from "./answering.js";
import { addNode, newChat, nodeOf, showAlternative, shownPath } from "./chats.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId } from "./dom.js";
import { Gauge } from "./gauge.js";
import { askForKey } from "./key.js";
import { prepareMenu } from "./menu.js";
import { notice } from "./notices.js";
import { NOTICES, ServerState } from "./server_state.js";
import { SettingsDialog } from "./settings.js";
import { listenToKeys } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { forgetChat, loadChats, preferences, saveChat, setPreference, storedChat, whenAnotherTabWrites } from "./storage.js";

const { chats, unread } = loadChats();
const running = new Map(); // chat -> the answer that comes in it
const server = new ServerState();
const announcer = new Announcer();
const sidebar = new Sidebar({ open: openChat });
const settings = new SettingsDialog({ saved: settingsSaved });
const conversation = new Conversation({
  again: (node) => askAgain(node),
  goOn: (node) => begin(node),
  edit: edited,
  show: (node) => {
    showAlternative(current, node);
    keep(current);
    showChat();
  },
});
const composer = new Composer({ send, stop, written });
const gauge = new Gauge(server, (tokens, context) => composer.showTokens(tokens, context));
let current = newChat(preferences().forNewChats);
let frame = 0;

/** Save a chat, unless there is nothing in it yet. */
function keep(chat) {
  const empty = chat.nodes.length === 0 && !chat.draft && !chat.system;
  if (empty && !chats.includes(chat)) return;
  if (!chats.includes(chat)) chats.unshift(chat);
  notice("storage", saveChat(chat));
}

function showChat() {
  document.title = current.title ? `${current.title} · edgesppo` : "edgesppo";
  byId("title").textContent = current.title || "New chat";
  conversation.show(current, running.get(current) ?? null);
  composer.setBusy(running.has(current));
  if (!running.has(current)) gauge.changed(current);
  showChats();
}

function showChats() {
  chats.sort((one, other) => (one.updated < other.updated ? 1 : -1));
  sidebar.show(chats, current, (chat) => running.has(chat));
}

function openChat(chat) {
  keepDraft();
  current = chat;
  composer.text = chat.draft ?? "";
  setPreference("open", chat.id);
  sidebar.closeDrawer();
  showChat();
  if (!sidebar.isDrawer) composer.focus();
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

function keepDraft() {
  if (chats.includes(current) || current.draft) keep(current);
}

function send(text) {
  const question = addNode(current, shownPath(current).at(-1), "user", text);
  begin(addNode(current, question, "assistant", ""));
}

/** Let an answer come, or go on. */
async function begin(node) {
  const chat = current;
  if (running.has(chat)) return;
  const answering = new Answering(chat, node, { server, changed, save: keep, askForKey });
  running.set(chat, answering);
  keep(chat);
  const run = answering.run();
  showChat();
  conversation.showEnd();
  announcer.begin();
  await run;
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
    gauge.grow(answering.pieces);
    announcer.tell(conversation.turnOf(answering.node).text);
  });
}

function stop() {
  running.get(current)?.stop();
}

/** A new answer beside this one; one that has no text yet is asked for again in its own place. */
function askAgain(node) {
  if (running.has(current)) return;
  if (node.role === "user") begin(addNode(current, node, "assistant", ""));
  else if (node.content === "") begin(node);
  else begin(addNode(current, nodeOf(current, node.parent), "assistant", ""));
}

/** An edited text stands beside the old one; behind a question comes a new answer. */
function edited(node, content) {
  if (running.has(current)) return;
  const other = addNode(current, nodeOf(current, node.parent), node.role, content);
  if (node.model) other.model = node.model;
  if (node.role === "user") askAgain(other);
  else {
    keep(current);
    showChat();
  }
}

function settingsSaved(chat) {
  keep(chat);
  showChat();
}

function removeCurrent() {
  const chat = current;
  running.get(chat)?.stop();
  chats.splice(chats.indexOf(chat) >>> 0, 1);
  forgetChat(chat);
  current = newChat(preferences().forNewChats);
  openChat(current);
  const restore = () => {
    keep(chat);
    openChat(chat);
  };
  notice("deleted", `“${chat.title || "New chat"}” is deleted.`, { label: "Undo", action: restore, seconds: 15 });
}

function ofLast(role, action) {
  return () => {
    const turn = conversation.last(role);
    if (turn && !running.has(current)) action(turn);
  };
}

server.listen(({ state }) => {
  notice("server", NOTICES[state], { label: "Try now", action: () => server.check() });
  if (server.model) byId("about").textContent = `You talk to ${server.model}. What you write stays between this browser and this server.`;
  gauge.changed(current);
});

whenAnotherTabWrites((id) => {
  const place = chats.findIndex((chat) => chat.id === id);
  const [ours, theirs] = [chats[place], storedChat(id)];
  if (running.has(ours) || ours === current && composer.text) return;
  if (ours) chats.splice(place, 1);
  if (theirs) chats.unshift(theirs);
  if (ours === current && theirs) current = theirs;
  showChat();
});

addEventListener("pagehide", () => {
  keepDraft();
  for (const chat of running.keys()) keep(chat);
});

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
prepareMenu({ chats, current: () => current, remove: removeCurrent, add: (chat) => { keep(chat); openChat(chat); } });
listenToKeys({
  newChat: startChat,
  toMessage: () => composer.focus(),
  regenerate: ofLast("assistant", (turn) => askAgain(turn.node)),
  goOn: ofLast("assistant", (turn) => begin(turn.node)),
  editLast: ofLast("user", (turn) => turn.edit()),
  toggleChats: () => sidebar.toggle(),
  settings: () => settings.open(current),
  escape: () => (sidebar.isOpen && sidebar.isDrawer ? sidebar.toggle(false) : stop()),
});
if (unread) notice("unread", `${unread} saved ${unread === 1 ? "chat" : "chats"} cannot be read by this page. Nothing of it was changed.`);
openChat(chats.find((chat) => chat.id === preferences().open) ?? current);
server.check();

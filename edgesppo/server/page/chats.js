// A chat as plain data. It is a tree: an edited question or a new answer stands beside the old one,
// so that nothing is lost, and one path through it is shown.
//
//   chat: {id, title, created, updated, system, draft, sampling, nodes, leaf}
//   node: {id, parent, role: "user" | "assistant", content, created, version, state, ...}
//
// Of two copies of a node, as two tabs may have them, the one with the greater `version` is newer.
// What a node of an answer has besides: the `model` that gave it, how many `tokens` it has and how
// many came in a second (`speed`), with which question its prompt began (`promptStart`: its id), and
// a `state`: "done", or why it is not whole, see STATES.

import { checkedSampling } from "./sampling.js";

const BROKEN_OFF =
  "This answer broke off: the connection was lost, or the page was closed. What came is kept.";

/** Why an answer is not whole. One that was "running" when it was read from the storage is not. */
export const STATES = {
  running: BROKEN_OFF,
  dropped: BROKEN_OFF,
  stopped: "You stopped this answer.",
  length: "This answer is as long as the settings, the server or the context allow.",
  empty: "The model answered with nothing.",
  failed: "", // the node's own `error` says why
  long: "", // as with "failed"; asked again, it would not fit either
};

const ROLES = ["user", "assistant"];
const TITLE_LENGTH = 60;

/** An id that nobody can have used yet; pages without TLS have no crypto.randomUUID(). */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(10)), (byte) =>
    byte.toString(36).padStart(2, "0"),
  ).join("");
}

function now() {
  return new Date().toISOString();
}

export function newChat({ system = "", sampling = {} } = {}) {
  const time = now();
  return {
    id: newId(),
    title: "",
    created: time,
    updated: time,
    system,
    draft: "",
    sampling: { ...sampling },
    nodes: [],
    leaf: null,
  };
}

export function nodeOf(chat, id) {
  return chat.nodes.find((node) => node.id === id) ?? null;
}

/** Whether an answer is cut off, so that there may be more of it. */
export function canGoOn({ content, state }) {
  return content !== "" && state !== "done" && state !== "long";
}

/** The nodes that are shown, from the first question to the last answer. */
export function shownPath(chat, leaf = chat.leaf) {
  const byId = new Map(chat.nodes.map((node) => [node.id, node]));
  const path = [];
  for (let node = byId.get(leaf); node; node = byId.get(node.parent)) path.unshift(node);
  return path;
}

/** A node and its alternatives, oldest first. */
export function alternatives(chat, node) {
  return chat.nodes.filter((other) => other.parent === node.parent);
}

/** Add a node behind another, null for a first question, and show it. */
export function addNode(chat, parent, role, content) {
  const node = {
    id: newId(),
    parent: parent?.id ?? null,
    role,
    content,
    created: now(),
    version: 0,
    state: "done",
  };
  chat.nodes.push(node);
  chat.leaf = node.id;
  if (!chat.title && role === "user") chat.title = titleOf(content);
  touch(chat);
  return node;
}

/** Show this alternative, and of what follows it the newest. */
export function showAlternative(chat, node) {
  const newestAfter = (one) => chat.nodes.findLast((other) => other.parent === one.id);
  let leaf = node;
  while (newestAfter(leaf)) leaf = newestAfter(leaf);
  chat.leaf = leaf.id;
}

/** Whether nothing was written in it yet. */
export function isEmpty(chat) {
  return chat.nodes.length === 0 && !chat.draft;
}

/** Take over what another copy of a chat has more, and its settings if they are newer. */
export function mergeChat(chat, other) {
  if (other.updated > chat.updated) {
    const { title, system, sampling, updated } = other;
    Object.assign(chat, { title, system, sampling, updated });
  }
  for (const node of other.nodes) {
    const ours = nodeOf(chat, node.id);
    if (!ours) chat.nodes.push(node);
    else if (isNewer(node, ours)) Object.assign(ours, { error: undefined }, node);
  }
}

function isNewer(node, ours) {
  const longer = node.content.length > ours.content.length;
  return node.version > ours.version || (node.version === ours.version && longer);
}

export function touch(chat) {
  chat.updated = now();
}

function titleOf(question) {
  const line = question.trim().split("\n")[0];
  return line.length <= TITLE_LENGTH ? line : `${line.slice(0, TITLE_LENGTH - 1).trimEnd()}…`;
}

/** A chat as it came from a file or from the browser's storage, checked; throws where it is none. */
export function checkedChat(value) {
  if (typeof value !== "object" || value === null || !Array.isArray(value.nodes))
    throw new TypeError("This is not a chat.");
  const nodes = value.nodes.map(checkedNode);
  const places = new Map(nodes.map((node, place) => [node.id, place]));
  if (places.size !== nodes.length) throw new TypeError("Two of its messages have one id.");
  for (const [place, node] of nodes.entries()) {
    const before = node.parent === null || places.get(node.parent) < place;
    if (!before) throw new TypeError("One of its messages answers one that is not before it.");
  }
  const chat = {
    ...newChat(),
    nodes,
    leaf: places.has(value.leaf) ? value.leaf : (nodes.at(-1)?.id ?? null),
  };
  for (const name of ["id", "title", "created", "updated", "system", "draft"]) {
    if (typeof value[name] === "string") chat[name] = value[name];
  }
  chat.sampling = checkedSampling(value.sampling);
  return chat;
}

function checkedNode(value) {
  const texts = [value?.id, value?.content];
  const known =
    ROLES.includes(value?.role) && (value.parent === null || typeof value.parent === "string");
  if (!known || texts.some((text) => typeof text !== "string"))
    throw new TypeError("One of its messages cannot be read.");
  const { id, parent, role, content } = value;
  const created = String(value.created ?? "");
  const node = { id, parent, role, content, created, version: 0, state: "done" };
  if (Object.hasOwn(STATES, value.state)) node.state = value.state;
  for (const name of ["model", "error", "promptStart"])
    if (typeof value[name] === "string") node[name] = value[name];
  for (const name of ["version", "speed", "tokens"])
    if (Number.isFinite(value[name])) node[name] = value[name];
  return node;
}

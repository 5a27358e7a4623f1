// What of a chat is sent for an answer: its turns without those that got none, and without the
// oldest ones where all of them do not fit into what the model can read at once.
//
// Once turns are left out, room for more is made at the same time, and the next prompts begin where
// this one did: the model finds their beginning in its cache. The answer's node keeps where:
// `promptStart`, the id of the first question that the model was sent.

import { countText, countTokens } from "./api.js";
import { shownPath } from "./chats.js";

const ANSWER_SHARE = 4; // at least one part in so many of the context is for the answer
const TRIMMED_SHARE = 2; // a prompt without some turns takes one part in so many of the room
const MESSAGE_TOKENS = 10; // more than there are around a message, and around all of them
const KEPT = 50; // counts

/** The last question alone is more than the model can read. */
export class TooLong extends Error {
  constructor(tokens, most, { goesOn, system }) {
    super(
      goesOn
        ? `There is no room to go on: this question and its answer fill the context of the model.`
        : `This message${system ? " with the system text" : ""} is too long: ` +
            (tokens
              ? `${tokens.toLocaleString()} tokens, ${most.toLocaleString()} fit.`
              : `${most.toLocaleString()} tokens fit.`),
    );
    this.name = "TooLong";
    this.tokens = tokens;
  }
}

/**
 * The turns that lead to a node, and to a text that is still being written. Each has the `id` of
 * its question and its `messages`. A question that got no answer is only there as the last one.
 */
export function turnsOf(chat, node, draft = "") {
  const turns = [];
  for (const { id, role, content } of node ? shownPath(chat, node.id) : []) {
    if (role === "user" || turns.length === 0) turns.push({ id, messages: [] });
    if (content !== "") turns.at(-1).messages.push({ role, content });
  }
  if (draft.trim()) turns.push({ id: null, messages: [{ role: "user", content: draft }] });
  return turns.filter((turn) => turn === turns.at(-1) || isAnswered(turn));
}

function isAnswered({ messages }) {
  return messages.some(({ role }) => role === "assistant");
}

function placeOf(turns, start) {
  return turns.findIndex(({ id }) => id === start);
}

/** How many of the turns that lead to a node its newest prompt left out. */
export function leftOut(chat, node) {
  const starts = node ? shownPath(chat, node.id).map(({ promptStart }) => promptStart) : [];
  const start = starts.findLast(Boolean);
  const place = placeOf(turnsOf(chat, node), start);
  return { start: place > 0 ? start : null, turns: Math.max(place, 0) };
}

/** Milliseconds, before a question is sent without having been counted. */
export const LONGEST_COUNT = 3_000;

export class PromptFitter {
  constructor(server) {
    this.server = server;
    this.counts = new Map(); // by the JSON of the model, its context and the messages
  }

  /**
   * The `messages` to send for a node, or for a text that is being written behind it; the id of
   * their first question (`start`) and how many turns `more` than before are left out; and, if they
   * were counted, how many `tokens` they are: they are unless they fit in any case, with `exact`
   * always. Throws TooLong, and what the server says.
   */
  async fit(chat, node, { draft = "", exact = false, signal } = {}) {
    const turns = turnsOf(chat, node, draft);
    const from = (place) => messagesFrom(chat, turns, place);
    const count = (place) => this.count(from(place), signal);
    const { context } = this.server;
    const room = context - this.answerRoom(chat);
    const allFit = context && mostTokens(from(0)) <= room; // so that a larger model reads all again
    const before = allFit ? null : leftOut(chat, node).start;
    const kept = before ? Math.max(placeOf(turns, before), 0) : 0;
    const found = (place, tokens = null) => ({
      messages: from(place),
      start: turns[place]?.id ?? null,
      more: place - kept,
      tokens,
    });
    if (!context || turns.length === 0) return found(kept);
    if (!exact && mostTokens(from(kept)) <= room) return found(kept);
    let tokens = await count(kept);
    if (tokens <= room) return found(kept, tokens);
    const place = await firstFitting(count, kept + 1, turns.length - 1, room / TRIMMED_SHARE);
    tokens = await count(place);
    if (tokens < context) return found(place, tokens);
    throw await this.tooLong(chat, turns.at(-1).messages, signal);
  }

  /** What to send for a node where nothing can be counted: what its newest prompt began with. */
  uncounted(chat, node) {
    const turns = turnsOf(chat, node);
    const kept = Math.max(placeOf(turns, leftOut(chat, node).start), 0);
    const messages = messagesFrom(chat, turns, kept);
    return { messages, start: turns[kept]?.id ?? null, more: 0, tokens: null };
  }

  /** How many tokens an answer should have room for, at least. */
  answerRoom(chat) {
    const longest = chat.sampling.max_tokens ?? this.server.sampling?.max_tokens ?? Infinity;
    return Math.min(longest, Math.floor(this.server.context / ANSWER_SHARE));
  }

  /** How many tokens the prompt of these messages has; Infinity if the model cannot read it. */
  async count(messages, signal) {
    const { model, context } = this.server;
    const key = JSON.stringify([model, context, messages]);
    const known = this.counts.get(key);
    if (known !== undefined) return known;
    const tokens = await countTokens(messages, signal);
    this.counts.set(key, tokens);
    if (this.counts.size > KEPT) this.counts.delete(this.counts.keys().next().value);
    return tokens;
  }

  /** The error for a turn that does not fit even alone, with its number of tokens. */
  async tooLong(chat, messages, signal) {
    const goesOn = messages.length > 1;
    const system = chat.system.trim();
    const text = [system, messages[0].content.trim()].filter(Boolean).join("\n\n");
    const around = async () =>
      (await this.count([{ role: "user", content: "a" }], signal)) - (await countText("a", signal));
    const tokens = goesOn ? 0 : await countText(text, signal).catch(() => 0);
    const all = tokens && tokens + (await around());
    return new TooLong(all, this.server.context - 1, { goesOn, system });
  }
}

function messagesFrom(chat, turns, place) {
  const messages = turns.slice(place).flatMap((turn) => turn.messages);
  if (chat.system.trim()) messages.unshift({ role: "system", content: chat.system });
  return messages;
}

/** The first place from which there are at most so many tokens; the last one, if there is none. */
async function firstFitting(count, first, last, room) {
  let [low, high] = [Math.min(first, last), last];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((await count(middle)) <= room) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** At least as many tokens as these messages are: no token is shorter than a byte. */
function mostTokens(messages) {
  const bytes = messages.map(({ content }) => new TextEncoder().encode(content).length);
  return bytes.reduce((sum, length) => sum + length + MESSAGE_TOKENS, MESSAGE_TOKENS);
}

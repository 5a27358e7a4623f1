// The chat that is shown: its turns in order, and where the page is scrolled to.

import { shownPath } from "./chats.js";
import { byId } from "./dom.js";
import { Turn } from "./turn.js";

const NEAR_THE_END = 60; // pixels

export class Conversation {
  constructor(actions) {
    this.actions = actions;
    this.element = byId("conversation");
    this.scroller = byId("scroller");
    this.toEnd = byId("to-end");
    this.turns = new Map();
    this.follows = true; // whether the end stays in sight while an answer grows
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.toEnd.addEventListener("click", () => this.showEnd());
  }

  /** Show a chat, or what changed in it. `answering` is the answer that comes in it, if one does. */
  show(chat, answering = null) {
    const other = chat !== this.chat;
    if (other) this.turns.clear();
    this.chat = chat;
    const path = shownPath(chat);
    const turns = path.map((node) => this.turnOf(node));
    const elements = turns.map((turn) => turn.element);
    const same =
      elements.length === this.element.children.length &&
      elements.every((element, place) => element === this.element.children[place]);
    if (!same) this.element.replaceChildren(...elements);
    for (const turn of turns) turn.update(turn.node === answering?.node ? answering : null);
    if (other) this.showEnd();
  }

  turnOf(node) {
    let turn = this.turns.get(node.id);
    if (!turn || turn.node !== node) {
      turn = new Turn(this.chat, node, this.actions);
      this.turns.set(node.id, turn);
    }
    return turn;
  }

  /** Show how far the answer is that comes. */
  grow(answering) {
    this.turns.get(answering.node.id)?.update(answering);
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.updateButton();
  }

  showEnd() {
    this.follows = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.updateButton();
  }

  scrolled() {
    this.follows = this.fromEnd() < NEAR_THE_END;
    this.updateButton();
  }

  fromEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  updateButton() {
    this.toEnd.hidden = this.follows || this.fromEnd() < 2 * NEAR_THE_END;
  }

  /** The newest turn of a role, or null. */
  last(role) {
    const node = shownPath(this.chat).findLast((one) => one.role === role);
    return node ? this.turns.get(node.id) : null;
  }
}

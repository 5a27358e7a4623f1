// The chat that is shown: its turns in order, and where the page is scrolled to.

import { nodeOf, shownPath } from "./chats.js";
import { byId, el } from "./dom.js";
import { leftOut } from "./prompt.js";
import { Turn } from "./turn.js";

const NEAR_THE_END = 60; // pixels

export class Conversation {
  constructor(actions) {
    this.actions = actions;
    this.element = byId("conversation");
    this.scroller = byId("scroller");
    this.toEnd = byId("to-end");
    this.cut = el("p", { className: "cut" }); // below the turns that are left out
    this.turns = new Map(); // by their nodes' ids; also of other chats, for what is edited there
    this.follows = true; // whether the end stays in sight while an answer grows
    this.scroller.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.toEnd.addEventListener("click", () => this.showEnd());
  }

  /** Show a chat, or what changed in it. `answering` is the answer that comes in it, if one does. */
  show(chat, answering = null) {
    const other = chat !== this.chat;
    this.chat = chat;
    const turns = shownPath(chat).map((node) => this.turnOf(node));
    this.cut.remove();
    const { children } = this.element;
    let same = 0; // what stays is not touched: something in it may be selected, or have the focus
    while (same < turns.length && turns[same].element === children[same]) same += 1;
    while (children.length > same) this.element.lastChild.remove();
    this.element.append(...turns.slice(same).map((turn) => turn.element));
    for (const turn of turns) turn.update(turn.node === answering?.node ? answering : null);
    this.showCut();
    if (other) this.showEnd();
  }

  /** Above the first turn that the newest prompt has, say how many it leaves out. */
  showCut() {
    const { start, turns } = leftOut(this.chat, nodeOf(this.chat, this.chat.leaf));
    const first = start && this.turns.get(start)?.element;
    if (!first) return this.cut.remove();
    const text =
      turns === 1
        ? "The turn above no longer fits and is left out."
        : `The ${turns} turns above no longer fit and are left out.`;
    if (this.cut.textContent !== text) this.cut.textContent = text;
    if (first.previousSibling !== this.cut) first.before(this.cut);
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
    if (answering.node.promptStart !== this.cutAt) this.showCut();
    this.cutAt = answering.node.promptStart;
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

// What a screen reader is told of an answer that comes: its paragraphs, each when it is whole.
// An answer that is read out word by word as it comes cannot be understood.

import { byId, el } from "./dom.js";

const KEPT = 30; // what was said long ago need not stay

export class Announcer {
  constructor() {
    this.live = byId("live");
    this.told = 0;
  }

  say(text) {
    this.live.append(el("p", {}, text));
    while (this.live.children.length > KEPT) this.live.firstChild.remove();
  }

  begin() {
    this.told = 0;
    this.say("The answer begins.");
  }

  /** Tell what of this element is whole by now: all blocks but the last, or all at the end. */
  tell(element, { whole = false } = {}) {
    const blocks = [...element.children].slice(0, whole ? undefined : -1);
    for (const block of blocks.slice(this.told)) this.say(spoken(block));
    this.told = Math.max(this.told, blocks.length);
  }
}

/** A block's text, its lines and cells apart; of code, what can be read out of it. */
function spoken(block) {
  return block.matches(".code")
    ? `Code: ${block.querySelector("pre").textContent}`
    : block.innerText;
}

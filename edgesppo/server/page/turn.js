// One question or answer on the page, with what can be done with it.

import { STATES, alternatives, canGoOn } from "./chats.js";
import { copyText } from "./clipboard.js";
import { button, el } from "./dom.js";
import { openEditor } from "./editor.js";
import { clearMarkdown, showMarkdown } from "./render.js";

export class Turn {
  /** `actions`: edit, regenerate, goOn, show, each with the node. */
  constructor(chat, node, actions) {
    Object.assign(this, { chat, node, actions, editing: false });
    this.isAnswer = node.role === "assistant";
    this.heading = el("h2", { className: "unseen" });
    this.text = el("div", { className: this.isAnswer ? "prose" : "text" });
    this.note = el("div", { className: "note", hidden: true });
    this.bar = el("div", { className: "actions", role: "group" });
    const parts = [this.heading, this.text, this.note, this.bar];
    this.element = el(
      "article",
      { className: `turn ${node.role}`, id: `turn-${node.id}` },
      ...parts,
    );
  }

  /** Show the node as it is now; `answering` while its answer comes. */
  update(answering = null) {
    if (this.editing) return;
    const { node } = this;
    this.heading.textContent = this.isAnswer
      ? `${answering || node.content ? "Answer" : "No answer"}${node.model ? ` of ${node.model}` : ""}`
      : "You";
    this.element.classList.toggle("running", answering !== null);
    if (answering?.waiting) this.showWaiting(answering.waiting);
    else if (this.isAnswer) showMarkdown(this.text, node.content, { partial: answering !== null });
    else this.text.textContent = node.content;
    this.updateNote(answering);
    this.updateBar(answering);
  }

  /** Below what there is of an answer, what is waited for. */
  showWaiting(reason) {
    clearMarkdown(this.text);
    showMarkdown(this.text, this.node.content);
    this.text.append(el("p", { className: "waiting" }, reason));
  }

  updateNote(answering) {
    const { node } = this;
    const note = answering === null ? node.error || STATES[node.state] : "";
    const key = `${note} ${node.content === ""}`;
    if (this.noteKey === key) return;
    this.noteKey = key;
    this.note.hidden = !note;
    const next = canGoOn(node)
      ? button("Continue", () => this.actions.goOn(node))
      : node.state !== "long" && button("Ask again", () => this.actions.again(node));
    this.note.replaceChildren(...(note ? [el("span", {}, note), next].filter(Boolean) : []));
  }

  updateBar(answering) {
    const key = JSON.stringify([
      answering !== null,
      alternatives(this.chat, this.node).length,
      this.node.state,
    ]);
    if (this.barKey !== key) {
      this.barKey = key;
      this.figures = el("span", { className: "figures" });
      this.bar.replaceChildren(...(answering ? [] : this.buttons()), this.figures);
      this.bar.setAttribute("aria-label", this.isAnswer ? "This answer" : "This question");
    }
    this.figures.textContent = this.isAnswer ? figures(this.node, answering) : "";
  }

  buttons() {
    const { node, actions } = this;
    const copy = button("Copy", () => copyText(node.content, copy));
    const edit = button("Edit", () => this.edit());
    const others = this.otherButtons();
    this.bar.classList.toggle("several", others.length > 0);
    if (!this.isAnswer) return [edit, copy, ...others];
    if (!node.content) return others;
    const again = button("Regenerate", () => actions.again(node));
    return [copy, again, edit, ...others];
  }

  /** To the alternatives of this node, where an edit or a new answer made some. */
  otherButtons() {
    const all = alternatives(this.chat, this.node);
    if (all.length < 2) return [];
    const place = all.indexOf(this.node);
    const to = (label, name, other) =>
      button(label, () => this.actions.show(other), {
        "aria-label": name,
        className: "other",
        disabled: !other,
      });
    return [
      to("‹", "The one before", all[place - 1]),
      el("span", {}, `${place + 1} of ${all.length}`),
      to("›", "The next one", all[place + 1]),
    ];
  }

  /** Give the focus to what leads from this alternative to the others. */
  focusOthers() {
    this.bar.querySelector(".other:not(:disabled)")?.focus();
  }

  /** Write the text anew, in its place. */
  edit() {
    if (this.editing) return;
    this.editing = true;
    this.element.classList.add("editing");
    const done = (content) => {
      this.editing = false;
      this.element.classList.remove("editing");
      clearMarkdown(this.text);
      this.update();
      if (content !== null && content !== this.node.content) this.actions.edit(this.node, content);
      else this.bar.querySelector("button")?.focus();
    };
    openEditor(this.text, this.node.content, this.isAnswer ? "Keep" : "Ask this", done);
  }
}

/** How long the answer is, and how fast it came; before that, how long one has been waiting. */
function figures(node, answering) {
  if (answering?.reading > 2) return `reading the chat for ${Math.floor(answering.reading)} s`;
  const speed = answering ? answering.speed : node.speed;
  const tokens = answering ? answering.before + answering.pieces : node.tokens;
  const parts = [];
  if (tokens > 0)
    parts.push(
      `${answering ? "about " : ""}${tokens.toLocaleString()} ${tokens === 1 ? "token" : "tokens"}`,
    );
  if (Number.isFinite(speed)) parts.push(`${speed.toFixed(1)} tokens/s`);
  return parts.join(" · ");
}

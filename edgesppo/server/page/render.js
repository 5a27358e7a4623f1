// An answer's Markdown as elements. Each is made by name and filled with text: whatever a model
// writes, the browser is never given markup to parse.

import { copyText } from "./clipboard.js";
import { button, el } from "./dom.js";
import { highlight } from "./highlight.js";
import { parseInline } from "./inline.js";
import { parseMarkdown } from "./markdown.js";

// So many blocks at the end of a text can still become others as it grows: "# a" ends the paragraph
// before it, "#a" goes on with it.
const UNSETTLED = 2;

// Of each element that shows a text: a key for each of its blocks, and how much of the text will
// stay as it is: `settled`, which made `count` of them.
const shown = new WeakMap();
const NOTHING = { keys: [], settled: "", count: 0 };

/**
 * Show a text in an element. Blocks that are there already stay as they are, so that what a person
 * selected, or scrolled to, in a growing answer is not lost; and only the end of one that grows is
 * read again. `partial`: more of it is to come.
 */
export function showMarkdown(element, text, { partial = false } = {}) {
  let { keys, settled, count } = shown.get(element) ?? NOTHING;
  if (!text.startsWith(settled)) ({ settled, count } = NOTHING);
  const rest = text.slice(settled.length);
  const blocks = parseMarkdown(rest);
  const isOpen = (block) => partial && block === blocks.at(-1);
  const now = [
    ...keys.slice(0, count),
    ...blocks.map((block) => `${isOpen(block)} ${block.source}`),
  ];
  let same = count;
  while (same < keys.length && keys[same] === now[same]) same += 1;
  while (element.childNodes.length > same) element.lastChild.remove();
  for (const block of blocks.slice(same - count)) element.append(blockNode(block, isOpen(block)));
  if (blocks.length > UNSETTLED) {
    settled += rest.split("\n", blocks.at(-UNSETTLED).line).join("\n") + "\n";
    count += blocks.length - UNSETTLED;
  }
  shown.set(element, { keys: now, settled, count });
}

/** Take away what is shown, to show something else. */
export function clearMarkdown(element) {
  shown.delete(element);
  element.replaceChildren();
}

function blockNode(block, partial) {
  switch (block.type) {
    case "heading": // below those of the page itself
      return inline(
        el(`h${Math.min(block.level + 2, 6)}`, { className: `h${block.level}` }),
        block.text,
        partial,
      );
    case "rule":
      return el("hr");
    case "code":
      return codeNode(block);
    case "quote":
      return el("blockquote", {}, ...blockNodes(block.blocks, partial));
    case "list":
      return listNode(block, partial);
    case "table":
      return tableNode(block, partial);
    default:
      return inline(el("p"), block.text, partial);
  }
}

function blockNodes(blocks, partial) {
  return blocks.map((block) => blockNode(block, partial && block === blocks.at(-1)));
}

function codeNode({ language, text }) {
  const code = el("code");
  for (const [kind, piece] of highlight(text, language)) {
    code.append(kind ? el("span", { className: kind }, piece) : piece);
  }
  const label = language || "code";
  const copy = button("Copy", () => copyText(text, copy), {
    className: "copy",
    "aria-label": `Copy ${label}`,
  });
  return el(
    "figure",
    { className: "code" },
    el("figcaption", {}, el("span", {}, label), copy),
    el("pre", { tabIndex: 0, "aria-label": label }, code),
  );
}

function listNode({ ordered, start, loose, items }, partial) {
  const list = el(ordered ? "ol" : "ul", ordered && start !== 1 ? { start } : {});
  for (const item of items) {
    const open = partial && item === items.at(-1);
    const element = el("li");
    if (item.task !== null) {
      element.className = "task";
      const label = item.task ? "done" : "to do";
      element.append(
        el("input", { type: "checkbox", checked: item.task, disabled: true, "aria-label": label }),
        " ",
      );
    }
    for (const block of item.blocks) {
      const last = open && block === item.blocks.at(-1);
      const bare = !loose && block.type === "paragraph";
      if (bare) inline(element, block.text, last);
      else element.append(blockNode(block, last));
    }
    list.append(element);
  }
  return list;
}

function tableNode({ head, align, rows }, partial) {
  const row = (tag, cells, last) =>
    el(
      "tr",
      {},
      ...cells.map((cell, column) => {
        const scope = tag === "th" ? { scope: "col" } : {};
        return inline(el(tag, { className: align[column], ...scope }), cell, last);
      }),
    );
  const body = rows.map((cells) => row("td", cells, partial && cells === rows.at(-1)));
  const table = el("table", {}, el("thead", {}, row("th", head, false)), el("tbody", {}, ...body));
  return el(
    "div",
    { className: "table", tabIndex: 0, role: "group", "aria-label": "Table" },
    table,
  );
}

function inline(element, text, partial) {
  element.append(...parseInline(text, { partial }).map(inlineNode));
  return element;
}

function inlineNode(node) {
  if (typeof node === "string") return node;
  const children = node.children.map(inlineNode);
  if (node.type === "break") return el("br");
  if (node.type !== "link") return el(node.type, {}, ...children);
  if (!node.address) return el("span", {}, ...children);
  const link = {
    href: node.address,
    title: node.address,
    target: "_blank",
    rel: "noopener noreferrer",
  };
  const element = el("a", link, ...children);
  if (pretends(element)) element.append(` (${element.host})`);
  return element;
}

/** Whether the text of a link looks like an address, but of another place than it leads to. */
function pretends({ textContent, host }) {
  const address = /https?:\/\/|www\.|\w\.(?:com|edu|gov|io|net|org)\b/i;
  return host !== "" && address.test(textContent) && !textContent.includes(host);
}

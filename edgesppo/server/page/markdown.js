// Markdown to a tree of plain objects: the blocks. What is inside of a line is inline.js's.
//
// It follows CommonMark with GitHub's tables, task lists and strikethrough, but never knows HTML:
// a tag is text. A list may be indented by two columns, as models write it. Nesting has an end, so
// that no answer, however odd, takes long or overflows the stack.

const MAX_DEPTH = 12;

const BLANK = /^[ \t]*$/;
const FENCE = /^( *)(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?=[ \t]|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:( +)(?=\S)|(?=\s*$))/;
const UNDERLINE = /^ {0,3}(=+|-+)[ \t]*$/;
const CODE_INDENT = /^ {4,}\S/;

/** The blocks of a text; each has its `source`, and the `line` that it begins in. */
export function parseMarkdown(text) {
  return parseBlocks(text.split("\n").map(untabbed), 0);
}

/** A line without the "\r" of other systems at its end; tabs at its beginning are columns. */
function untabbed(text) {
  const line = text.endsWith("\r") ? text.slice(0, -1) : text;
  const indent = /^[ \t]*/.exec(line)[0];
  if (!indent.includes("\t")) return line;
  let columns = 0;
  for (const character of indent) columns += character === "\t" ? 4 - (columns % 4) : 1;
  return " ".repeat(columns) + line.slice(indent.length);
}

function parseBlocks(lines, depth) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (BLANK.test(lines[at])) {
      at += 1;
      continue;
    }
    const [block, next] = parseBlock(lines, at, depth);
    block.source = lines.slice(at, next).join("\n");
    block.line = at;
    block.blankAfter = next < lines.length && BLANK.test(lines[next]);
    blocks.push(block);
    at = next;
  }
  return blocks;
}

/** The block that begins in this line, and the line after it. */
function parseBlock(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return fencedCode(lines, at);
  if (CODE_INDENT.test(line) && !ITEM.test(line)) return indentedCode(lines, at);
  if (HEADING.test(line)) return [heading(line), at + 1];
  if (RULE.test(line)) return [{ type: "rule" }, at + 1];
  if (depth < MAX_DEPTH && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(line)) return list(lines, at, depth);
  return table(lines, at) ?? paragraph(lines, at);
}

/** Whether a line ends the paragraph before it. */
function interrupts(line) {
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const item = ITEM.exec(line);
  return item !== null && item[3] !== undefined && /^(?:[-*+]|1[.)])$/.test(item[2]);
}

function fencedCode(lines, at) {
  const [, indent, fence, info] = FENCE.exec(lines[at]);
  const content = [];
  let next = at + 1;
  while (next < lines.length && !closes(lines[next], fence)) {
    content.push(withoutIndent(lines[next], indent.length));
    next += 1;
  }
  const open = next >= lines.length;
  const language = info.trim().split(/\s/)[0];
  return [{ type: "code", language, text: content.join("\n"), open }, open ? next : next + 1];
}

function closes(line, fence) {
  const mark = line.trim();
  return mark.length >= fence.length && mark === fence[0].repeat(mark.length);
}

function indentedCode(lines, at) {
  let next = at;
  while (next < lines.length && (CODE_INDENT.test(lines[next]) || BLANK.test(lines[next])))
    next += 1;
  while (BLANK.test(lines[next - 1])) next -= 1;
  const text = lines
    .slice(at, next)
    .map((line) => withoutIndent(line, 4))
    .join("\n");
  return [{ type: "code", language: "", text, open: false }, next];
}

function withoutIndent(line, columns) {
  let cut = 0;
  while (cut < columns && line[cut] === " ") cut += 1;
  return line.slice(cut);
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

function heading(line) {
  const [mark, hashes] = HEADING.exec(line);
  const text = line
    .slice(mark.length)
    .trim()
    .replace(/(?:^|[ \t])#+$/, "");
  return { type: "heading", level: hashes.length, text };
}

function quote(lines, at, depth) {
  const inner = [];
  let next = at;
  while (next < lines.length) {
    const line = lines[next];
    const lazy = !BLANK.test(line) && !BLANK.test(inner.at(-1) ?? "") && !interrupts(line);
    if (!QUOTE.test(line) && !lazy) break;
    inner.push(line.replace(QUOTE, ""));
    next += 1;
  }
  return [{ type: "quote", blocks: parseBlocks(inner, depth + 1) }, next];
}

/** Two marks that count one list: the same bullet, or numbers with the same sign behind them. */
function kindOf(mark) {
  return /\d/.test(mark) ? mark.at(-1) : mark;
}

function list(lines, at, depth) {
  const mark = ITEM.exec(lines[at])[2];
  const base = indentOf(lines[at]);
  const items = [];
  let next = at;
  let loose = false;
  for (let ended = false; !ended;) {
    const [inner, end] = itemLines(lines, next);
    const item = taskItem(inner, depth);
    items.push(item);
    loose ||= item.blocks.slice(0, -1).some((block) => block.blankAfter);
    let after = end;
    while (after < lines.length && BLANK.test(lines[after])) after += 1;
    ended = after >= lines.length || !goesOn(lines[after], mark, base);
    loose ||= !ended && after > end;
    next = ended ? end : after;
  }
  const ordered = /\d/.test(mark);
  const start = ordered ? Number.parseInt(mark, 10) : null;
  return [{ type: "list", ordered, start, loose, items }, next];
}

/** Whether this line is the next item of the list. */
function goesOn(line, mark, base) {
  const found = ITEM.exec(line);
  const same = found !== null && kindOf(found[2]) === kindOf(mark);
  return same && indentOf(line) < base + 2 && !RULE.test(line);
}

/** The lines of one item without their indent, and the line after it. */
function itemLines(lines, at) {
  const found = ITEM.exec(lines[at]);
  const base = found[1].length;
  const content = base + found[2].length + Math.min(found[3]?.length ?? 1, 4);
  const inner = [lines[at].slice(content)];
  let next = at + 1;
  while (next < lines.length) {
    const line = lines[next];
    const blank = BLANK.test(line);
    const before = inner.at(-1);
    if (blank && BLANK.test(before) && inner.length === 1) break;
    const lazy = !blank && !BLANK.test(before) && !interrupts(line) && !ITEM.test(line);
    if (!blank && indentOf(line) < base + 2 && !lazy) break;
    inner.push(withoutIndent(line, content));
    next += 1;
  }
  while (inner.length > 1 && BLANK.test(inner.at(-1))) {
    inner.pop();
    next -= 1;
  }
  return [inner, next];
}

function taskItem(inner, depth) {
  const task = /^\[([ xX])\][ \t]+(?=\S)/.exec(inner[0]);
  if (task) inner[0] = inner[0].slice(task[0].length);
  return { task: task ? task[1] !== " " : null, blocks: parseBlocks(inner, depth + 1) };
}

/** The cells of a row: a "|" parts them, unless a backslash is before it. */
function cells(line) {
  const parts = line.trim().split(/(?<!\\)\|/);
  if (parts[0].trim() === "") parts.shift();
  if (parts.length && parts.at(-1).trim() === "") parts.pop();
  return parts.map((part) => part.trim().replaceAll("\\|", "|"));
}

function table(lines, at) {
  const [line, under] = [lines[at], lines[at + 1]];
  if (under === undefined || !line.includes("|") || !under.includes("-")) return null;
  const head = cells(line);
  const marks = cells(under);
  if (marks.length !== head.length || !marks.every((mark) => /^:?-+:?$/.test(mark))) return null;
  const align = marks.map((mark) =>
    mark.endsWith(":") ? (mark[0] === ":" ? "center" : "right") : "",
  );
  const rows = [];
  let next = at + 2;
  while (next < lines.length && !BLANK.test(lines[next]) && !interrupts(lines[next])) {
    const row = cells(lines[next]);
    rows.push(head.map((_, column) => row[column] ?? ""));
    next += 1;
  }
  return [{ type: "table", head, align, rows }, next];
}

function paragraph(lines, at) {
  const content = [lines[at].trimStart()];
  let next = at + 1;
  while (next < lines.length && !BLANK.test(lines[next])) {
    const under = UNDERLINE.exec(lines[next]);
    if (under) {
      const level = under[1][0] === "=" ? 1 : 2;
      return [{ type: "heading", level, text: content.join("\n").trim() }, next + 1];
    }
    if (interrupts(lines[next]) || table(lines, next)) break;
    content.push(lines[next].trimStart());
    next += 1;
  }
  return [{ type: "paragraph", text: content.join("\n").trimEnd() }, next];
}

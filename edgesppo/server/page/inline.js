// Markdown inside of a paragraph: emphasis, code, links, line breaks, as a tree of plain objects.
//
// A node is a string or {type, children}. Only http, https and mailto become links; whatever else
// an answer wants to be one (javascript:, data:, a path on this server) stays the text that it is.
// An image is a link to it: nothing is fetched that nobody asked for.

import { linkTarget, safeAddress, withoutTail } from "./address.js";

const MAX_DEPTH = 12; // of emphasis within emphasis
const MAX_OPEN = 100; // marks and brackets that may wait for their other half

const ESCAPED = /\\([!-/:-@[-`{-~])/y;
const ENTITY = /&(amp|lt|gt|quot|apos|nbsp);/y;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00A0" };
const ANGLE_LINK = /<((?:https?:|mailto:)[^\s<>]{1,2000})>/y;
const BARE_LINK = /https?:\/\/[^\s<>"`\\]{1,2000}/y;
const SPACES = / */y;
const PLAIN = /[^\\&<`*_~!\[\]\n h]+|[h ]/y;
const WORD = /[\p{L}\p{N}]/u;

/** The nodes of a text. `partial`: more of it is to come, so what is open is taken as closed. */
export function parseInline(text, { partial = false } = {}) {
  return new Inline(text, partial).parse();
}

class Inline {
  constructor(text, partial) {
    this.text = text;
    this.partial = partial;
    this.at = 0;
    this.out = [];
    this.open = []; // marks and brackets in `out` that wait for their other half
    this.ticks = null; // where runs of "`" are, by their length
  }

  parse() {
    while (this.at < this.text.length) {
      if (!this.special()) this.put(this.match(PLAIN)?.[0] ?? this.text[this.at++]);
    }
    if (this.partial) this.closeAll();
    return this.out;
  }

  /** Take what begins here, if it is more than a plain character. */
  special() {
    switch (this.text[this.at]) {
      case "\\":
        return this.lineBreak(1) || this.putMatch(ESCAPED, ([, character]) => character);
      case "&":
        return this.putMatch(ENTITY, ([, name]) => ENTITIES[name]);
      case "<":
        return this.putMatch(ANGLE_LINK, ([, address]) => link(address, [address]));
      case "h":
        return this.bareLink();
      case " ":
      case "\n":
        return this.lineBreak(0);
      case "`":
        return this.code();
      case "*":
      case "_":
      case "~":
        return this.mark();
      case "!":
        return this.text[this.at + 1] === "[" && this.bracket("![");
      case "[":
        return this.bracket("[");
      case "]":
        return this.closeBracket();
      default:
        return false;
    }
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  putMatch(pattern, node) {
    const found = this.match(pattern);
    if (found) this.put(node(found));
    return found !== null;
  }

  /** Text that follows text is one node, unless a mark stands there. */
  put(node) {
    const last = this.out.length - 1;
    const joins = typeof node === "string" && typeof this.out[last] === "string";
    if (joins && this.open.at(-1)?.index !== last) this.out[last] += node;
    else this.out.push(node);
  }

  /** Every new line of a model is meant: it writes no lines of a fixed width. */
  lineBreak(skipped) {
    if (skipped && this.text[this.at + 1] !== "\n") return false;
    this.at += skipped;
    const [spaces] = this.match(SPACES);
    const breaks = this.text[this.at] === "\n";
    this.put(breaks ? { type: "break", children: [] } : spaces);
    this.at += breaks ? 1 : 0;
    return true;
  }

  bareLink() {
    if (this.at > 0 && WORD.test(this.text[this.at - 1])) return false;
    const found = this.match(BARE_LINK);
    if (!found) return false;
    const address = withoutTail(found[0]);
    this.at -= found[0].length - address.length;
    this.put(link(address, [address]));
    return true;
  }

  code() {
    const length = /^`+/.exec(this.text.slice(this.at, this.at + 1000))[0].length;
    const from = this.at + length;
    const end = this.runAfter(from, length);
    if (end === undefined && !(this.partial && from < this.text.length)) {
      this.put(this.text.slice(this.at, from));
      this.at = from;
      return true;
    }
    const inside = this.text.slice(from, end).replaceAll("\n", " ");
    const padded = /^ .* $/.test(inside) && inside.trim() !== "";
    this.put({ type: "code", children: [padded ? inside.slice(1, -1) : inside] });
    this.at = end === undefined ? this.text.length : end + length;
    return true;
  }

  /** Where the next run of just so many "`" is. */
  runAfter(from, length) {
    if (this.ticks === null) {
      this.ticks = new Map();
      for (const run of this.text.matchAll(/`+/g)) {
        const places = this.ticks.get(run[0].length) ?? [];
        this.ticks.set(run[0].length, places);
        places.push(run.index);
      }
    }
    const places = this.ticks.get(length) ?? [];
    while (places.length && places[0] < from) places.shift();
    return places[0];
  }

  mark() {
    const sign = this.text[this.at];
    let end = this.at;
    while (this.text[end] === sign) end += 1;
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[end] ?? " ";
    const count = end - this.at;
    const { opens, closes } = flanking(sign, before, after);
    this.at = end;
    if (this.partial && end === this.text.length) return true; // closeAll() does it
    if ((sign === "~" && count !== 2) || count > MAX_DEPTH) this.put(sign.repeat(count));
    else this.closeMarks(sign, count, opens, closes);
    return true;
  }

  /** Close what this run of marks closes; what is left of it may open, or is text. */
  closeMarks(sign, count, opens, closes) {
    let left = count;
    while (closes && left > 0) {
      const place = this.open.findLastIndex(
        (mark) => mark.sign === sign && fits(mark, opens, count),
      );
      if (place < 0) break;
      const mark = this.open[place];
      const used = sign === "~" ? 2 : Math.min(2, left, mark.left);
      if (!this.wrap(place, used)) break;
      left -= used;
    }
    if (left === 0) return;
    this.out.push(sign.repeat(left));
    if (opens) this.waits({ sign, count, left, both: closes });
  }

  waits(mark) {
    this.open.push({ ...mark, index: this.out.length - 1 });
    if (this.open.length > MAX_OPEN) this.open.shift();
  }

  /** What is behind an open mark becomes its content. */
  wrap(place, used) {
    const mark = this.open[place];
    const children = this.out.slice(mark.index + 1);
    const depth = children.reduce((most, node) => Math.max(most, (node.depth ?? 0) + 1), 1);
    if (depth > MAX_DEPTH) return false;
    const type = mark.sign === "~" ? "del" : used === 2 ? "strong" : "em";
    this.open.length = place + 1;
    mark.left -= used;
    this.out.length = mark.index;
    if (mark.left > 0) this.out.push(mark.sign.repeat(mark.left));
    else this.open.length = place;
    this.out.push({ type, children, depth });
    return true;
  }

  bracket(sign) {
    this.out.push(sign);
    this.at += sign.length;
    this.waits({ sign: "[" });
    return true;
  }

  closeBracket() {
    const place = this.open.findLastIndex((mark) => mark.sign === "[");
    if (place < 0) return false;
    const { index } = this.open[place];
    const target = linkTarget(this.text, this.at + 1, this.partial);
    this.open.splice(place, 1);
    if (!target) return false;
    if (target.address !== null && !safeAddress(target.address)) {
      this.put(this.text.slice(this.at, target.end));
    } else {
      this.open = this.open.filter((mark) => mark.index < index && mark.sign !== "[");
      const children = this.out.splice(index).slice(1);
      this.out.push(link(target.address, children));
    }
    this.at = target.end;
    return true;
  }

  /** At the end of a text that goes on: marks that are open take all that follows them. */
  closeAll() {
    for (let place = this.open.length - 1; place >= 0; place -= 1) {
      const mark = this.open[place];
      const empty = mark.index === this.out.length - 1;
      if (mark.sign === "[" || mark.both) continue;
      if (empty) this.out.length = mark.index;
      else while (this.open[place] === mark && this.wrap(place, Math.min(2, mark.left)));
    }
  }
}

/** Which sides of a run of marks a word is on, as CommonMark has it. */
function flanking(sign, before, after) {
  const [blankBefore, blankAfter] = [/\s/.test(before), /\s/.test(after)];
  const [signBefore, signAfter] = [/[\p{P}\p{S}]/u.test(before), /[\p{P}\p{S}]/u.test(after)];
  const left = !blankAfter && (!signAfter || blankBefore || signBefore);
  const right = !blankBefore && (!signBefore || blankAfter || signAfter);
  if (sign !== "_") return { opens: left, closes: right };
  return { opens: left && (!right || signBefore), closes: right && (!left || signAfter) };
}

/** CommonMark's rule of three: `**a*b**` is not closed by the one in its middle. */
function fits(mark, opens, count) {
  const mixed = (mark.both || opens) && (mark.count + count) % 3 === 0;
  return !mixed || (mark.count % 3 === 0 && count % 3 === 0);
}

function link(address, children) {
  return { type: "link", address: address && safeAddress(address), children };
}

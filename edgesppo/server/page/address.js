// The addresses of links in an answer: where they end, and which of them may be followed.

const MAX_LENGTH = 2000;

/** Where a link may go; null if it may not be one. Only the web and mail: no javascript:, no data:. */
export function safeAddress(address) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(address)) return null;
  try {
    return new URL(address).href;
  } catch {
    return null;
  }
}

/**
 * What "(address "title")", which begins at this place of a text, leads to, and where it ends.
 * The address is null where it is not whole yet (`partial`); without any of this, null.
 */
export function linkTarget(text, at, partial) {
  if (text[at] !== "(") return null;
  const rest = text.slice(at + 1, at + 1 + MAX_LENGTH);
  const angled = /^ ?<([^<>\n]*)>/.exec(rest);
  const plain = /^ ?(\S*)/.exec(rest)[1];
  const address = angled ? angled[1] : plain.slice(0, balanced(plain));
  const length = angled ? angled[0].length : rest.indexOf(plain) + address.length;
  const end = /^(?:\s+"[^"\n]*")? ?\)/.exec(rest.slice(length));
  if (end) return { address, end: at + 1 + length + end[0].length };
  const goesOn = partial && at + 1 + rest.length === text.length && !rest.includes("\n");
  return goesOn ? { address: null, end: text.length } : null;
}

/** How much of an address comes before a ")" that it did not open. */
function balanced(address) {
  let open = 0;
  for (let at = 0; at < address.length; at += 1) {
    if (address[at] === "(") open += 1;
    if (address[at] === ")" && --open < 0) return at;
  }
  return address.length;
}

/** An address in running text, without the signs of the sentence around it. */
export function withoutTail(address) {
  let end = balanced(address);
  while (end > 0 && /[.,:;!?'"*_~\]]/.test(address[end - 1])) end -= 1;
  return address.slice(0, end);
}

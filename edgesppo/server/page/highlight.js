// Colours for code: comments, strings, numbers and keywords, in whatever language it is.
//
// It reads a piece of code once, from left to right, and knows no grammar: what it does not know
// stays plain. That is enough to read by, and it cannot go wrong badly.

const MAX_LENGTH = 50_000; // longer code stays plain

const STRING = String.raw`"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'`;
const NUMBER = String.raw`(?<![\w$])(?:0[xX][\da-fA-F_]+|0[bB][01_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b`;
const WORD = String.raw`[A-Za-z_$][\w$]*`;
const C_COMMENT = String.raw`\/\/[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/|$)`;
const HASH_COMMENT = String.raw`(?<![\w$&])#[^\n]*`;

const C_WORDS = `abstract as async await bool boolean break case catch char class const constexpr
  continue crate default delete do double dyn else enum export extends extern false final finally
  float fn for from func function go goto if impl implements import in inline int interface let long
  loop match mod mut namespace new nil null nullptr of override package private protected pub public
  return self short signed sizeof static struct super switch template this throw throws trait true
  try type typedef typename typeof undefined union unsafe unsigned use using var virtual void
  volatile where while yield`;
const PYTHON_WORDS = `and as assert async await break case class continue def del elif else except
  False finally for from global if import in is lambda match None nonlocal not or pass raise return
  True try while with yield`;
const SHELL_WORDS = `case do done elif else esac export fi for function if in local return then
  until while sudo cd echo`;
const SQL_WORDS = `add all alter and as asc between by case create cross delete desc distinct drop
  else end exists from full group having in inner insert into is join key left like limit not null
  offset on or order outer primary right select set table then union unique update values view when
  where with`;
const RUBY_WORDS = `and begin break case class def do else elsif end ensure false for if in module
  next nil not or redo require rescue retry return self super then true unless until when while yield`;

/** The kinds of piece of a language, as one expression with a group for each. */
function language(comment, words, { strings = STRING, flags = "" } = {}) {
  const groups = [
    `(?<comment>${comment})`,
    `(?<string>${strings})`,
    `(?<number>${NUMBER})`,
    `(?<word>${WORD})`,
  ];
  return {
    pattern: new RegExp(groups.join("|"), `g${flags}`),
    flags,
    words: new Set(words.split(/\s+/)),
  };
}

const C = language(C_COMMENT, C_WORDS, { strings: `${STRING}|\`(?:[^\`\\\\]|\\\\[^])*(?:\`|$)` });
const PYTHON = language(HASH_COMMENT, PYTHON_WORDS, {
  strings: String.raw`"""(?:[^"\\]|\\[^]|"(?!""))*(?:"""|$)|'''(?:[^'\\]|\\[^]|'(?!''))*(?:'''|$)|${STRING}`,
});
const SHELL = language(HASH_COMMENT, SHELL_WORDS);
const SQL = language(String.raw`--[^\n]*|\/\*(?:[^*]|\*(?!\/))*(?:\*\/|$)`, SQL_WORDS, {
  flags: "i",
});
const RUBY = language(HASH_COMMENT, RUBY_WORDS);
const MARKUP = language("<!--(?:[^-]|-(?!->))*(?:-->|$)", "");

const LANGUAGES = new Map();
const NAMES = [
  [
    C,
    "c cc cpp c++ cs csharp css dart go golang h hpp java javascript js json json5 jsonc jsx kotlin kt php rs rust scala scss swift ts tsx typescript zig",
  ],
  [PYTHON, "py py3 python python3 pycon"],
  [SHELL, "bash console dockerfile fish ini makefile powershell sh shell toml yaml yml zsh"],
  [SQL, "sql mysql postgres postgresql sqlite"],
  [RUBY, "rb ruby elixir ex exs julia jl perl r"],
  [MARKUP, "html svg xml vue"],
];
for (const [known, names] of NAMES) for (const name of names.split(" ")) LANGUAGES.set(name, known);

/** A code's pieces: [kind, text], where the kind is null for what stays plain. */
export function highlight(code, name) {
  const known = LANGUAGES.get(name.toLowerCase());
  if (!known || code.length > MAX_LENGTH) return [[null, code]];
  const pieces = [];
  let plain = 0;
  for (const found of code.matchAll(known.pattern)) {
    const kind = kindOf(found.groups, known);
    if (!kind) continue;
    if (plain < found.index) pieces.push([null, code.slice(plain, found.index)]);
    pieces.push([kind, found[0]]);
    plain = found.index + found[0].length;
  }
  if (plain < code.length) pieces.push([null, code.slice(plain)]);
  return pieces;
}

function kindOf(groups, { words, flags }) {
  if (groups.comment !== undefined) return "comment";
  if (groups.string !== undefined) return "string";
  if (groups.number !== undefined) return "number";
  const word = flags === "i" ? groups.word.toLowerCase() : groups.word;
  return words.has(word) ? "keyword" : null;
}

// How answers are sampled: what the server takes, and within which limits.
//
// An empty field is not sent, so that the server's own default holds.

/** [name, label, hint, limits] of each number. Beside them there is `stop`, a list of texts. */
export const NUMBERS = [
  ["temperature", "Temperature", "0: likeliest", { min: 0, max: 100 }],
  ["max_tokens", "Longest answer", "in tokens", { min: 1, whole: true }],
  ["top_p", "Top p", "0 to 1", { min: 0, max: 1 }],
  ["top_k", "Top k", "0: all", { min: 0, whole: true }],
  ["min_p", "Min p", "0 to 1", { min: 0, max: 1 }],
  ["repeat_penalty", "Repeat penalty", "1: off", { min: 0.01, max: 100 }],
  ["presence_penalty", "Presence penalty", "−2 to 2", { min: -2, max: 2 }],
  ["frequency_penalty", "Frequency penalty", "−2 to 2", { min: -2, max: 2 }],
  ["seed", "Seed", "any number", { min: 0, whole: true }],
];

/** What is the matter with a number, in words; null if nothing is. */
export function numberFault(text, { min, max = Number.MAX_SAFE_INTEGER, whole = false }) {
  const value = Number(text);
  if (!Number.isFinite(value)) return `“${text}” is not a number.`;
  if (whole && !Number.isInteger(value)) return `“${text}” is not a whole number.`;
  if (value < min) return `“${text}” is below ${min}.`;
  return value > max ? `“${text}” is above ${max}.` : null;
}

/** Of what a file says, what the settings can be. */
export function checkedSampling(value) {
  const sampling = {};
  for (const [name, , , limits] of NUMBERS) {
    const number = value?.[name];
    if (typeof number === "number" && !numberFault(number, limits)) sampling[name] = number;
  }
  const stop = Array.isArray(value?.stop) ? value.stop : [];
  const texts = stop.filter((text) => typeof text === "string" && text !== "");
  if (texts.length) sampling.stop = texts;
  return sampling;
}

/**
 * Makes a stranger's words harmless to look at without changing what they say: no hidden controls, no text
 * that runs backwards over its neighbours, no towers of marks. Every step passes over the text once.
 */

/** Control characters except tab and line feed; bidi embeddings, overrides and isolates; other invisible commands. */
const COMMANDS =
  // eslint-disable-next-line no-control-regex -- these are what is looked for
  /[\u0000-\u0008\u000B-\u001F\u007F-\u009F\u202A-\u202E\u2060-\u206F\uFEFF\uFFF9-\uFFFB]/g;
// eslint-disable-next-line no-control-regex -- likewise
const LINE_ENDS = /\r\n?|[\u000B\u000C\u0085\u2028\u2029]/g;
/** Vietnamese, Hebrew with points and accents, and Tibetan stay under this; "zalgo" does not. */
const MARKS = /(\p{M}{5})\p{M}+/gu;
const EMPTY_LINES = /\n{4,}/g;

export function plain(text: string): string {
  return text
    .replace(LINE_ENDS, "\n")
    .replace(COMMANDS, "")
    .replace(MARKS, "$1")
    .replace(EMPTY_LINES, "\n\n\n");
}

/** The same on one line, cut to a length that fits a quote or a label. */
export function plainLine(text: string, most = 140): string {
  const line = plain(text.slice(0, most * 4)).replace(/\s+/g, " ").trim();
  const letters = Array.from(line);
  return letters.length > most ? `${letters.slice(0, most).join("")}…` : line;
}

// eslint-disable-next-line no-misleading-character-class -- joiners and selectors, each on its own
const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}|\p{Emoji_Modifier}|\p{Regional_Indicator}|[\u200D\uFE0F\u20E3\s])+$/u;

/** One to three emoji and nothing else: shown larger. */
export function isBigEmoji(text: string): boolean {
  if (text.length > 40 || !EMOJI_ONLY.test(text)) return false;
  const count = Array.from(new Intl.Segmenter().segment(text.replace(/\s+/g, ""))).length;
  return count >= 1 && count <= 3;
}

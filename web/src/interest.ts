/** Interests in the form in which the server compares them; `normalise_interest` there is the original. */
import { MAX_INTEREST } from "./contract.gen";

// What Python calls white space; JavaScript's \s lacks some and adds a character that shows as nothing.
// eslint-disable-next-line no-control-regex -- separators are control characters, that is the point
const SPACE = /[\t-\r\x1c-\x20\x85\p{Z}]/u;
// eslint-disable-next-line no-misleading-character-class -- combining and invisible ones each on their own
const UNSEEN = /[\p{C}\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u180b-\u180f\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/u;
const CHEROKEE = /\p{Script=Cherokee}/u;
const DOTLESS_I = "\u0131";
const VISIBLE = /[\p{L}\p{N}\p{P}\p{S}]/u;

/** "" if nothing visible is left. */
export function normaliseInterest(text: string): string {
  const kept: string[] = [];
  for (const character of text) {
    if (SPACE.test(character)) {
      if (kept.length > 0 && kept.at(-1) !== " ") kept.push(" ");
    } else if (!UNSEEN.test(character)) kept.push(character);
    if (kept.length >= 4 * MAX_INTEREST) break;
  }
  let result = kept.join("");
  // Folding can undo the normal form and cutting can end in a space, hence again until it is stable.
  for (let pass = 0; pass < 4; pass += 1) {
    const folded = fold(result.normalize("NFKC")).normalize("NFKC");
    const visible = Array.from(folded).filter((character) => SPACE.test(character) || !UNSEEN.test(character)).join("");
    const words = visible.split(new RegExp(`${SPACE.source}+`, "u")).filter((word) => word !== "");
    const cut = Array.from(words.join(" ")).slice(0, MAX_INTEREST).join("").trimEnd();
    if (cut === result) break;
    result = cut;
  }
  return VISIBLE.test(result) ? result : "";
}

/**
 * Case folding, which JavaScript lacks: down, up and down again, letter by letter, brings variants of a letter
 * together. The result is Python's for every character that both know.
 */
function fold(text: string): string {
  return Array.from(text, (character) => {
    // The one script whose small letters came later and fold to the capitals.
    if (CHEROKEE.test(character)) return character.toUpperCase();
    if (character === DOTLESS_I) return character;
    return Array.from(character.toLowerCase().toUpperCase(), (letter) => letter.toLowerCase()).join("");
  }).join("");
}

/** Interests in the form in which the server compares them; `normalise_interest` there is the original. */
import { MAX_INTEREST } from "./contract.gen";

// What Python calls white space; JavaScript's \s lacks some and adds a character that shows as nothing.
// eslint-disable-next-line no-control-regex -- separators are control characters, that is the point
const SPACE = /[\t-\r\x1c-\x20\x85\p{Z}]/u;
// eslint-disable-next-line no-misleading-character-class -- combining and invisible ones each on their own
const UNSEEN = /[\p{C}\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\u180b-\u180f\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/u;
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

/** Case folding, which JavaScript lacks: letters whose capital is several letters become those, lower-cased. */
function fold(text: string): string {
  return Array.from(text)
    .map((character) => {
      if (character === "\u03c2") return "\u03c3";
      const lower = character.toLowerCase();
      const upper = lower.toUpperCase();
      return Array.from(lower).length === 1 && Array.from(upper).length > 1 ? upper.toLowerCase() : lower;
    })
    .join("");
}

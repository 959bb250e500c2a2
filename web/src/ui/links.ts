/**
 * Finds http and https addresses in plain words. What is shown of an address is what the browser will open:
 * the host in its ASCII form (so that a look-alike in another script shows as `xn--…`), never user info.
 */

export type Piece =
  | { readonly kind: "words"; readonly text: string }
  | { readonly kind: "link"; readonly href: string; readonly host: string; readonly rest: string };

/** One greedy run each; nothing to backtrack into, so the time is linear whatever the text. */
const CANDIDATE = /\bhttps?:\/\/[^\s<>"“”«»]+/giu;
const LONGEST = 2048;
const SHOWN = 56;
/** Nobody means more than this in one message; reading each address costs time. */
const MOST_TRIED = 50;
const PAIRS: Readonly<Record<string, string>> = { ")": "(", "]": "[", "}": "{" };
const ENDINGS = new Set([".", ",", ";", ":", "!", "?", "'", "’", "…", "،", "؛", "؟", "。", "*", "_", "~"]);

/** Without the punctuation of the sentence around it; a closing bracket stays if the address opened it. */
function trimmed(candidate: string): string {
  const surplus: Record<string, number> = {};
  for (const letter of candidate) {
    const opener = PAIRS[letter];
    if (opener !== undefined) surplus[opener] = (surplus[opener] ?? 0) + 1;
    else if (letter === "(" || letter === "[" || letter === "{") surplus[letter] = (surplus[letter] ?? 0) - 1;
  }
  let end = candidate.length;
  while (end > 0) {
    const last = candidate.charAt(end - 1);
    const opener = PAIRS[last];
    if (opener !== undefined && (surplus[opener] ?? 0) > 0) surplus[opener] = (surplus[opener] ?? 0) - 1;
    else if (!ENDINGS.has(last)) break;
    end -= 1;
  }
  return candidate.slice(0, end);
}

function link(address: string): Piece | null {
  if (address.length > LONGEST) return null;
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    return null;
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return null;
  url.username = "";
  url.password = "";
  const path = `${url.pathname}${url.search}${url.hash}`;
  const rest = path === "/" ? "" : path.length > SHOWN ? `${path.slice(0, SHOWN)}…` : path;
  return { kind: "link", href: url.href, host: url.host, rest };
}

export function pieces(text: string): Piece[] {
  const found: Piece[] = [];
  let from = 0;
  let tried = 0;
  for (const match of text.matchAll(CANDIDATE)) {
    tried += 1;
    if (tried > MOST_TRIED) break;
    const address = trimmed(match[0]);
    const piece = link(address);
    if (piece === null) continue;
    if (match.index > from) found.push({ kind: "words", text: text.slice(from, match.index) });
    found.push(piece);
    from = match.index + address.length;
  }
  if (from < text.length) found.push({ kind: "words", text: text.slice(from) });
  return found;
}

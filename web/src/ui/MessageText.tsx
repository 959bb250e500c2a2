import { useMemo, useState } from "react";
import { pieces } from "./links";
import { isBigEmoji, plain } from "./plain";

interface Props {
  readonly text: string;
  readonly opensNew: string;
  readonly more: string;
  readonly less: string;
}

/** Past this, a message starts folded: one stranger must not be able to fill the room. */
const LONG_TEXT = 1200;
const LONG_LINES = 24;

function isLong(text: string): boolean {
  if (text.length > LONG_TEXT) return true;
  let lines = 0;
  for (let at = text.indexOf("\n"); at !== -1; at = text.indexOf("\n", at + 1)) {
    lines += 1;
    if (lines > LONG_LINES) return true;
  }
  return false;
}

/** Somebody's words: text nodes and plain links, nothing else. */
export function MessageText({ text, opensNew, more, less }: Props) {
  const [open, setOpen] = useState(false);
  const clean = useMemo(() => plain(text), [text]);
  const parts = useMemo(() => pieces(clean), [clean]);
  const folds = isLong(clean);

  return (
    <>
      <p dir="auto" className={`said ${isBigEmoji(clean) ? "text-4xl leading-snug" : ""} ${folds && !open ? "line-clamp-12" : ""}`}>
        {parts.map((part, index) =>
          part.kind === "words" ? (
            part.text
          ) : (
            <a
              // Pieces never move within a text.
              key={index}
              href={part.href}
              title={`${part.href} (${opensNew})`}
              target="_blank"
              rel="noopener noreferrer nofollow ugc"
              dir="ltr"
              className="rounded-sm underline decoration-1 underline-offset-3 hover:decoration-2"
            >
              <span className="font-semibold">{part.host}</span>
              {part.rest}
            </a>
          ),
        )}
      </p>
      {folds && (
        <button
          type="button"
          className="mt-1 min-h-8 text-sm font-semibold underline underline-offset-3"
          aria-expanded={open}
          onClick={() => setOpen(!open)}
        >
          {open ? less : more}
        </button>
      )}
    </>
  );
}

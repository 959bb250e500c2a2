import { useState } from "react";
import { useNow } from "./useNow";

/** Counts the seconds down for the eye; a screen reader hears once how many there are. */
export function CountDown({ until, words }: { readonly until: number; readonly words: (seconds: number) => string }) {
  const seconds = Math.max(0, Math.ceil((until - useNow()) / 1000));
  const [first] = useState(seconds);
  return (
    <>
      <span aria-hidden="true" className="tabular-nums">
        {words(seconds)}
      </span>
      <span className="sr-only">{words(first)}</span>
    </>
  );
}

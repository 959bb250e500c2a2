import { createContext, type ReactNode, useContext, useEffect, useState } from "react";
import type { Locale } from "../model";
import { english, load } from "./load";
import type { Speech } from "./speak";

const SpeechContext = createContext<Speech | null>(null);

export function useSpeech(): Speech {
  const speech = useContext(SpeechContext);
  if (speech === null) throw new Error("no language provided");
  return speech;
}

/** Provides the language and tells the document. While another one loads, the last one stays; at first, nothing shows. */
export function Speaking({ locale, children }: { readonly locale: Locale; readonly children: ReactNode }) {
  const [speech, setSpeech] = useState<Speech | null>(locale === "en" ? english() : null);

  useEffect(() => {
    let wanted = true;
    load(locale).then(
      (loaded) => wanted && setSpeech(loaded),
      // A language that does not load must not keep the door shut.
      () => wanted && setSpeech((last) => last ?? english()),
    );
    return () => {
      wanted = false;
    };
  }, [locale]);

  useEffect(() => {
    if (speech === null) return;
    document.documentElement.lang = speech.locale;
    document.documentElement.dir = speech.dir;
  }, [speech]);

  return speech === null ? null : <SpeechContext value={speech}>{children}</SpeechContext>;
}

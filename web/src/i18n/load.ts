import type { Locale } from "../model";
import { en } from "./en";
import { type Speech, speak, variety } from "./speak";
import type { Texts } from "./texts";

/** Without a browser, nothing is preferred. */
const preferred = () => (typeof navigator === "undefined" ? [] : navigator.languages);

const spoken = new Map<Locale, Speech>();

/** Grows by what is seen in conversations, before any of it shows: see `loadCalls`. */
const words = { ...en } as unknown as Texts;

/** English is in the first load; the others come when they are asked for. */
export function english(): Speech {
  let speech = spoken.get("en");
  if (speech === undefined) {
    speech = speak("en", words, variety("en", preferred()));
    spoken.set("en", speech);
  }
  return speech;
}

export async function load(locale: Locale): Promise<Speech> {
  const known = spoken.get(locale);
  if (known !== undefined) return known;
  if (locale === "en") return english();
  const texts = locale === "es" ? (await import("./es")).es : (await import("./ar")).ar;
  const speech = speak(locale, texts, variety(locale, preferred()));
  spoken.set(locale, speech);
  return speech;
}

/** The rest of English, for calls and files. The other languages come whole. */
export async function loadCalls(): Promise<void> {
  const [{ calls }, { files }] = await Promise.all([import("./en.calls"), import("./en.files")]);
  Object.assign(words, calls, files);
}

/** How each language calls itself. */
export const OWN_NAMES: Readonly<Record<Locale, string>> = { en: "English", es: "Español", ar: "العربية" };

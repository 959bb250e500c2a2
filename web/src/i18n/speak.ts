/** What one language can say: texts with their gaps filled, plurals, lists, numbers and times. No React inside. */
import type { Locale } from "../model";
import type { PlainKey, PluralKey, Texts } from "./texts";

type Values = Readonly<Record<string, string | number>>;

export interface Speech {
  readonly locale: Locale;
  /** The language with the reader's region, for numbers, times and the order of a date. */
  readonly tag: string;
  readonly dir: "ltr" | "rtl";
  t(key: PlainKey, values?: Values): string;
  /** Plural by `n`, which fills `{n}` as well. */
  tn(key: PluralKey, n: number, values?: Values): string;
  number(n: number): string;
  /** "a, b and c" */
  all(items: readonly string[]): string;
  /** "a, b or c" */
  any(items: readonly string[]): string;
  time(at: number): string;
  /** Today, yesterday, or the date. */
  day(at: number, now: number): string;
  dateTime(at: number): string;
  /** Minutes and seconds, 0:07. */
  elapsed(ms: number): string;
  /** A language by its name in this one: "en" -> "English". */
  language(code: string): string;
}

const RIGHT_TO_LEFT = /[\u0590-\u08FF\uFB1D-\uFDFF\uFE70-\uFEFC]/;
// eslint-disable-next-line no-misleading-character-class -- ranges, marks and all
const LEFT_TO_RIGHT = /[A-Za-z\u00C0-\u02AF\u0370-\u058F\u0900-\u1FFF\u3040-\uD7FF]/;
const DAY_MS = 86_400_000;

/** Where no region is known: Arabic has digits of its own, the rest follow their default. */
const TAGS: Record<Locale, string> = { en: "en", es: "es", ar: "ar-u-nu-arab" };

/** The reader's own variety of a language, such as en-GB, from what the browser prefers. */
export function variety(locale: Locale, preferred: readonly string[]): string {
  return preferred.find((one) => one.startsWith(`${locale}-`)) ?? TAGS[locale];
}

export function speak(locale: Locale, texts: Texts, tag: string = TAGS[locale]): Speech {
  const dir = locale === "ar" ? "rtl" : "ltr";
  const plurals = new Intl.PluralRules(tag);
  const numbers = new Intl.NumberFormat(tag);
  const twoDigits = new Intl.NumberFormat(tag, { minimumIntegerDigits: 2 });
  const conjunction = new Intl.ListFormat(tag, { type: "conjunction" });
  const disjunction = new Intl.ListFormat(tag, { type: "disjunction" });
  const times = new Intl.DateTimeFormat(tag, { hour: "numeric", minute: "2-digit" });
  const days = new Intl.DateTimeFormat(tag, { weekday: "long", day: "numeric", month: "long" });
  const moments = new Intl.DateTimeFormat(tag, { dateStyle: "medium", timeStyle: "short" });
  const languages = new Intl.DisplayNames(tag, { type: "language", fallback: "code" });

  /** A name of the other direction inside a sentence is fenced off, or it drags its neighbours along. */
  const isolate = (value: string): string =>
    (dir === "ltr" ? RIGHT_TO_LEFT : LEFT_TO_RIGHT).test(value) ? `\u2068${value}\u2069` : value;

  const fill = (text: string, values: Values | undefined): string =>
    values === undefined
      ? text
      : text.replace(/\{(\w+)\}/g, (gap, name: string) => {
          const value = values[name];
          if (value === undefined) return gap;
          return typeof value === "number" ? numbers.format(value) : isolate(value);
        });

  return {
    locale,
    tag,
    dir,
    t: (key, values) => fill(texts[key], values),
    tn: (key, n, values) => {
      const forms = texts[key];
      return fill(forms[plurals.select(n)] ?? forms.other, { ...values, n });
    },
    number: (n) => numbers.format(n),
    all: (items) => conjunction.format(items.map(isolate)),
    any: (items) => disjunction.format(items.map(isolate)),
    time: (at) => times.format(at),
    day: (at, now) => {
      const midnight = new Date(now).setHours(0, 0, 0, 0);
      if (at >= midnight) return texts["chat.today"];
      if (at >= midnight - DAY_MS) return texts["chat.yesterday"];
      return days.format(at);
    },
    dateTime: (at) => moments.format(at),
    elapsed: (ms) => {
      const seconds = Math.max(0, Math.floor(ms / 1000));
      return `${numbers.format(Math.floor(seconds / 60))}:${twoDigits.format(seconds % 60)}`;
    },
    language: (code) => {
      try {
        return languages.of(code) ?? code;
      } catch {
        return code;
      }
    },
  };
}

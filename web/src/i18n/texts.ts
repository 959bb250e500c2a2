import type { en } from "./en";
import type { calls } from "./en.calls";
import type { files } from "./en.files";

/** One text for each plural category that the language has; `other` always. */
type Plural = { readonly other: string } & Readonly<Partial<Record<Intl.LDMLPluralRule, string>>>;

type English = typeof en & typeof calls & typeof files;
type Key = keyof English;
export type PluralKey = { [K in Key]: English[K] extends string ? never : K }[Key];
export type PlainKey = Exclude<Key, PluralKey>;

/** Every language has every key, and the same kind of text behind it. */
export type Texts = Readonly<Record<PlainKey, string> & Record<PluralKey, Plural>>;

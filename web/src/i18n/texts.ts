import type { en } from "./en";

/** One text for each plural category that the language has; `other` always. */
type Plural = { readonly other: string } & Readonly<Partial<Record<Intl.LDMLPluralRule, string>>>;

type Key = keyof typeof en;
export type PluralKey = { [K in Key]: (typeof en)[K] extends string ? never : K }[Key];
export type PlainKey = Exclude<Key, PluralKey>;

/** Every language has every key, and the same kind of text behind it. */
export type Texts = Readonly<Record<PlainKey, string> & Record<PluralKey, Plural>>;

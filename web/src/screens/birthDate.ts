/** Reading a date of birth typed as three numbers, in whatever digits the keyboard has. */

export interface Parts {
  readonly day: string;
  readonly month: string;
  readonly year: string;
}

export type Part = keyof Parts;

const OLDEST_YEAR = 1900;

/** Arabic-Indic and Persian digits as 0-9; everything that is no digit goes. */
export function digits(text: string): string {
  return text
    .replace(/[\u0660-\u0669]/g, (digit) => String(digit.charCodeAt(0) - 0x660))
    .replace(/[\u06F0-\u06F9]/g, (digit) => String(digit.charCodeAt(0) - 0x6f0))
    .replace(/\D/g, "");
}

/** YYYY-MM-DD, or what is wrong with it. */
export function birthDate(parts: Parts, now: Date): { readonly iso: string } | { readonly wrong: "missing" | "wrong" } {
  if (parts.day === "" || parts.month === "" || parts.year === "") return { wrong: "missing" };
  const [day, month, year] = [Number(parts.day), Number(parts.month), Number(parts.year)];
  const date = new Date(Date.UTC(year, month - 1, day));
  const exists =
    parts.year.length === 4 &&
    year >= OLDEST_YEAR &&
    date.getUTCFullYear() === year &&
    date.getUTCMonth() === month - 1 &&
    date.getUTCDate() === day &&
    date.getTime() <= now.getTime();
  return exists ? { iso: date.toISOString().slice(0, 10) } : { wrong: "wrong" };
}

/** The order in which people of that language and region write a date. */
export function order(tag: string): Part[] {
  const parts = new Intl.DateTimeFormat(tag, { day: "numeric", month: "numeric", year: "numeric" })
    .formatToParts(0)
    .map((part) => part.type);
  return parts.filter((type): type is Part => type === "day" || type === "month" || type === "year");
}

import type { Speech } from "../i18n/speak";

const HOUR_MS = 3_600_000;

/** "in 23 hours", "in 40 minutes". */
export function until({ tag }: Pick<Speech, "tag">, ms: number): string {
  const words = new Intl.RelativeTimeFormat(tag, { numeric: "always" });
  return ms >= 2 * HOUR_MS
    ? words.format(Math.floor(ms / HOUR_MS), "hour")
    : words.format(Math.max(1, Math.floor(ms / 60_000)), "minute");
}

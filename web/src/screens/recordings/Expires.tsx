import type { Speech } from "../../i18n/speak";
import { useSpeech } from "../../i18n/useSpeech";
import { useNow } from "../useNow";

const HOUR_MS = 3_600_000;

/** "in 23 hours", "in 40 minutes". */
function until({ tag }: Speech, ms: number): string {
  const words = new Intl.RelativeTimeFormat(tag, { numeric: "always" });
  return ms >= 2 * HOUR_MS
    ? words.format(Math.floor(ms / HOUR_MS), "hour")
    : words.format(Math.max(1, Math.floor(ms / 60_000)), "minute");
}

export function Expires({ at }: { readonly at: number }) {
  const speech = useSpeech();
  const now = useNow(60_000);
  return <span>{speech.t("recordings.expires", { when: until(speech, at - now) })}</span>;
}

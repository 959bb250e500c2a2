import { useSpeech } from "../../i18n/useSpeech";
import { until } from "../until";
import { useNow } from "../useNow";

export function Expires({ at }: { readonly at: number }) {
  const speech = useSpeech();
  const now = useNow(60_000);
  return <span>{speech.t("recordings.expires", { when: until(speech, at - now) })}</span>;
}

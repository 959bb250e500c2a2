import type { PlainKey } from "../../i18n/texts";
import { useSpeech } from "../../i18n/useSpeech";
import type { CallLine } from "../../model";
import { Icon, type IconName } from "../../ui/Icon";
import { useStore } from "../../useStore";
import { DownloadButton } from "../recordings/DownloadButton";
import { Expires } from "../recordings/Expires";
import { useVisavis } from "../useVisavis";

function words({ what, by }: CallLine): PlainKey {
  const mine = by === "me";
  switch (what) {
    case "missed":
      return mine ? "line.missedMine" : "line.missedTheirs";
    case "declined":
      return mine ? "line.declinedMine" : "line.declinedTheirs";
    case "cancelled":
      return mine ? "line.cancelledMine" : "line.cancelledTheirs";
    case "hung_up":
      return "line.hungUp";
    default:
      return `line.${what}`;
  }
}

function icon({ what, video }: CallLine): IconName {
  if (what.startsWith("recorded") || what.startsWith("recording")) return "record";
  if (what === "failed" || what === "lost") return "alert";
  if (what === "hung_up") return video ? "video" : "phone";
  return "hangUp";
}

/** A call or a recording that is over, between the messages. */
export function CallLineItem({ line, partnerName }: { readonly line: CallLine; readonly partnerName: string }) {
  const { t, time, elapsed } = useSpeech();
  const { recordings } = useStore(useVisavis().recordings);
  const recording = recordings.find(({ id }) => id === line.recordingId) ?? null;
  return (
    <li
      data-testid="call-line"
      data-what={line.what}
      data-by={line.by ?? undefined}
      className="mt-4 mb-1 flex max-w-full animate-said flex-wrap items-center justify-center gap-x-3 gap-y-1.5 self-center rounded-2xl border border-line px-4 py-2 text-sm text-soft"
    >
      <span className="flex min-w-0 items-center gap-2">
        <Icon name={icon(line)} className="size-4.5" />
        <span className="[overflow-wrap:anywhere]">
          <span className="font-medium text-ink">{t(words(line), { name: partnerName })}</span>
          {line.seconds !== null && <span className="tabular-nums"> · {elapsed(line.seconds * 1000)}</span>}
          {" · "}
          <time dateTime={new Date(line.at).toISOString()}>{time(line.at)}</time>
        </span>
      </span>
      {line.recordingId !== null && (
        <span className="flex flex-wrap items-center justify-center gap-x-3 gap-y-1">
          <DownloadButton id={line.recordingId} madeAt={recording?.madeAt ?? line.at} />
          {recording !== null && <Expires at={recording.expiresAt} />}
        </span>
      )}
    </li>
  );
}

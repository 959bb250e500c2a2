import { useSpeech } from "../../i18n/useSpeech";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { useStore } from "../../useStore";
import { useVisavis } from "../useVisavis";

/** Fetches a recording, and says how far it is. */
export function DownloadButton({ id, madeAt }: { readonly id: string; readonly madeAt: number }) {
  const { t, tag, dateTime } = useSpeech();
  const visavis = useVisavis();
  const { fetching } = useStore(visavis.recordings);
  const mine = fetching?.id === id ? fetching : null;
  const percent = new Intl.NumberFormat(tag, { style: "percent" });
  return (
    <Button
      size="small"
      data-testid="recording-download"
      aria-label={mine === null ? t("recordings.downloadOf", { when: dateTime(madeAt) }) : undefined}
      aria-disabled={fetching !== null}
      className="relative overflow-clip"
      onClick={() => {
        if (fetching === null) void visavis.downloadRecording(id);
      }}
    >
      {mine !== null && (
        <span aria-hidden="true" className="absolute inset-y-0 start-0 bg-accent-wash" style={{ width: `${mine.share * 100}%` }} />
      )}
      <Icon name="download" className="relative size-4.5" />
      <span className="relative tabular-nums">
        {mine === null ? t("recordings.download") : `${t("recordings.downloading")} ${percent.format(mine.share)}`}
      </span>
    </Button>
  );
}

import { useEffect, useRef, useState } from "react";
import type { SavedRecording } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Button, IconButton } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { Icon } from "../../ui/Icon";
import { useStore } from "../../useStore";
import { problemWords } from "../problem";
import { useVisavis } from "../useVisavis";
import { DownloadButton } from "./DownloadButton";
import { Expires } from "./Expires";

const MEGABYTE = 1_000_000;

function Item({ recording, onGone }: { readonly recording: SavedRecording; readonly onGone: () => void }) {
  const { t, tag, dateTime, elapsed } = useSpeech();
  const visavis = useVisavis();
  const [sure, setSure] = useState(false);
  const keep = useRef<HTMLButtonElement>(null);
  const when = dateTime(recording.madeAt);
  const size = new Intl.NumberFormat(tag, { style: "unit", unit: "megabyte", maximumFractionDigits: 1 });

  useEffect(() => {
    if (sure) keep.current?.focus();
  }, [sure]);

  return (
    <li data-testid="recording" className="flex flex-wrap items-center gap-x-3 gap-y-2 rounded-2xl border border-line p-3.5">
      <Icon name="record" className="size-6 text-soft" />
      <div className="min-w-0 flex-1 basis-44">
        <p className="font-semibold">{when}</p>
        <p className="text-sm text-soft tabular-nums">
          {elapsed(recording.seconds * 1000)} · {size.format(Math.max(0.1, recording.bytes / MEGABYTE))} ·{" "}
          <Expires at={recording.expiresAt} />
        </p>
      </div>
      {sure ? (
        <div className="flex flex-wrap items-center gap-2">
          <p className="text-sm font-semibold">{t("recordings.sure")}</p>
          <Button ref={keep} size="small" onClick={() => setSure(false)}>
            {t("recordings.keep")}
          </Button>
          <Button
            look="stop"
            size="small"
            data-testid="recording-delete-sure"
            onClick={() => {
              void visavis.deleteRecording(recording.id);
              onGone();
            }}
          >
            {t("recordings.delete")}
          </Button>
        </div>
      ) : (
        <div className="flex items-center gap-1">
          <DownloadButton id={recording.id} madeAt={recording.madeAt} />
          <IconButton label={t("recordings.deleteOf", { when })} data-testid="recording-delete" onClick={() => setSure(true)}>
            <Icon name="trash" />
          </IconButton>
        </div>
      )}
    </li>
  );
}

export function RecordingsDialog({ onClose }: { readonly onClose: () => void }) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const { recordings, problem } = useStore(visavis.recordings);
  const line = useRef<HTMLParagraphElement>(null);

  return (
    <Dialog title={t("recordings.title")} closeLabel={t("app.close")} onClose={onClose} wide>
      <p ref={line} tabIndex={-1} className="mt-1 text-soft">
        {t(recordings.length === 0 ? "recordings.none" : "recordings.line")}
      </p>
      {problem !== null && (
        <p role="alert" className="mt-3 flex items-center gap-2 text-sm font-semibold text-accent-strong">
          <Icon name="alert" className="size-4.5" />
          {problemWords(speech, problem)}
        </p>
      )}
      <ul className="mt-4 flex flex-col gap-2.5">
        {recordings.map((recording) => (
          <Item key={recording.id} recording={recording} onGone={() => line.current?.focus()} />
        ))}
      </ul>
    </Dialog>
  );
}

import { useEffect, useRef } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { UploadView } from "../../model";
import { IconButton } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { plain, plainLine } from "../../ui/plain";
import { useStore } from "../../useStore";
import { useAnnounce } from "../announce";
import { useVisavis } from "../useVisavis";
import { fileIcon, refusalWords, sizeWords } from "./words";

/** A player for each of very many would be more than a phone can hold. */
const STILLS = 4;

interface Props {
  readonly upload: UploadView;
  readonly hue: number;
  /** Room for a look at a video. */
  readonly still: boolean;
}

function Upload({ upload, hue, still }: Props) {
  const speech = useSpeech();
  const { t, tag } = speech;
  const visavis = useVisavis();
  const announce = useAnnounce();
  const { id, kind, bytes, phase, share, problem } = upload;
  const name = kind === "voice" ? t("files.kind.voice") : plainLine(upload.name, 120);
  const failed = phase === "failed";
  const preview = kind === "video" && !still ? null : upload.preview;
  const refused = problem === null ? t("files.notSent") : refusalWords(speech, problem, upload.limit);
  const percent = new Intl.NumberFormat(tag, { style: "percent" }).format(share);
  const said = failed ? t("files.saidFailed", { file: name, problem: refused }) : null;
  const state = {
    waiting: t("files.waiting"),
    uploading: t("files.uploading", { sent: sizeWords(speech, share * bytes), all: sizeWords(speech, bytes) }),
    paused: t("files.paused"),
    checking: t("files.checking"),
    failed: t("files.notSent"),
  }[phase];

  const lastSaid = useRef<string | null>(null);
  useEffect(() => {
    if (said !== null && said !== lastSaid.current) announce(said);
    lastSaid.current = said;
  }, [said, announce]);

  return (
    <li data-testid="upload" data-phase={phase} className="mt-1.5 flex animate-said flex-col items-end">
      <span className="sr-only">{t("files.uploadOf", { file: name })}</span>
      <div
        style={{ "--hue": hue }}
        className={`w-80 max-w-[86%] rounded-[1.25rem] p-1.5 sm:max-w-[78%] ${failed ? "border border-dashed border-edge bg-surface" : "hue-deep"}`}
      >
        {preview !== null && (
          <div className="relative mb-1 h-40 overflow-clip rounded-2xl bg-[color-mix(in_oklab,currentColor_14%,transparent)]">
            {kind === "video" ? (
              // One's own, still and silent: a look at what is on its way.
              <video src={preview} muted playsInline preload="metadata" aria-hidden="true" tabIndex={-1} className="size-full object-cover opacity-70" />
            ) : (
              <img src={preview} alt="" decoding="async" className={`size-full object-cover ${phase === "checking" ? "" : "opacity-70"}`} />
            )}
          </div>
        )}
        <div className="flex items-center gap-2.5 ps-2">
          {preview === null && <Icon name={fileIcon(upload)} className="size-6" />}
          <p className="min-w-0 flex-1 py-1">
            <span className="flex text-sm font-semibold">
              <bdi className="min-w-0 truncate">{name}</bdi>
            </span>
            <span aria-hidden="true" className={`block text-xs tabular-nums ${failed ? "font-semibold text-accent-strong" : ""}`}>
              {state}
            </span>
          </p>
          {failed && upload.retry && (
            <IconButton
              label={t("files.retryOf", { file: name })}
              data-testid="upload-retry"
              className="size-11 rounded-full"
              onClick={() => visavis.retryUpload(id)}
            >
              <Icon name="retry" />
            </IconButton>
          )}
          <button
            type="button"
            data-testid="upload-cancel"
            aria-label={t(failed ? "files.dismissOf" : "files.cancelOf", { file: name })}
            title={t(failed ? "files.dismissOf" : "files.cancelOf", { file: name })}
            className="inline-flex size-11 shrink-0 items-center justify-center rounded-full hover:bg-[color-mix(in_oklab,currentColor_16%,transparent)]"
            onClick={() => visavis.cancelUpload(id)}
          >
            <Icon name="close" />
          </button>
        </div>
        {failed ? (
          problem !== null && <p className="flex gap-2 px-2 pb-1.5 text-sm">{refused}</p>
        ) : (
          <div
            role="progressbar"
            aria-label={t("files.uploadOf", { file: name })}
            aria-valuemin={0}
            aria-valuemax={100}
            aria-valuenow={Math.round(share * 100)}
            aria-valuetext={phase === "uploading" ? percent : state}
            className="mx-2 mt-0.5 mb-1.5 h-1.5 overflow-clip rounded-full bg-[color-mix(in_oklab,currentColor_25%,transparent)]"
          >
            <div
              className={`h-full rounded-full bg-current transition-[width] duration-300 ${phase === "checking" ? "animate-dot" : ""} ${phase === "paused" ? "opacity-50" : ""}`}
              style={{ width: `${phase === "checking" ? 100 : share * 100}%` }}
            />
          </div>
        )}
        {upload.text !== "" && (
          <p dir="auto" className="said px-2 pb-1.5">
            {plain(upload.text)}
          </p>
        )}
      </div>
    </li>
  );
}

/** What is on its way, at the end of the messages. */
export function Uploads({ hue }: { readonly hue: number }) {
  const uploads = useStore(useVisavis().uploads);
  return uploads.map((upload, index) => <Upload key={upload.id} upload={upload} hue={hue} still={index < STILLS} />);
}

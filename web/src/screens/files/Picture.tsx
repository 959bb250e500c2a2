import { type ReactNode, useEffect, useRef, useState } from "react";
import type { SharedFile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Icon } from "../../ui/Icon";
import { useStore } from "../../useStore";
import { useVisavis } from "../useVisavis";
import { frameOf } from "./frame";
import { useAddress, useNear, useShelf, useUncovered } from "./useFiles";
import { fileWords } from "./words";

interface Props {
  readonly file: SharedFile;
  readonly mine: boolean;
  readonly partnerName: string;
}

function Trouble({ onAgain }: { readonly onAgain: () => void }) {
  const { t } = useSpeech();
  return (
    <div className="on-picture absolute inset-0 flex flex-col items-center justify-center gap-2 p-3 text-center text-sm">
      <p role="alert">{t("files.failed")}</p>
      <button type="button" className="inline-flex min-h-9 items-center gap-1.5 font-semibold underline underline-offset-3" onClick={onAgain}>
        <Icon name="retry" className="size-4" />
        {t("files.again")}
      </button>
    </div>
  );
}

function Photo({ file, label, near }: { readonly file: SharedFile; readonly label: string; readonly near: boolean }) {
  const { t } = useSpeech();
  const { look } = useShelf();
  const { url, failed, onError, again } = useAddress(file.id, "thumb", near);
  const [drawn, setDrawn] = useState(false);
  if (failed) return <Trouble onAgain={again} />;
  return (
    <button
      type="button"
      data-testid="file-look"
      title={t("files.larger")}
      className="absolute inset-0 size-full rounded-2xl focus-visible:-outline-offset-4"
      onClick={() => look(file.id)}
    >
      {url === null ? (
        <span className="sr-only">{label}</span>
      ) : (
        <img
          src={url}
          alt={label}
          draggable={false}
          decoding="async"
          onLoad={() => setDrawn(true)}
          onError={onError}
          className={`size-full object-cover transition-opacity duration-300 ${drawn ? "" : "opacity-0"}`}
        />
      )}
    </button>
  );
}

function Film({ file, label, near }: { readonly file: SharedFile; readonly label: string; readonly near: boolean }) {
  const poster = useAddress(file.id, "thumb", near && file.thumb);
  const { url, failed, onError, again } = useAddress(file.id, "main", near);
  const video = useRef<HTMLVideoElement>(null);
  /** Where it was, and whether it ran: with a new address it goes on there. */
  const from = useRef(0);
  const ran = useRef(false);
  useEffect(() => {
    if (url !== null && ran.current) video.current?.play().catch(() => undefined);
  }, [url]);
  if (failed) return <Trouble onAgain={again} />;
  return (
    // Strangers send no captions. The keys are the player's own while it has the focus.
    // eslint-disable-next-line jsx-a11y/media-has-caption
    <video
      ref={video}
      data-one
      controls
      playsInline
      preload="none"
      aria-label={label}
      src={url ?? undefined}
      poster={poster.url ?? undefined}
      onError={() => url !== null && onError()}
      onPlay={() => {
        ran.current = true;
      }}
      onPause={() => {
        ran.current = false;
      }}
      onTimeUpdate={({ currentTarget: { readyState, currentTime, ended } }) => {
        if (readyState > 0) from.current = ended ? 0 : currentTime;
      }}
      onLoadedMetadata={({ currentTarget }) => {
        if (from.current > 0) currentTarget.currentTime = from.current;
      }}
      onKeyDown={(event) => event.stopPropagation()}
      className="absolute inset-0 size-full object-contain"
    />
  );
}

/** A photo or a video in the place kept for it: a stranger's stays covered until it is wanted. */
export function Picture({ file, mine, partnerName }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const { always } = useStore(visavis.files);
  const { coverPictures } = useStore(visavis.settings);
  const { cover } = useShelf();
  const box = useRef<HTMLDivElement>(null);
  const near = useNear(box);
  const covered = !useUncovered()({ mine, file });
  const kind = file.kind === "video" ? "video" : "picture";
  const { ratio, rem } = frameOf(file.width, file.height);
  const label = mine ? t(`files.mine.${kind}`) : t(`files.from.${kind}`, { name: partnerName });

  /** The control that was pressed goes away with it. */
  function show(shown: boolean) {
    cover(file.id, !shown);
    visavis.showFile(file.id, shown);
    requestAnimationFrame(() => box.current?.querySelector<HTMLElement>("button, video")?.focus({ preventScroll: true }));
  }

  let inside: ReactNode;
  if (covered)
    inside = (
      <button
        type="button"
        data-testid="file-cover"
        className="absolute inset-0 flex size-full flex-col items-center justify-center gap-1.5 rounded-2xl p-2 focus-visible:-outline-offset-4"
        onClick={() => show(true)}
      >
        <span className="on-picture flex max-w-full flex-col items-center rounded-2xl px-4 py-2.5 text-center">
          <Icon name={kind === "video" ? "video" : "eyeOff"} className="size-6" />
          <span className="font-semibold">{fileWords(speech, file)}</span>
          <span className="text-sm">{t("files.show")}</span>
        </span>
      </button>
    );
  else if (kind === "video") inside = <Film file={file} label={label} near={near} />;
  else inside = <Photo file={file} label={label} near={near} />;

  return (
    <div className="max-w-full">
      <div
        ref={box}
        data-testid={kind === "video" ? "file-video" : "file-picture"}
        data-covered={covered}
        className={`relative max-w-full overflow-clip rounded-2xl ${kind === "video" && !covered ? "stage" : "bg-[color-mix(in_oklab,currentColor_14%,transparent)]"}`}
        style={{ aspectRatio: ratio, width: `${rem}rem` }}
      >
        {file.blur !== null && (kind === "picture" || covered) && (
          <img src={`data:image/webp;base64,${file.blur}`} alt="" className="cover-picture" draggable={false} />
        )}
        {inside}
        {!mine && !covered && (
          <button
            type="button"
            data-testid="file-hide"
            aria-label={t("files.hide")}
            title={t("files.hide")}
            className="on-picture absolute end-1.5 top-1.5 inline-flex size-10 items-center justify-center rounded-full transition-opacity duration-150 hover:opacity-90"
            onClick={() => show(false)}
          >
            <Icon name="eyeOff" />
          </button>
        )}
      </div>
      {covered && coverPictures && (
        <button
          type="button"
          data-testid="always-show"
          className="mt-1 flex min-h-9 w-0 min-w-full items-center justify-center rounded-xl px-2 text-center text-sm font-semibold underline decoration-1 underline-offset-3 hover:decoration-2"
          onClick={() => {
            visavis.alwaysShow(!always);
            if (!always) show(true);
          }}
        >
          {t(always ? "files.alwaysOff" : "files.always")}
        </button>
      )}
    </div>
  );
}

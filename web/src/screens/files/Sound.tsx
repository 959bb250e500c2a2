import { useMemo, useRef } from "react";
import type { SharedFile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Icon } from "../../ui/Icon";
import { plainLine } from "../../ui/plain";
import { levelsOf } from "../../ui/levels";
import { DownloadLink } from "./DownloadLink";
import { Seek } from "./Seek";
import { useAddress, useNear, useShelf } from "./useFiles";
import { useSound } from "./useSound";
import { sizeWords, typeWords } from "./words";

const SPEEDS = [1, 1.5, 2] as const;

/** A voice message, or a sound file with its name above. */
export function Sound({ file }: { readonly file: SharedFile }) {
  const speech = useSpeech();
  const { t, tag, elapsed } = speech;
  const box = useRef<HTMLDivElement>(null);
  const near = useNear(box);
  const { url, failed, onError, again, download } = useAddress(file.id, "main", near);
  const { speed, setSpeed } = useShelf();
  const audio = useRef<HTMLAudioElement>(null);
  const sound = useSound(audio, url, speed);
  const levels = useMemo(() => levelsOf(file.waveform), [file.waveform]);
  const length = file.seconds ?? 0;
  const voice = file.kind === "voice";
  const times = `${new Intl.NumberFormat(tag).format(speed)}×`;

  return (
    <div ref={box} data-testid="file-audio" data-kind={file.kind} className="w-72 max-w-full">
      {voice ? (
        <span className="sr-only">{t("files.kind.voice")}</span>
      ) : (
        <div className="mb-1.5 flex items-center gap-2">
          <p className="min-w-0 flex-1">
            <span className="flex font-semibold">
              <bdi className="min-w-0 truncate">{plainLine(file.name, 120)}</bdi>
            </span>
            <span className="block text-xs">
              {typeWords(speech, file.kind, file.name)} · {sizeWords(speech, file.bytes)}
            </span>
          </p>
          <DownloadLink file={file} href={download} />
        </div>
      )}
      <div className="flex items-center gap-2.5">
        <button
          type="button"
          data-testid="voice-play"
          aria-label={t(sound.playing || sound.waiting ? "files.pause" : "files.play")}
          className="inline-flex size-11 shrink-0 items-center justify-center rounded-full bg-[color-mix(in_oklab,currentColor_16%,transparent)] transition-colors duration-150 hover:bg-[color-mix(in_oklab,currentColor_26%,transparent)]"
          onClick={() => {
            if (failed) again();
            sound.toggle();
          }}
        >
          <Icon
            name={sound.playing || sound.waiting ? "pause" : "play"}
            className={`size-6 ${sound.waiting ? "animate-dot" : ""}`}
          />
        </button>
        <Seek at={sound.at} length={length} levels={levels} onSeek={sound.seek} />
        <button
          type="button"
          data-testid="voice-speed"
          className="inline-flex min-h-9 min-w-11 shrink-0 items-center justify-center rounded-full bg-[color-mix(in_oklab,currentColor_12%,transparent)] px-1.5 text-sm font-semibold tabular-nums hover:bg-[color-mix(in_oklab,currentColor_22%,transparent)]"
          onClick={() => setSpeed(SPEEDS[(SPEEDS.findIndex((one) => one === speed) + 1) % SPEEDS.length] ?? 1)}
        >
          <span className="sr-only">{t("files.speed")} </span>
          <bdi>{times}</bdi>
        </button>
      </div>
      <p className="ms-13.5 text-xs tabular-nums">
        {failed ? (
          <span role="alert">{t("files.failed")}</span>
        ) : sound.at > 0 || sound.playing ? (
          t("files.at", { at: elapsed(sound.at * 1000), length: elapsed(length * 1000) })
        ) : (
          elapsed(length * 1000)
        )}
      </p>
      {/* What a stranger says comes without captions. */}
      {/* eslint-disable-next-line jsx-a11y/media-has-caption */}
      <audio ref={audio} data-one src={url ?? undefined} preload="none" onError={() => url !== null && onError()} {...sound.on} />
    </div>
  );
}

import { useEffect, useEffectEvent, useRef } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { VoiceView } from "../../model";
import { IconButton } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { latest } from "../../ui/levels";
import { Waveform } from "../../ui/Waveform";
import { useAnnounce } from "../announce";
import { useMedia } from "../useMedia";
import { useVisavis } from "../useVisavis";
import { Seek } from "./Seek";
import { useSound } from "./useSound";

interface Props {
  readonly voice: VoiceView;
  /** Being held: how far it has slid towards being cancelled, 0 to 1. */
  readonly held: number | null;
}

/** Fills the widest desk. */
const COUNT = 180;
const NEAR_END = 10;

function Preview({ voice }: { readonly voice: VoiceView }) {
  const { t, elapsed } = useSpeech();
  const audio = useRef<HTMLAudioElement>(null);
  const sound = useSound(audio, voice.url, 1);
  const wide = useMedia("(min-width: 40rem)");
  const play = useRef<HTMLButtonElement>(null);
  useEffect(() => play.current?.focus({ preventScroll: true }), []);
  return (
    <div data-testid="voice-preview" role="group" aria-label={t("voice.preview")} className="flex min-w-0 flex-1 items-center gap-2">
      <button
        ref={play}
        type="button"
        data-testid="voice-play"
        aria-label={t(sound.playing ? "files.pause" : "files.play")}
        className="inline-flex size-11 shrink-0 items-center justify-center rounded-full text-accent-strong hover:bg-raised"
        onClick={sound.toggle}
      >
        <Icon name={sound.playing ? "pause" : "play"} className="size-6" />
      </button>
      <Seek at={sound.at} length={voice.seconds} levels={voice.levels} count={wide ? 96 : 28} onSeek={sound.seek} />
      <span className="shrink-0 pe-3 text-sm text-soft tabular-nums">
        {elapsed((sound.playing || sound.at > 0 ? sound.at : voice.seconds) * 1000)}
      </span>
      {/* One's own words. */}
      {/* eslint-disable-next-line jsx-a11y/media-has-caption */}
      <audio ref={audio} data-one src={voice.url ?? undefined} preload="auto" {...sound.on} />
    </div>
  );
}

/** In the place of the message box while a voice message is made. */
export function VoiceBar({ voice, held }: Props) {
  const { t, tn, elapsed } = useSpeech();
  const visavis = useVisavis();
  const announce = useAnnounce();
  const { phase, seconds, maxSeconds } = voice;
  const left = Math.max(0, Math.ceil(maxSeconds - seconds));
  const ending = phase === "recording" && left <= NEAR_END;

  function cancel() {
    visavis.cancelVoice();
    announce(t("voice.cancelled"));
  }

  // Before the screen's own Esc, which is about leaving. What is open above has its own.
  const onEscape = useEffectEvent((event: KeyboardEvent) => {
    if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open], [popover] > *") !== null) return;
    event.preventDefault();
    cancel();
  });
  useEffect(() => {
    const listener = (event: KeyboardEvent) => onEscape(event);
    window.addEventListener("keydown", listener, true);
    return () => window.removeEventListener("keydown", listener, true);
  }, []);

  useEffect(() => {
    if (phase === "recording") announce(t("voice.recording"));
  }, [phase, announce, t]);

  // What others say does not belong into it.
  useEffect(() => {
    for (const other of document.querySelectorAll<HTMLMediaElement>("[data-one]")) if (!other.paused) other.pause();
  }, []);

  return (
    <div
      data-testid="voice-bar"
      data-phase={phase}
      className="flex min-h-12.5 min-w-0 flex-1 animate-said items-center gap-2 rounded-3xl border border-edge bg-surface ps-0.5"
    >
      <IconButton label={t("voice.cancel")} data-testid="voice-cancel" className="size-11 rounded-full" onClick={cancel}>
        <Icon name="trash" />
      </IconButton>
      {phase === "asking" && <p className="py-1 pe-3 text-sm leading-tight text-soft">{t("voice.asking")}</p>}
      {phase === "recording" && (
        <div className="flex min-w-0 flex-1 items-center gap-2.5 pe-4">
          <span aria-hidden="true" className="size-3 shrink-0 animate-dot rounded-full bg-stop" />
          <span role="timer" aria-live="off" className="shrink-0 font-semibold tabular-nums">
            <span className="sr-only">{t("voice.recording")} </span>
            {elapsed(seconds * 1000)}
          </span>
          {held !== null && held > 0 ? (
            <span className="flex min-w-0 flex-1 items-center justify-center gap-1 text-sm text-soft" style={{ opacity: 1 - held * 0.6 }}>
              <Icon name="previous" className="size-4" />
              <span className="truncate">{t("voice.slide")}</span>
            </span>
          ) : ending ? (
            <span role="status" className="min-w-0 flex-1 text-sm leading-tight font-semibold text-accent-strong">
              {tn("voice.left", left)}
            </span>
          ) : (
            <Waveform flowing bars={latest(voice.levels, COUNT)} className="h-8 min-w-0 flex-1 text-accent-strong" />
          )}
        </div>
      )}
      {phase === "preview" && <Preview voice={voice} />}
    </div>
  );
}

import { type PointerEvent, useRef } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import { Waveform } from "../../ui/Waveform";
import { bars, shareAt, sought } from "../../ui/levels";

interface Props {
  readonly at: number;
  readonly length: number;
  readonly levels: readonly number[];
  /** How many bars there is room for. */
  readonly count?: number;
  readonly onSeek: (to: number) => void;
}

/** Where in the recording one is, as a slider over its waveform. */
export function Seek({ at, length, levels, count = 34, onSeek }: Props) {
  const { t, elapsed, dir } = useSpeech();
  const dragging = useRef(false);
  const share = length > 0 ? Math.min(1, at / length) : 0;

  function to(event: PointerEvent<HTMLDivElement>) {
    onSeek(shareAt(event.clientX, event.currentTarget.getBoundingClientRect(), dir) * length);
  }

  return (
    <div
      role="slider"
      tabIndex={0}
      data-testid="voice-seek"
      aria-label={t("files.seek")}
      aria-valuemin={0}
      aria-valuemax={Math.max(0.1, Math.round(length * 10) / 10)}
      aria-valuenow={Math.round(Math.min(at, length) * 10) / 10}
      aria-valuetext={t("files.at", { at: elapsed(at * 1000), length: elapsed(length * 1000) })}
      className="relative flex h-9 min-w-0 flex-1 cursor-pointer touch-none items-center rounded-md"
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        dragging.current = true;
        event.currentTarget.setPointerCapture(event.pointerId);
        to(event);
      }}
      onPointerMove={(event) => {
        if (dragging.current) to(event);
      }}
      onPointerUp={() => {
        dragging.current = false;
      }}
      onPointerCancel={() => {
        dragging.current = false;
      }}
      onKeyDown={(event) => {
        const next = sought(event.key, at, length, dir);
        if (next === null) return;
        event.preventDefault();
        onSeek(next);
      }}
    >
      {levels.length > 0 ? (
        <Waveform bars={bars(levels, count)} played={share} className="h-8 w-full" />
      ) : (
        <span aria-hidden="true" className="relative h-1.5 w-full rounded-full bg-[color-mix(in_oklab,currentColor_28%,transparent)]">
          <span className="absolute inset-y-0 start-0 rounded-full bg-current" style={{ width: `${share * 100}%` }} />
          <span className="absolute -top-[0.3rem] -ms-2 size-4 rounded-full bg-current" style={{ insetInlineStart: `${share * 100}%` }} />
        </span>
      )}
    </div>
  );
}

interface Props {
  /** 0 to 1 each. */
  readonly bars: readonly number[];
  /** Of it, what has been played: 0 to 1. */
  readonly played?: number;
  /** Bars of one width, as many as there is room for, the last ones at the end. */
  readonly flowing?: boolean;
  readonly className?: string;
}

/** Bars in the reading direction; for the eye only. */
export function Waveform({ bars, played = 1, flowing = false, className = "" }: Props) {
  return (
    <span aria-hidden="true" className={`flex items-center gap-[2px] overflow-clip ${flowing ? "justify-end" : ""} ${className}`}>
      {bars.map((level, index) => (
        <span
          // Bars never change places.
          key={index}
          className={`rounded-full ${flowing ? "w-[3px] shrink-0" : "min-w-px flex-1"} bg-current ${index < played * bars.length ? "" : "opacity-40"}`}
          style={{ height: `${Math.round(level * 100)}%` }}
        />
      ))}
    </span>
  );
}

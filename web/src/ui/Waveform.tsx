interface Props {
  /** 0 to 1 each. */
  readonly bars: readonly number[];
  /** Of it, what has been played: 0 to 1. */
  readonly played?: number;
  readonly className?: string;
}

/** Bars in the reading direction; for the eye only. */
export function Waveform({ bars, played = 1, className = "" }: Props) {
  return (
    <span aria-hidden="true" className={`flex items-center gap-[2px] overflow-clip ${className}`}>
      {bars.map((level, index) => (
        <span
          // Bars never change places.
          key={index}
          className={`min-w-px flex-1 rounded-full bg-current ${index < played * bars.length ? "" : "opacity-40"}`}
          style={{ height: `${Math.round(level * 100)}%` }}
        />
      ))}
    </span>
  );
}

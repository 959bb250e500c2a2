interface Props {
  /** 0 to 1. */
  readonly level: number;
  readonly label: string;
  readonly off: boolean;
}

const BARS = 14;

/** How loud the microphone is, as bars that fill with the reading direction. */
export function LevelMeter({ level, label, off }: Props) {
  const filled = off ? 0 : Math.round(Math.min(1, level) * BARS);
  return (
    <div
      role="meter"
      data-testid="level-meter"
      data-level={filled}
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={BARS}
      aria-valuenow={filled}
      className="flex h-5 items-center gap-1"
    >
      {Array.from({ length: BARS }, (_, index) => (
        <span
          key={index}
          className={`h-full flex-1 rounded-full transition-colors duration-75 ${index < filled ? (index > BARS - 3 ? "bg-stop" : "bg-accent") : "bg-line"}`}
        />
      ))}
    </div>
  );
}

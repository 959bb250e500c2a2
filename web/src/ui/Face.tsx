import { useId } from "react";

export type Gaze = "start" | "end" | "ahead" | "closed" | "glance";

interface Props {
  readonly hue: number;
  readonly gaze?: Gaze;
  /** Tailwind size classes. */
  readonly className?: string;
}

const SHIFT: Readonly<Record<Gaze, number>> = { start: -9, end: 9, ahead: 0, closed: 0, glance: 5 };

/** A guest: a colour and two eyes. Decoration: the name always stands beside it. */
export function Face({ hue, gaze = "ahead", className = "size-10" }: Props) {
  const shift = SHIFT[gaze];
  const clip = useId();
  return (
    <svg viewBox="-1 -1 66 66" aria-hidden="true" className={`mirrored shrink-0 ${className}`} style={{ "--hue": hue }}>
      <clipPath id={clip}>
        <circle cx="32" cy="32" r="32" />
      </clipPath>
      <circle cx="32" cy="32" r="32" className="hue-face" />
      <g clipPath={`url(#${clip})`} fill="oklch(0.22 0.02 45)" stroke="none">
        {gaze === "closed" ? (
          <g fill="none" stroke="oklch(0.22 0.02 45)" strokeWidth="3" strokeLinecap="round">
            <path d="M18 32q4.500 3.500 9 0" />
            <path d="M37 32q4.500 3.500 9 0" />
          </g>
        ) : (
          <g className={gaze === "glance" ? "animate-glance" : ""}>
            <g className="origin-center animate-blink [transform-box:fill-box]">
              <ellipse cx={23 + shift} cy="30" rx="3.6" ry="5.4" />
              <ellipse cx={41 + shift} cy="30" rx="3.6" ry="5.4" />
            </g>
          </g>
        )}
      </g>
    </svg>
  );
}

/** The place opposite, still empty. */
export function EmptySeat({ className = "size-10" }: { readonly className?: string }) {
  return (
    <svg viewBox="-1 -1 66 66" aria-hidden="true" className={`shrink-0 text-edge ${className}`}>
      <circle cx="32" cy="32" r="30.5" fill="none" stroke="currentColor" strokeWidth="2" strokeDasharray="5 6.980" strokeLinecap="round" />
    </svg>
  );
}

/** Two faces looking at each other. */
export function Logo({ className = "h-7" }: { readonly className?: string }) {
  return (
    <svg viewBox="-1 -1 124 66" aria-hidden="true" className={`mirrored w-auto shrink-0 ${className}`}>
      <circle cx="32" cy="32" r="32" className="fill-ink" />
      <g className="fill-paper">
        <ellipse cx="30" cy="30" rx="4.4" ry="6.6" />
        <ellipse cx="46" cy="30" rx="4.4" ry="6.6" />
      </g>
      <circle cx="90" cy="32" r="32" className="fill-accent" />
      <g className="fill-on-accent">
        <ellipse cx="76" cy="30" rx="4.4" ry="6.6" />
        <ellipse cx="92" cy="30" rx="4.4" ry="6.6" />
      </g>
    </svg>
  );
}

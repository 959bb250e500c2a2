import { type KeyboardEvent, useRef } from "react";

interface Props {
  readonly emoji: readonly string[];
  readonly label: string;
  readonly itemLabel: (emoji: string) => string;
  readonly chosen?: string | null;
  readonly onPick: (emoji: string) => void;
  readonly columns: number;
}

/** A grid of emoji with one tab stop; the arrows walk it. */
export function EmojiGrid({ emoji, label, itemLabel, chosen = null, onPick, columns }: Props) {
  const grid = useRef<HTMLDivElement>(null);

  function keyDown(event: KeyboardEvent<HTMLDivElement>) {
    const buttons = Array.from(grid.current?.querySelectorAll("button") ?? []);
    const here = buttons.findIndex((button) => button === document.activeElement);
    const forward = document.documentElement.dir === "rtl" ? -1 : 1;
    const step = { ArrowRight: forward, ArrowLeft: -forward, ArrowDown: columns, ArrowUp: -columns }[event.key];
    const to =
      step !== undefined ? here + step : event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1 : undefined;
    if (to === undefined || here === -1) return;
    event.preventDefault();
    const next = buttons[to];
    if (next === undefined) return;
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  }

  return (
    <div
      ref={grid}
      role="toolbar"
      aria-label={label}
      onKeyDown={keyDown}
      className="grid"
      style={{ gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))` }}
    >
      {emoji.map((one, index) => (
        <button
          key={one}
          type="button"
          aria-label={itemLabel(one)}
          aria-pressed={chosen === null ? undefined : one === chosen}
          tabIndex={index === 0 ? 0 : -1}
          onClick={() => onPick(one)}
          className="flex size-10 items-center justify-center rounded-lg text-xl leading-none hover:bg-raised aria-pressed:bg-accent-wash"
        >
          {one}
        </button>
      ))}
    </div>
  );
}

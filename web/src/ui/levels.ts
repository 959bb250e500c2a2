/** How loud a recording is over time, and places in it. */

/** Quieter than this still shows as a dot. */
const LEAST = 0.08;

/** Base64, a byte each, as levels of 0 to 1. What cannot be read is no waveform. */
export function levelsOf(waveform: string | null): readonly number[] {
  if (waveform === null) return [];
  try {
    return Array.from(atob(waveform), (letter) => letter.charCodeAt(0) / 255);
  } catch {
    return [];
  }
}

/** So many bars out of however many levels: the loudest of what falls into each, as loud as the loudest allows. */
export function bars(levels: readonly number[], count: number): readonly number[] {
  if (levels.length === 0) return Array.from({ length: count }, () => LEAST);
  const loudest = Math.max(0.12, ...levels);
  return Array.from({ length: count }, (_, index) => {
    const from = Math.floor((index * levels.length) / count);
    const to = Math.max(from + 1, Math.floor(((index + 1) * levels.length) / count));
    return Math.max(LEAST, Math.min(1, Math.max(...levels.slice(from, to)) / loudest));
  });
}

/** The last moments of a recording that goes on; the newest at the end. */
export function latest(levels: readonly number[], count: number): readonly number[] {
  const last = levels.slice(-count).map((level) => Math.max(LEAST, Math.min(1, Math.sqrt(level))));
  return [...Array.from({ length: count - last.length }, () => LEAST), ...last];
}

/** 0 to 1: where along its width, in the reading direction, something was touched. */
export function shareAt(x: number, box: { readonly left: number; readonly width: number }, direction: "ltr" | "rtl"): number {
  if (box.width <= 0) return 0;
  const share = Math.max(0, Math.min(1, (x - box.left) / box.width));
  return direction === "ltr" ? share : 1 - share;
}

const STEP = 2;
const LEAP = 10;

/** Where a key takes a slider over time, in seconds; null if the key is not for it. */
export function sought(key: string, at: number, length: number, direction: "ltr" | "rtl"): number | null {
  const on = direction === "ltr" ? 1 : -1;
  const by = { ArrowRight: on * STEP, ArrowLeft: -on * STEP, ArrowUp: STEP, ArrowDown: -STEP, PageUp: LEAP, PageDown: -LEAP }[key];
  const to = by !== undefined ? at + by : key === "Home" ? 0 : key === "End" ? length : null;
  return to === null ? null : Math.max(0, Math.min(length, to));
}

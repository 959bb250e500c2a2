import { expect, test } from "vitest";
import { bars, latest, levelsOf, shareAt, sought } from "./levels";

test("a waveform is read, and a broken one is none", () => {
  expect(levelsOf(btoa(String.fromCharCode(0, 51, 255)))).toEqual([0, 0.2, 1]);
  expect(levelsOf("not base64!")).toEqual([]);
  expect(levelsOf(null)).toEqual([]);
});

test("bars keep the peaks, whether there are more levels or fewer", () => {
  expect(bars([0, 0.5, 0, 1, 0, 0.25], 3)).toEqual([0.5, 1, 0.25]);
  expect(bars([0.5, 1], 4)).toEqual([0.5, 0.5, 1, 1]);
});

test("silence is a row of dots, not a roar, and nothing is too", () => {
  expect(Math.max(...bars([0.001, 0.002], 2))).toBeLessThan(0.1);
  expect(bars([], 3)).toHaveLength(3);
});

test("what was said last stands at the end", () => {
  const shown = latest([0.25, 1], 4);
  expect(shown).toHaveLength(4);
  expect(shown.slice(2)).toEqual([0.5, 1]);
  expect(latest([0, 0, 0.25, 1], 2)).toEqual([0.5, 1]);
});

test("a touch is a place in the reading direction", () => {
  const box = { left: 100, width: 200 };
  expect(shareAt(150, box, "ltr")).toBe(0.25);
  expect(shareAt(150, box, "rtl")).toBe(0.75);
  expect(shareAt(900, box, "ltr")).toBe(1);
  expect(shareAt(1, { left: 0, width: 0 }, "ltr")).toBe(0);
});

test("keys seek within the recording, arrows in the reading direction", () => {
  expect(sought("ArrowRight", 5, 30, "ltr")).toBe(7);
  expect(sought("ArrowRight", 5, 30, "rtl")).toBe(3);
  expect(sought("ArrowUp", 5, 30, "rtl")).toBe(7);
  expect(sought("PageDown", 5, 30, "ltr")).toBe(0);
  expect(sought("End", 5, 30, "ltr")).toBe(30);
  expect(sought("Home", 5, 30, "ltr")).toBe(0);
  expect(sought("ArrowRight", 29.5, 30, "ltr")).toBe(30);
  expect(sought("Enter", 5, 30, "ltr")).toBeNull();
});

import { describe, expect, test } from "vitest";
import { isBigEmoji, plain, plainLine } from "./plain";

describe("plain", () => {
  test("text of many scripts stays as it is", () => {
    for (const text of ["Hello!\n\tWorld", "Việt Nam", "שָׁלוֹם", "مرحبًا", "नमस्ते", "👩‍👩‍👧 ❤️‍🔥 🏴󠁧󠁢󠁥󠁮󠁧󠁿", "می‌خواهم"])
      expect(plain(text)).toBe(text);
  });

  test("controls that reorder or hide text are removed", () => {
    expect(plain("\u202Egpj.exe\u202C \u2066x\u2069 a\u0000b\u0007c\u009Fd\uFEFF\u2060e")).toBe("gpj.exe x abcde");
  });

  test("every kind of line end is one line feed", () => {
    expect(plain("a\r\nb\rc\u2028d\u0085e")).toBe("a\nb\nc\nd\ne");
  });

  test("a tower of marks is capped", () => {
    const tower = `z${"\u0351".repeat(500)}a`;
    expect(plain(tower)).toBe(`z${"\u0351".repeat(5)}a`);
  });

  test("a wall of empty lines is capped", () => {
    expect(plain(`a${"\n".repeat(4000)}b`)).toBe("a\n\n\nb");
  });

  test.each([
    ["marks", "\u0351".repeat(100_000)],
    ["line feeds", "\n".repeat(100_000)],
    ["controls", "\u202E\u0000".repeat(50_000)],
    ["marks just under the cap", `a${"\u0351".repeat(5)}`.repeat(16_000)],
  ])("100 KB of %s take linear time", (_name, text) => {
    const start = performance.now();
    for (let run = 0; run < 3; run += 1) plain(text);
    expect((performance.now() - start) / 3).toBeLessThan(50);
  });
});

test("a quote is one line and short", () => {
  expect(plainLine("a\n\n  b")).toBe("a b");
  expect(plainLine("😀".repeat(300), 10)).toBe(`${"😀".repeat(10)}…`);
});

test("one to three emoji alone are shown large", () => {
  expect(["🎉", "👩‍👩‍👧", "❤️ 🔥", "👍🏽"].map(isBigEmoji)).toEqual([true, true, true, true]);
  expect(["", "  ", "hi 🎉", "12", "🎉🎉🎉🎉"].map(isBigEmoji)).toEqual([false, false, false, false, false]);
});

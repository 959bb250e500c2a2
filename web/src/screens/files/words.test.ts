import { expect, test } from "vitest";
import { ar } from "../../i18n/ar";
import { en } from "../../i18n/en";
import { calls } from "../../i18n/en.calls";
import { files } from "../../i18n/en.files";
import { speak } from "../../i18n/speak";
import { until } from "../until";
import { fileIcon, fileWords, keptWords, kindOf, refusalWords, sizeWords, typeWords } from "./words";

const english = speak("en", { ...en, ...calls, ...files });
const arabic = speak("ar", ar);

test("sizes are in the unit one would say", () => {
  expect([1, 640, 1500, 42_000, 999_990, 26_214_400, 1_300_000_000].map((bytes) => sizeWords(english, bytes))).toEqual([
    "1 byte",
    "640 bytes",
    "1.5 kB",
    "42 kB",
    "1 MB",
    "26 MB",
    "1.3 GB",
  ]);
  expect(sizeWords(arabic, 2_500_000)).toContain("٢٫٥");
});

test("what is left of its time, and how much there is at all", () => {
  expect(until(english, 23.6 * 3_600_000)).toBe("in 23 hours");
  expect(until(english, 90 * 60_000)).toBe("in 90 minutes");
  expect(until(english, -5)).toBe("in 1 minute");
  expect(keptWords(english, 86_400)).toBe("24 hours");
  expect(keptWords(english, 8)).toBe("1 minute");
});

test("a file is called by its kind, or by its name where that says more", () => {
  const file = { kind: "voice", name: "voice.ogg", seconds: 12.4 } as const;
  expect(fileWords(english, file)).toBe("Voice message · 0:12");
  expect(fileWords(english, { ...file, kind: "picture", seconds: null })).toBe("Photo");
  expect(fileWords(english, { ...file, kind: "document", name: "\u202Etravel.pdf" })).toBe("travel.pdf");
  expect(typeWords(english, "document", "travel plan.pdf")).toBe("PDF");
  expect(typeWords(english, "document", "README")).toBe("Document");
});

test("icons tell documents apart", () => {
  const icons = ["a.zip", "b.CSV", "c.pdf", "d"].map((name) => fileIcon({ kind: "document", name }));
  expect(icons).toEqual(["archive", "sheet", "pages", "file"]);
  expect(fileIcon({ kind: "voice", name: "x.zip" })).toBe("voice");
});

test("a limit is said in words, and a refusal without one as well", () => {
  expect(refusalWords(english, "file_too_large", 25_000_000)).toBe("Too large: 25 MB at most.");
  expect(refusalWords(english, "picture_too_large", 40_000_000)).toBe("Too many pixels: 40 million at most.");
  expect(refusalWords(english, "file_too_large", null)).toBe("That file is too large.");
  expect(refusalWords(english, "unreadable_here", null)).toBe("This device can’t read that file.");
});

test("a guess at its kind, from what the browser says", () => {
  expect(["image/png", "video/mp4", "audio/ogg", "application/pdf", ""].map(kindOf)).toEqual([
    "picture",
    "video",
    "audio",
    "document",
    "document",
  ]);
});

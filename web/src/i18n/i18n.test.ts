import { describe, expect, test } from "vitest";
import { ERROR_CODES } from "../contract.gen";
import { ar } from "./ar";
import { en as firstLoad } from "./en";
import { calls } from "./en.calls";
import { files } from "./en.files";
import { es } from "./es";
import { english as spokenEnglish, load, loadCalls } from "./load";
import { speak, variety } from "./speak";

const en = { ...firstLoad, ...calls, ...files };
const LANGUAGES = { en, es, ar } as const;
const gaps = (text: string) => [...new Set(text.match(/\{\w+\}/g))].sort();

describe.each(Object.entries(LANGUAGES))("%s", (locale, texts) => {
  test("has the keys of English, no more and no fewer", () => {
    expect(Object.keys(texts).sort()).toEqual(Object.keys(en).sort());
  });

  test("has words for every error code", () => {
    for (const code of [...ERROR_CODES, "unreachable"]) expect(Object.keys(texts)).toContain(`error.${code}`);
  });

  test("has a form for each plural category of the language", () => {
    const { pluralCategories } = new Intl.PluralRules(locale).resolvedOptions();
    for (const [key, text] of Object.entries<string | object>(texts))
      if (typeof text !== "string") expect({ key, forms: Object.keys(text).sort() }).toEqual({ key, forms: [...pluralCategories].sort() });
  });

  test("leaves no text empty and invents no gaps", () => {
    for (const [key, text] of Object.entries(texts)) {
      const source: unknown = en[key as keyof typeof en];
      if (typeof text === "string" && typeof source === "string") {
        expect(text.trim()).not.toBe("");
        expect({ key, gaps: gaps(text) }).toEqual({ key, gaps: gaps(source) });
      }
    }
  });
});

describe("speak", () => {
  const english = speak("en", en);
  const arabic = speak("ar", ar);

  test("plurals follow the language", async () => {
    expect(english.tn("lobby.online", 1)).toBe("1 person here now");
    expect(english.tn("lobby.online", 1200)).toBe("1,200 people here now");
    expect([2, 3, 11, 100].map((n) => arabic.tn("lobby.online", n))).toEqual([
      "شخصان هنا الآن",
      "٣ أشخاص هنا الآن",
      "١١ شخصًا هنا الآن",
      "١٠٠ شخص هنا الآن",
    ]);
    expect((await load("es")).tn("lobby.online", 2)).toBe("2 personas aquí ahora");
  });

  test("the reader's own variety of a language decides how times and dates look", () => {
    expect(variety("en", ["fr-FR", "en-GB", "en-US"])).toBe("en-GB");
    expect(variety("ar", ["en-GB"])).toBe("ar-u-nu-arab");
    const afternoon = new Date(2026, 4, 17, 15, 4).getTime();
    expect(speak("en", en, "en-GB").time(afternoon)).toBe("15:04");
    expect(speak("en", en, "en-US").time(afternoon)).toMatch(/3:04.PM/);
  });

  test("what conversations show is there once it is loaded", async () => {
    await loadCalls();
    expect(spokenEnglish().t("call.calling", { name: "Teal Heron" })).toBe("Calling Teal Heron…");
    expect(spokenEnglish().tn("files.send", 2)).toBe("Send 2 files");
  });

  test("lists are lists of the language", () => {
    expect(english.any(["climbing", "jazz"])).toBe("climbing or jazz");
    expect(english.all(["tea", "climbing", "jazz"])).toBe("tea, climbing, and jazz");
  });

  test("a name of the other direction is fenced off, one of the same is not", () => {
    expect(english.t("chat.hello", { name: "Teal Heron" })).toBe("Say hello to Teal Heron");
    expect(english.t("chat.hello", { name: "مها" })).toBe("Say hello to \u2068مها\u2069");
    expect(arabic.t("chat.hello", { name: "Teal" })).toBe("رحّب بـ \u2068Teal\u2069");
  });

  test("elapsed time and days are in the language's digits and words", () => {
    expect(english.elapsed(67_900)).toBe("1:07");
    expect(arabic.elapsed(67_000)).toBe("١:٠٧");
    const noon = new Date(2026, 4, 20, 12).getTime();
    expect(english.day(noon - 3_600_000, noon)).toBe("Today");
    expect(english.day(noon - 86_400_000, noon)).toBe("Yesterday");
    expect(english.day(noon - 3 * 86_400_000, noon)).toBe("Sunday, May 17");
  });
});

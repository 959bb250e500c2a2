// @vitest-environment jsdom
import { act } from "react";
import { createRoot } from "react-dom/client";
import { afterAll, expect, test, vi } from "vitest";
import { App } from "./App";
import { fakeVisavis, SCENES } from "./gallery-scenes";

vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
// What the test's page lacks and every browser has.
vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => undefined, removeEventListener: () => undefined }));
Element.prototype.scrollTo = () => undefined;
afterAll(() => vi.unstubAllGlobals());

async function show(name: string, locale: "en" | "ar") {
  const visavis = fakeVisavis({ ...SCENES[name], settings: { theme: "light", sounds: true, locale } });
  const page = document.body.appendChild(document.createElement("div"));
  const root = createRoot(page);
  await act(async () => {
    root.render(<App visavis={visavis} />);
    // Languages and the conversation come as parts of their own.
    await import("./screens/Conversation");
    await import("./i18n/ar");
    await new Promise((resolve) => setTimeout(resolve, 20));
  });
  return {
    page,
    gone() {
      act(() => root.unmount());
      page.remove();
    },
  };
}

test.each(Object.keys(SCENES).flatMap((name) => [[name, "en"] as const, [name, "ar"] as const]))(
  "%s shows in %s",
  async (name, locale) => {
    const { page, gone } = await show(name, locale);
    expect(page.querySelector("h1")?.textContent).not.toBe("");
    expect(document.documentElement.dir).toBe(locale === "ar" ? "rtl" : "ltr");
    gone();
  },
);

test("a stranger's markup stays text, and a link says where it goes", async () => {
  const { page, gone } = await show("conversation", "en");
  const link = page.querySelector<HTMLAnchorElement>("[data-testid=message] a");
  expect(link?.rel.split(" ").sort()).toEqual(["nofollow", "noopener", "noreferrer", "ugc"]);
  expect(link?.target).toBe("_blank");
  expect(link?.textContent).toContain("example.org");
  gone();
});

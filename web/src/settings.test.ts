import { describe, expect, it } from "vitest";
import { Browser, Network } from "./network.fake";

describe("settings", () => {
  it("begin with the first language of the browser that the interface speaks", () => {
    const browser = new Browser(new Network());
    browser.languages = ["fr-FR", "ar-EG", "es"];
    browser.open();
    expect(browser.app.settings.get()).toEqual({ theme: "system", sounds: true, locale: "ar", coverPictures: true });
  });

  it("are kept for the next visit, and only what was chosen", () => {
    const network = new Network();
    const browser = new Browser(network);
    browser.open();
    browser.app.setSettings({ theme: "dark", sounds: false, coverPictures: false });
    const later = new Browser(network, browser.local);
    later.languages = ["es"];
    later.open();
    expect(later.app.settings.get()).toEqual({ theme: "dark", sounds: false, locale: "es", coverPictures: false });
  });
});

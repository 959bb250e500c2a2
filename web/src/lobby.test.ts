import { describe, expect, it } from "vitest";
import { normaliseInterest } from "./interest";
import { Browser, Network } from "./network.fake";

describe("interests", () => {
  it.each([
    ["  Jazz\t\n music ", "jazz music"],
    ["STRASSE", "strasse"],
    ["Straße", "strasse"],
    ["ΟΔΥΣΣΕΎΣ", "οδυσσεύσ"],
    ["ｆｕｌｌ　ｗｉｄｔｈ", "full width"],
    ["ﬁshing", "fishing"],
    ["soft\u00adhyphen\u200b", "softhyphen"],
    ["bell\u0007", "bell"],
    ["İstanbul", "i\u0307stanbul"],
    ["ꭰ", "Ꭰ"],
    ["♥\ufe0f", "♥"],
    ["\u200b\ufeff", ""],
    ["x".repeat(50), "x".repeat(40)],
    [`${"y".repeat(39)} z`, "y".repeat(39)],
  ])("%j is compared as %j, as on the server", (text, expected) => {
    expect(normaliseInterest(text)).toBe(expected);
    expect(normaliseInterest(expected)).toBe(expected);
  });

  it("are refused when empty, repeated or one too many", async () => {
    const { app } = await new Network().guest();
    expect(app.addInterest("Jazz")).toBe("jazz");
    expect(app.addInterest(" jazz")).toBeNull();
    expect(app.addInterest("  ")).toBeNull();
    for (let number = 2; number <= 10; number += 1) expect(app.addInterest(`topic ${number}`)).not.toBeNull();
    expect(app.addInterest("eleventh")).toBeNull();
    app.removeInterest("jazz");
    expect(app.addInterest("eleventh")).toBe("eleventh");
    expect(app.lobby.get().interests).toHaveLength(10);
  });
});

describe("the lobby", () => {
  it("takes the languages from the browser until they are chosen, and remembers the choices", async () => {
    const network = new Network();
    const ann = await network.guest();
    expect(ann.app.lobby.get().languages).toEqual(["en", "pt"]);
    ann.app.setLanguages(["es", "ES-mx", "not a tag", "fil"]);
    ann.app.addInterest("jazz");
    const later = new Browser(network, ann.local);
    later.open();
    expect(later.app.lobby.get()).toMatchObject({ languages: ["es", "fil"], interests: ["jazz"] });
  });

  it("offers only the modes there are", async () => {
    const { app } = await new Network().guest();
    app.setMode("video");
    expect(app.lobby.get().mode).toBe("text");
  });

  it("follows who is here", async () => {
    const network = new Network();
    const ann = await network.guest();
    network.push(network.guestOf(ann), "lobby:state", { online: 7, waiting: 2, popular: [{ interest: "go", guests: 3 }] });
    await network.clock.run(100);
    expect(ann.app.lobby.get()).toMatchObject({ online: 7, waiting: 2, popular: [{ interest: "go", guests: 3 }] });
  });
});

import { describe, expect, it } from "vitest";
import { Network, type Browser } from "./network.fake";

const lastId = (browser: Browser) => browser.talk.messages.at(-1)?.id ?? "";

describe("a conversation", () => {
  it("shows each side the other, and why they met", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    expect(ann.talk.partner.name).not.toBe(bob.talk.partner.name);
    expect(ann.talk).toMatchObject({ presence: "here", ended: null, why: { interests: ["jazz"] } });
    expect([ann.moments, bob.moments]).toEqual([["matched"], ["matched"]]);
  });

  it("brings a message from sending through sent and delivered to read", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.say("hello", null);
    expect(ann.deliveries).toEqual(["sending"]);
    await network.clock.run(20);
    expect(ann.deliveries).toEqual(["sent"]);
    await network.clock.run(100);
    expect(ann.deliveries).toEqual(["delivered"]);
    expect(bob.talk.unread).toBe(1);
    bob.app.setWatching(true);
    expect(bob.talk.unread).toBe(0);
    await network.clock.run(100);
    expect(ann.deliveries).toEqual(["read"]);
  });

  it("counts nothing as unread while somebody watches", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.app.setWatching(true);
    ann.app.say("hello", null);
    await network.clock.run(200);
    expect(bob.talk.unread).toBe(0);
    expect(bob.moments).toEqual(["matched", "message"]);
    expect(ann.deliveries).toEqual(["read"]);
  });

  it("refuses what cannot be said, and keeps the draft", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.setDraft("  ");
    expect(ann.app.say("  \n ", null)).toBe(false);
    expect(ann.app.say("x".repeat(4_001), null)).toBe(false);
    expect(ann.talk.draft).toBe("  ");
    // The limit counts characters, not the pairs of which JavaScript makes them.
    expect(ann.app.say("😀".repeat(4_000), null)).toBe(true);
    expect(ann.talk.draft).toBe("");
    ann.app.say("half \ud83d a pair", null);
    await network.clock.run(200);
    expect(bob.texts.at(-1)).toBe("half \ufffd a pair");
  });

  it("quotes what a reply answers, until that is deleted", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.say("which one?", null);
    await network.clock.run(100);
    bob.app.say("that one", lastId(bob));
    await network.clock.run(100);
    expect(ann.talk.messages.at(-1)?.replyTo).toEqual({ id: ann.talk.messages[0]?.id, mine: true, text: "which one?", file: null });
    ann.app.remove(ann.talk.messages[0]?.id ?? "");
    await network.clock.run(100);
    expect(bob.talk.messages.at(-1)?.replyTo?.text).toBeNull();
  });

  it("deletes a message on both sides, but only one's own", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.say("oh no", null);
    await network.clock.run(100);
    bob.app.remove(lastId(bob));
    await network.clock.run(100);
    expect([ann.texts, bob.texts]).toEqual([["oh no"], ["oh no"]]);
    network.push(network.guestOf(ann), "chat:message", {
      conversationId: ann.talk.id,
      seat: 1,
      id: "forged",
      seq: 1,
      body: { kind: "deletion", target: lastId(ann) },
      at: 0,
    });
    await network.clock.run(100);
    expect(ann.texts).toEqual(["oh no"]);
    ann.app.remove(lastId(ann));
    await network.clock.run(100);
    expect([ann.texts, bob.texts]).toEqual([[null], [null]]);
    expect(bob.talk).toMatchObject({ unread: 0, messages: [{ deleted: true }] });
  });

  it("never sends the words of a message deleted before it could leave", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.down = true;
    network.cut(ann);
    ann.app.say("secret", null);
    ann.app.remove(lastId(ann));
    ann.app.say("hello", null);
    network.down = false;
    await network.clock.run(10_000);
    expect(bob.texts).toEqual(["hello"]);
    expect(JSON.stringify(network.requests)).not.toContain("secret");
  });

  it("keeps one reaction of each side, the latest, and takes it back", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.say("hello", null);
    await network.clock.run(100);
    bob.app.react(lastId(bob), "👍");
    bob.app.react(lastId(bob), "🎉");
    ann.app.react(lastId(ann), "😀");
    await network.clock.run(100);
    expect(ann.talk.messages[0]?.reactions).toEqual([
      { mine: true, emoji: "😀" },
      { mine: false, emoji: "🎉" },
    ]);
    bob.app.react(lastId(bob), null);
    await network.clock.run(100);
    expect(ann.talk.messages[0]?.reactions).toEqual([{ mine: true, emoji: "😀" }]);
    expect(bob.talk.messages[0]?.reactions).toEqual([{ mine: false, emoji: "😀" }]);
  });

  it("ignores what belongs to another conversation or another seat", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    const message = { seat: 1, id: "x", seq: 1, body: { kind: "text", text: "boo" }, at: 0 } as const;
    network.push(network.guestOf(ann), "chat:message", { ...message, conversationId: "another" });
    network.push(network.guestOf(ann), "chat:message", { ...message, conversationId: ann.talk.id, seat: 0 });
    await network.clock.run(100);
    expect(ann.texts).toEqual([]);
  });

  it("shows an id once, whatever number it comes under", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    const message = { conversationId: ann.talk.id, seat: 1, id: "x", body: { kind: "text", text: "boo" }, at: 0 } as const;
    network.push(network.guestOf(ann), "chat:message", { ...message, seq: 1 });
    network.push(network.guestOf(ann), "chat:message", { ...message, seq: 2 });
    await network.clock.run(100);
    expect(ann.texts).toEqual(["boo"]);
  });

  it("leaves the rows alone that did not change", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    ann.app.say("one", null);
    await network.clock.run(200);
    const before = ann.talk.messages[0];
    ann.app.say("two", null);
    await network.clock.run(200);
    expect(ann.talk.messages[0]).toBe(before);
  });
});

describe("typing", () => {
  it("shows at the first keystroke, goes on while it goes on, and stops after three seconds of silence", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    for (let stroke = 1; stroke <= 10; stroke += 1) {
      ann.app.setDraft("x".repeat(stroke));
      await network.clock.run(1_000);
      expect(bob.talk.typing).toBe(true);
    }
    await network.clock.run(2_100);
    expect(bob.talk.typing).toBe(false);
    expect(network.requested("chat:typing", ann).map((request) => request.typing)).toEqual([true, true, true, false]);
  });

  it("stops with the message, which is word enough, and never outlives it", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.setDraft("h");
    await network.clock.run(100);
    ann.app.say("hello", null);
    await network.clock.run(100);
    expect(bob.talk.typing).toBe(false);
    await network.clock.run(10_000);
    expect(network.requested("chat:typing", ann).map((request) => request.typing)).toEqual([true]);
  });

  it("is forgotten after six seconds without news, and when the partner goes away", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.setDraft("h");
    await network.clock.run(100);
    network.mute(ann);
    await network.clock.run(5_800);
    expect(bob.talk.typing).toBe(true);
    await network.clock.run(300);
    expect(bob.talk.typing).toBe(false);
    ann.reload();
    await network.clock.run(500);
    ann.app.setDraft("he");
    await network.clock.run(100);
    expect(bob.talk.typing).toBe(true);
    ann.crash();
    await network.clock.run(100);
    expect(bob.talk).toMatchObject({ typing: false, presence: "away" });
  });
});

describe("a reload", () => {
  it("comes back to everything said, the draft and what was still to be sent", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.app.say("hello", null);
    await network.clock.run(200);
    network.down = true;
    network.cut(ann);
    ann.app.say("not sent yet", null);
    ann.app.setDraft("half a thou");
    ann.hide();
    ann.reload();
    expect(ann.talk).toMatchObject({ draft: "half a thou", ended: null, unread: 1 });
    expect(ann.texts).toEqual(["hello", "not sent yet"]);
    network.down = false;
    await network.clock.run(10_000);
    expect(bob.texts).toEqual(["hello", "not sent yet"]);
    expect(network.attempts.at(-1)?.auth.claim).toBe(`claim-${ann.talk.id}`);
  });

  it("keeps the numbers of delivery when the history does not fit any more", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.session.room = 2_000;
    for (let number = 0; number < 20; number += 1) ann.app.say(`${number} `.repeat(50), null);
    await network.clock.run(1_000);
    bob.reload();
    await network.clock.run(1_000);
    ann.app.say("after", null);
    await network.clock.run(1_000);
    expect(bob.texts.at(-1)).toBe("after");
    expect(bob.texts.length).toBeLessThan(21);
  });

  it("works where the browser keeps nothing", async () => {
    const network = new Network();
    const ann = await network.guest();
    const bob = await network.guest();
    ann.session.room = 0;
    ann.reload();
    await network.clock.run(1_000);
    void ann.app.find();
    void bob.app.find();
    await network.clock.run(1_000);
    ann.app.say("hello", null);
    await network.clock.run(1_000);
    expect(bob.texts).toEqual(["hello"]);
  });
});

describe("the end", () => {
  it("is told to the partner, and what did not arrive is lost", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.say("arrives", null);
    await network.clock.run(200);
    network.swallow = { event: "chat:message", count: 1 };
    ann.app.say("does not", null);
    await network.clock.run(200);
    await Promise.all([bob.app.leave(), network.clock.run(200)]);
    expect(ann.talk).toMatchObject({ ended: "left", presence: "left" });
    expect(ann.deliveries).toEqual(["delivered", "lost"]);
    expect(ann.app.say("too late", null)).toBe(false);
    expect(bob.talk.ended).toBe("me");
    expect(ann.moments.at(-1)).toBe("ended");
    expect(bob.moments.at(-1)).toBe("message");
    ann.app.close();
    expect(ann.app.conversation.get()).toBeNull();
  });

  it("stays readable after a reload", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.say("hello", null);
    await network.clock.run(200);
    await Promise.all([ann.app.leave(), network.clock.run(200)]);
    bob.reload();
    await network.clock.run(500);
    expect(bob.talk.ended).toBe("left");
    expect(bob.texts).toEqual(["hello"]);
  });

  it("is lost when the server knows of no conversation any more", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.guestOf(ann).talk = null;
    network.cut(ann);
    await network.clock.run(1_000);
    expect(ann.talk).toMatchObject({ ended: "missed", presence: "lost" });
  });

  it("is found out by asking anew when the server denies the seat", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.guestOf(ann).talk = null;
    ann.app.say("anybody?", null);
    await network.clock.run(1_000);
    expect(ann.talk.ended).toBe("missed");
    expect(ann.deliveries).toEqual(["lost"]);
  });

  it("reaches the server even if the network was away when the guest left", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.down = true;
    network.cut(ann);
    await Promise.all([ann.app.leave(), network.clock.run(100)]);
    ann.reload();
    network.down = false;
    await network.clock.run(10_000);
    expect(ann.talk.ended).toBe("me");
    expect(bob.talk.ended).toBe("left");
  });
});

describe("safety", () => {
  it("blocks, which ends the conversation for both", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const [code] = await Promise.all([ann.app.block(), network.clock.run(200)]);
    expect(code).toBeNull();
    expect(ann.talk).toMatchObject({ blocked: true, ended: "me" });
    expect(bob.talk.ended).toBe("left");
  });

  it("reports the chosen messages and nothing else, also after the end", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.app.say("rude", null);
    bob.app.say("fine", null);
    await network.clock.run(200);
    await Promise.all([bob.app.leave(), network.clock.run(200)]);
    const messageIds = [ann.talk.messages[0]?.id ?? "", "unknown"];
    const report = { reason: "harassment", words: "look", messageIds, fileIds: [], block: true } as const;
    const [code] = await Promise.all([ann.app.report(report), network.clock.run(200)]);
    expect(code).toBeNull();
    expect(network.requested("safety:report", ann)[0]).toMatchObject({
      reason: "harassment",
      words: "look",
      messages: [{ id: messageIds[0], mine: false, text: "rude" }],
    });
    expect(network.requested("safety:block", ann)).toHaveLength(1);
    expect(ann.talk).toMatchObject({ reported: true, blocked: true, ended: "left" });
  });

  it("says what went wrong", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.answerNext = { event: "safety:block", answer: { error: { code: "unavailable", retryInMs: 2_000 } } };
    const [code] = await Promise.all([ann.app.block(), network.clock.run(200)]);
    expect(code).toBe("unavailable");
    expect(ann.talk).toMatchObject({ blocked: false, ended: null });
  });
});

import { describe, expect, it } from "vitest";
import { LIMITS } from "./files.fake";
import { Network, type Browser } from "./network.fake";

const fileOf = (name: string) => new File(["x".repeat(2_000)], name, { type: name.endsWith(".png") ? "image/png" : "text/plain" });

/** Two guests, and a picture that the first has sent. */
async function shared(network = new Network(), names = ["cat.png"]): Promise<[Network, Browser, Browser, string]> {
  const [ann, bob] = await network.pair();
  ann.app.share(names.map((name) => ({ file: fileOf(name), text: "look" })));
  await network.clock.run(10_000);
  return [network, ann, bob, bob.talk.messages[0]?.file?.id ?? ""];
}

const view = (browser: Browser) => browser.app.files.get();
const places = (browser: Browser) => [...view(browser).places.values()].map(({ main }) => main);
const asked = (network: Network) => network.requested("file:open").length;

describe("the place of a file", () => {
  it("is asked for once, by either side, and renewed before it ends", async () => {
    const [network, ann, bob, id] = await shared();
    await Promise.all([bob.app.openFile(id), bob.app.openFile(id), network.clock.run(100)]);
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    expect(view(bob).places.get(id)).toEqual({ main: "/files/pass-1/main", thumb: "/files/pass-1/thumb", download: "/files/pass-1/download" });
    expect(asked(network)).toBe(1);
    await Promise.all([ann.app.openFile(id), network.clock.run(100)]);
    expect(places(ann)).toEqual(["/files/pass-2/main"]);
    await network.clock.run(600_000);
    expect(places(bob)).toEqual(["/files/pass-3/main"]);
  });

  it("has no small picture where there is none", async () => {
    const [network, , bob, id] = await shared(new Network(), ["notes.txt"]);
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    expect(view(bob).places.get(id)?.thumb).toBeNull();
  });

  it("is renewed for those alone that were asked for, and no longer than the conversation is on screen", async () => {
    const [network, , bob, id] = await shared(new Network(), ["1.png", "2.png"]);
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    await network.clock.run(1_800_000);
    expect(view(bob).places.size).toBe(1);
    const before = asked(network);
    await Promise.all([bob.app.leave(), network.clock.run(100)]);
    bob.app.close();
    expect(view(bob).places.size).toBe(0);
    await network.clock.run(1_800_000);
    expect(asked(network)).toBe(before);
  });

  it("is not asked for in the next conversation", async () => {
    const [network, ann, bob, id] = await shared();
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    void bob.app.skip();
    await network.clock.run(500);
    void ann.app.find();
    await network.clock.run(1_800_000);
    expect(bob.talk.ended).toBeNull();
    expect(asked(network)).toBe(1);
  });

  it("is asked for again when the network is back", async () => {
    const [network, , bob, id] = await shared();
    network.down = true;
    network.cut(bob);
    await Promise.all([bob.app.openFile(id), network.clock.run(30_000)]);
    expect(places(bob)).toEqual([]);
    network.down = false;
    await network.clock.run(10_000);
    expect(places(bob)).toEqual(["/files/pass-1/main"]);
  });

  it("waits when the server asks to wait", async () => {
    const [network, , bob, id] = await shared();
    network.answerNext = { event: "file:open", answer: { error: { code: "rate_limited", retryInMs: 5_000 } } };
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    await Promise.all([bob.app.openFile(id), network.clock.run(4_000)]);
    expect(asked(network)).toBe(1);
    await network.clock.run(2_000);
    expect(places(bob)).toEqual(["/files/pass-1/main"]);
  });

  it("is asked for anew when it does not work, but not without end", async () => {
    const [network, , bob, id] = await shared();
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    const again = bob.app.fileFailed(id);
    expect(places(bob)).toEqual([]);
    await Promise.all([again, network.clock.run(100)]);
    expect(places(bob)).toEqual(["/files/pass-2/main"]);
    for (let turn = 0; turn < 600; turn += 1) {
      const { size } = view(bob).places;
      await Promise.all([size > 0 ? bob.app.fileFailed(id) : undefined, network.clock.run(1_000)]);
    }
    expect(asked(network)).toBeLessThan(20);
  });

  it("can be had after the conversation ended, until one leaves it", async () => {
    const [network, ann, bob, id] = await shared();
    await Promise.all([ann.app.leave(), network.clock.run(100)]);
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    expect(places(bob)).toEqual(["/files/pass-1/main"]);
  });
});

describe("a file", () => {
  it("is gone when its time is over, whoever looks", async () => {
    const [network, , bob, id] = await shared();
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    await network.clock.run(LIMITS.seconds * 1_000 - 20_000);
    expect(view(bob).gone.size).toBe(0);
    await network.clock.run(20_000);
    expect([...view(bob).gone]).toEqual([id]);
    expect(view(bob).places.size).toBe(0);
    const before = asked(network);
    await Promise.all([bob.app.openFile(id), bob.app.fileFailed(id), network.clock.run(3_600_000)]);
    expect(asked(network)).toBe(before);
  });

  it("expires by the server's clock, where this device's is wrong", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.clockAhead = 48 * 3_600_000;
    ann.app.share([{ file: fileOf("cat.png"), text: "" }]);
    await network.clock.run(10_000);
    expect(view(bob).gone.size).toBe(0);
    bob.hide();
    bob.reload();
    await network.clock.run(1_000);
    expect(view(bob).gone.size).toBe(0);
    await network.clock.run(LIMITS.seconds * 1_000);
    expect(view(bob).gone.size).toBe(1);
  });

  it("is gone when the server says so", async () => {
    const [network, , bob, id] = await shared();
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    for (const upload of network.files.all) upload.gone = true;
    await Promise.all([bob.app.fileFailed(id), network.clock.run(100)]);
    expect([...view(bob).gone]).toEqual([id]);
    expect(places(bob)).toEqual([]);
  });

  it("goes with the message it was sent in, for both and from the server", async () => {
    const [network, ann, bob, id] = await shared();
    await Promise.all([bob.app.openFile(id), network.clock.run(100)]);
    bob.app.say("what is it?", bob.talk.messages[0]?.id ?? "");
    await network.clock.run(100);
    bob.app.remove(bob.talk.messages[0]?.id ?? "");
    ann.app.remove(ann.talk.messages[0]?.id ?? "");
    await network.clock.run(100);
    for (const side of [ann, bob]) {
      expect(side.talk.messages[0]).toMatchObject({ deleted: true, text: null, file: null });
      expect(side.talk.messages[1]?.replyTo).toMatchObject({ text: null, file: null });
      expect([...view(side).gone]).toEqual([id]);
    }
    expect(places(bob)).toEqual([]);
    expect(network.files.all.map(({ gone }) => gone)).toEqual([true]);
    for (const side of [ann, bob]) expect(JSON.stringify([...side.session.items])).not.toContain("seal-");
  });

  it("is deleted from the server even if it did not hear that at first", async () => {
    const [network, ann] = await shared();
    network.down = true;
    network.cut(ann);
    ann.app.remove(ann.talk.messages[0]?.id ?? "");
    await network.clock.run(5_000);
    ann.hide();
    ann.reload();
    await network.clock.run(5_000);
    network.down = false;
    await network.clock.run(60_000);
    expect(network.files.all.map(({ gone }) => gone)).toEqual([true]);
    const deletions = network.fetched.filter((one) => one.startsWith("DELETE")).length;
    await network.clock.run(600_000);
    expect(network.fetched.filter((one) => one.startsWith("DELETE"))).toHaveLength(deletions);
  });

  it("is covered until uncovered, or always shown in this conversation", async () => {
    const [network, , bob, id] = await shared();
    bob.app.showFile(id, true);
    expect([...view(bob).shown]).toEqual([id]);
    bob.app.showFile(id, false);
    expect(view(bob)).toMatchObject({ shown: new Set(), always: false });
    bob.app.alwaysShow(true);
    bob.reload();
    await network.clock.run(1_000);
    expect(view(bob).always).toBe(true);
    await Promise.all([bob.app.leave(), network.clock.run(100)]);
    bob.app.close();
    expect(view(bob).always).toBe(false);
  });
});

describe("a message with a file", () => {
  it("survives a reload on both sides", async () => {
    const [network, ann, bob, id] = await shared();
    for (const side of [ann, bob]) {
      side.reload();
      await network.clock.run(1_000);
      expect(side.talk.messages).toMatchObject([{ text: "look", file: { id, name: "cat.png" } }]);
      await Promise.all([side.app.openFile(id), network.clock.run(100)]);
      expect(view(side).places.size).toBe(1);
    }
  });

  it("is still said after a reload, if it was not before", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf("cat.png"), text: "look" }]);
    network.swallow = { event: "chat:message", count: 1_000 };
    await network.clock.run(5_000);
    expect(ann.deliveries).toEqual(["sent"]);
    ann.hide();
    ann.crash();
    network.swallow = null;
    ann.open();
    expect(ann.talk.messages).toMatchObject([{ text: "look", file: { name: "cat.png" } }]);
    await network.clock.run(10_000);
    expect(bob.talk.messages).toMatchObject([{ text: "look", file: { name: "cat.png" } }]);
    expect(ann.deliveries).toEqual(["delivered"]);
  });

  it("says that it failed when the server has the file no more, and can be said again", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf("cat.png"), text: "look" }]);
    network.answerNext = { event: "chat:message", answer: { error: { code: "no_such_file" } } };
    await network.clock.run(10_000);
    expect(ann.deliveries).toEqual(["failed"]);
    ann.app.retry(ann.talk.messages[0]?.id ?? "");
    await network.clock.run(1_000);
    expect(bob.talk.messages).toMatchObject([{ text: "look", file: { name: "cat.png" } }]);
  });

  it("that was kept in another shape is not believed", async () => {
    const [network, , bob] = await shared();
    bob.hide();
    const kept = bob.session.items.get("visavis.talk.2") ?? "";
    bob.session.items.set("visavis.talk.2", kept.replace('"expiresAt":', '"expires":'));
    bob.crash();
    bob.open();
    expect(bob.app.conversation.get()).toBeNull();
    await network.clock.run(1_000);
  });

  it("is reported with the files one chose, of those that are there", async () => {
    const [network, , bob, id] = await shared(new Network(), ["cat.png", "dog.png"]);
    const [cat, dog] = bob.talk.messages;
    const report = { reason: "sexual", words: "", messageIds: [cat?.id ?? "", dog?.id ?? ""], fileIds: [id, "unknown"], block: false } as const;
    await Promise.all([bob.app.report(report), network.clock.run(100)]);
    expect(network.requested("safety:report", bob)[0]).toMatchObject({ files: [id], messages: [{ text: "look" }, { text: "look" }] });
  });

  it("is called by its name in a report, if it has no words", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf("cat.png"), text: "" }]);
    await network.clock.run(10_000);
    const messageIds = bob.talk.messages.map(({ id }) => id);
    await Promise.all([bob.app.report({ reason: "other", words: "", messageIds, fileIds: [], block: false }), network.clock.run(100)]);
    expect(network.requested("safety:report", bob)[0]?.messages).toMatchObject([{ text: "cat.png" }]);
  });
});

describe("an ended conversation that is put away", () => {
  it.each([
    ["to the lobby", (browser: Browser) => browser.app.close()],
    ["for the next search", (browser: Browser) => void browser.app.find()],
    ["for the next one at once", (browser: Browser) => void browser.app.skip()],
  ])("is left %s, so that its files can go", async (_, act) => {
    const [network, ann, bob] = await shared();
    const { id } = bob.talk;
    await Promise.all([ann.app.leave(), network.clock.run(100)]);
    act(bob);
    await network.clock.run(500);
    expect(network.requested("conversation:leave", bob)).toEqual([{ conversationId: id }]);
    expect(bob.app.conversation.get()).toBeNull();
  });

  it("is left once, by who left it before", async () => {
    const [network, ann] = await shared();
    await Promise.all([ann.app.leave(), network.clock.run(100)]);
    ann.app.close();
    await network.clock.run(100);
    expect(network.requested("conversation:leave", ann)).toHaveLength(1);
  });

  it("is put away all the same if the server does not hear it, or if there were no files", async () => {
    const [network, ann, bob] = await shared();
    await Promise.all([ann.app.leave(), network.clock.run(100)]);
    network.down = true;
    network.cut(bob);
    bob.app.close();
    expect(bob.app.conversation.get()).toBeNull();
    network.down = false;
    await network.clock.run(10_000);
    const other = new Network();
    const [cat, dan] = await other.pair();
    await Promise.all([cat.app.leave(), other.clock.run(100)]);
    dan.app.close();
    await other.clock.run(100);
    expect(other.requested("conversation:leave", dan)).toEqual([]);
  });
});

import { describe, expect, it } from "vitest";
import { LIMITS } from "./files.fake";
import { Network, STORM, type Browser } from "./network.fake";

const fileOf = (name = "notes.pdf", bytes = 4_000, type = name.endsWith(".png") ? "image/png" : "application/pdf") =>
  new File(["x".repeat(bytes)], name, { type });

const phases = (browser: Browser) => browser.app.uploads.get().map(({ phase }) => phase);
const names = (browser: Browser) => browser.talk.messages.map(({ file }) => file?.name ?? null);
const first = (browser: Browser) => {
  const [one] = browser.app.uploads.get();
  if (one === undefined) throw new Error("nothing is being uploaded");
  return one;
};
const server = (network: Network, index = 0) => {
  const upload = network.files.all[index];
  if (upload === undefined) throw new Error("nothing was begun");
  return upload;
};

describe("sharing a file", () => {
  it("becomes a message on both sides once the server found it good, with its words and what it answers", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    bob.app.say("have you got a picture?", null);
    await network.clock.run(200);
    bob.app.setWatching(true);
    ann.app.setDraft("half a thou");
    const replyTo = ann.talk.messages[0]?.id ?? "";
    ann.app.share([{ file: fileOf("cat.png", 4_000), text: " this one \ud83d", replyTo }]);
    expect(ann.app.uploads.get()).toMatchObject([{ name: "cat.png", bytes: 4_000, kind: "picture", text: " this one \ud83d", seconds: null }]);
    const shares = new Set<number>();
    ann.app.uploads.subscribe(() => shares.add(ann.app.uploads.get()[0]?.share ?? -1));
    await network.clock.run(4_300);
    expect(phases(ann)).toEqual(["checking"]);
    expect([...shares]).toEqual([0, 0.25, 0.5, 0.75, 1]);
    expect(ann.talk.messages).toHaveLength(1);
    await network.clock.run(3_000);
    expect(ann.app.uploads.get()).toEqual([]);
    expect(ann.talk.draft).toBe("half a thou");
    for (const side of [ann, bob]) {
      expect(side.talk.messages.at(-1)).toMatchObject({
        text: "this one \ufffd",
        file: { kind: "picture", name: "cat.png", width: 640 },
        replyTo: { text: "have you got a picture?", file: null },
      });
    }
    expect(ann.deliveries).toEqual(["read"]);
    expect(bob.moments.at(-1)).toBe("message");
    bob.app.say("lovely", bob.talk.messages.at(-1)?.id ?? "");
    await network.clock.run(200);
    expect(ann.talk.messages.at(-1)?.replyTo?.file).toMatchObject({ name: "cat.png" });
  });

  it("counts as unread like words, and may have none", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(8_000);
    expect(bob.talk).toMatchObject({ unread: 1, messages: [{ text: "", deleted: false, file: { name: "notes.pdf" } }] });
  });

  it("shows one's own picture meanwhile, and lets go of it afterwards", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    ann.app.share([{ file: fileOf("cat.png"), text: "" }, { file: fileOf("notes.pdf"), text: "" }]);
    const [picture, other] = ann.app.uploads.get();
    expect(ann.urls.has(picture?.preview ?? "")).toBe(true);
    expect(other?.preview).toBeNull();
    await network.clock.run(10_000);
    expect(ann.urls.size).toBe(0);
  });

  it("takes two at a time, in the order in which they were chosen", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share(["1", "2", "3", "4"].map((name) => ({ file: fileOf(name), text: "" })));
    await network.clock.run(1_000);
    expect(phases(ann)).toEqual(["uploading", "uploading", "waiting", "waiting"]);
    await network.clock.run(3_500);
    expect(phases(ann)).toEqual(["checking", "checking", "uploading", "uploading"]);
    await network.clock.run(10_000);
    expect(names(bob)).toEqual(["1", "2", "3", "4"]);
  });

  it("asks before the page goes, while something is on its way and no longer", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.files.findings.push("file_infected");
    ann.app.share([{ file: fileOf(), text: "" }]);
    expect(ann.asksBeforeGoing).toBe(1);
    await network.clock.run(10_000);
    expect(phases(ann)).toEqual(["failed"]);
    expect(ann.asksBeforeGoing).toBe(0);
  });

  it("waits where the part that does it cannot be loaded yet", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.parts = false;
    ann.app.share([{ file: fileOf("one"), text: "" }, { file: fileOf("other"), text: "" }]);
    await network.clock.run(1_000);
    expect(phases(ann)).toEqual(["waiting", "waiting"]);
    ann.app.cancelUpload(first(ann).id);
    ann.parts = true;
    await network.clock.run(10_000);
    expect(names(bob)).toEqual(["other"]);
  });
});

describe("files chosen together", () => {
  const both = [
    { file: fileOf("cat.png", 8_000), text: "first" },
    { file: fileOf("notes.pdf", 1_000), text: "second" },
  ];

  it("are said in the order in which they were chosen, whichever is ready first", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share(both);
    await network.clock.run(6_000);
    expect(server(network, 1).phase).toBe("ready");
    expect(phases(ann)).toEqual(["uploading", "checking"]);
    expect(ann.talk.messages).toEqual([]);
    await network.clock.run(8_000);
    for (const side of [ann, bob]) expect(names(side)).toEqual(["cat.png", "notes.pdf"]);
    expect(bob.texts).toEqual(["first", "second"]);
    expect(ann.app.uploads.get()).toEqual([]);
    expect(ann.urls.size).toBe(0);
  });

  it("do not wait for one that came to nothing, and it may still come later", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.stumbles.push("fine", "fine", "fine", "fine", 507);
    ann.app.share([...both, { file: fileOf("last.pdf", 1_000), text: "" }]);
    await network.clock.run(10_000);
    expect(first(ann)).toMatchObject({ name: "cat.png", phase: "failed", retry: true });
    expect(names(bob)).toEqual(["notes.pdf", "last.pdf"]);
    ann.app.retryUpload(first(ann).id);
    await network.clock.run(20_000);
    expect(names(bob)).toEqual(["notes.pdf", "last.pdf", "cat.png"]);
  });

  it("do not wait for one that this device refused", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf("empty", 0), text: "" }, ...both]);
    await network.clock.run(20_000);
    expect(names(bob)).toEqual(["cat.png", "notes.pdf"]);
  });

  it("do not wait for one that was given up", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.stumbles.push("stuck");
    ann.app.share(both);
    await network.clock.run(10_000);
    expect(phases(ann)).toEqual(["uploading", "checking"]);
    ann.app.cancelUpload(first(ann).id);
    expect(names(ann)).toEqual(["notes.pdf"]);
    await network.clock.run(1_000);
    expect(names(bob)).toEqual(["notes.pdf"]);
    expect(network.files.all.map(({ gone }) => gone)).toEqual([true, false]);
  });

  it("can be given up while they wait for the others", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share(both);
    await network.clock.run(6_000);
    ann.app.cancelUpload(ann.app.uploads.get()[1]?.id ?? "");
    await network.clock.run(20_000);
    expect(names(bob)).toEqual(["cat.png"]);
    expect(network.files.all.map(({ gone }) => gone)).toEqual([false, true]);
  });

  it("are taken back if the conversation ends while they wait for the others", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share(both);
    await network.clock.run(6_000);
    await Promise.all([bob.app.leave(), network.clock.run(5_000)]);
    expect(ann.app.uploads.get()).toEqual([]);
    expect(ann.talk.messages).toEqual([]);
    expect(network.files.all.map(({ gone }) => gone)).toEqual([true, true]);
  });

  it("do not hold up what is chosen later", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.stumbles.push("stuck");
    ann.app.share(both);
    await network.clock.run(100);
    ann.app.share([{ file: fileOf("later.pdf", 1_000), text: "" }]);
    await network.clock.run(10_000);
    expect(phases(ann)).toEqual(["uploading", "checking"]);
    expect(names(bob)).toEqual(["later.pdf"]);
    await network.clock.run(60_000);
    expect(names(bob)).toEqual(["later.pdf", "cat.png", "notes.pdf"]);
  });
});

describe("a network that comes and goes", () => {
  it("pauses an upload, which goes on by itself from where it was", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(2_500);
    expect(server(network).offset).toBe(2_000);
    network.down = true;
    network.cut(ann);
    await network.clock.run(60_000);
    expect(first(ann)).toMatchObject({ phase: "paused", share: 0.5, problem: null });
    expect(server(network).resumed).toEqual([0]);
    network.down = false;
    while (network.guestOf(ann).connection === null) await network.clock.run(10);
    await network.clock.run(50);
    expect(phases(ann)).toEqual(["uploading"]);
    await network.clock.run(20_000);
    expect(server(network).resumed).toEqual([0, 2_000]);
    expect(names(bob)).toEqual(["notes.pdf"]);
  });

  it("pauses at once when the device says so, and goes on in the moment it is back", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(2_500);
    ann.setOnline(false);
    await network.clock.run(1);
    expect(phases(ann)).toEqual(["paused"]);
    await network.clock.run(40_000);
    ann.setOnline(true);
    await network.clock.run(100);
    expect(phases(ann)).toEqual(["uploading"]);
    await network.clock.run(10_000);
    expect(server(network).resumed).toEqual([0, 2_000]);
    expect(names(bob)).toEqual(["notes.pdf"]);
  });

  it("does not stop an upload that waits to be announced, or looked at", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.down = true;
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(30_000);
    expect(phases(ann)).toEqual(["paused"]);
    network.down = false;
    await network.clock.run(30_000);
    expect(names(bob)).toEqual(["notes.pdf"]);
    ann.app.share([{ file: fileOf("other"), text: "" }]);
    await network.clock.run(4_200);
    expect(phases(ann)).toEqual(["checking"]);
    network.down = true;
    await network.clock.run(10_000);
    expect(phases(ann)).toEqual(["paused"]);
    network.down = false;
    await network.clock.run(30_000);
    expect(names(bob)).toEqual(["notes.pdf", "other"]);
  });

  it("is noticed when nothing moves any more and nobody says so", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.stumbles.push("stuck");
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(29_000);
    expect(phases(ann)).toEqual(["uploading"]);
    await network.clock.run(15_000);
    expect(names(bob)).toEqual(["notes.pdf"]);
  });

  it("may be as slow as it is, as long as something moves", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.bytesPerMs = 0.04;
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(110_000);
    expect(server(network).resumed).toEqual([0]);
    expect(names(bob)).toEqual(["notes.pdf"]);
  });

  it("loses no file and brings none twice, in any weather", async () => {
    const network = new Network(7);
    const [ann, bob] = await network.pair();
    network.weather = STORM;
    network.files.stumbles.push("lost", "lost", 503, "lost", 409, "lost");
    ann.app.share(["1", "2", "3"].map((name) => ({ file: fileOf(name, 3_000), text: `number ${name}` })));
    for (let turn = 0; turn < 6; turn += 1) {
      await network.clock.run(3_000);
      network.cut(turn % 2 === 0 ? ann : bob);
    }
    await network.clock.run(120_000);
    network.weather = { ...STORM, lost: 0 };
    await network.clock.run(60_000);
    expect(names(bob)).toEqual(["1", "2", "3"]);
    expect(ann.deliveries).toEqual(["delivered", "delivered", "delivered"]);
    expect(ann.app.uploads.get()).toEqual([]);
  });
});

describe("what the server says to an upload", () => {
  it("is waited for when it asks to wait, with all that would be told the same", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const hasty = { status: 429, json: { error: { code: "rate_limited", retryInMs: 20_000 } } };
    network.files.refusals.push(hasty, hasty);
    ann.app.share(["1", "2", "3"].map((name) => ({ file: fileOf(name), text: "" })));
    await network.clock.run(19_000);
    expect(phases(ann)).toEqual(["waiting", "waiting", "waiting"]);
    expect(network.fetched).toEqual(["POST /api/files", "POST /api/files"]);
    await network.clock.run(20_000);
    expect(names(bob)).toEqual(["1", "2", "3"]);
  });

  it.each([
    ["kind_refused", 415, {}, null],
    ["file_too_large", 413, { limit: 500 }, 500],
    ["file_empty", 400, {}, null],
  ] as const)("is final for %s, and nothing of it is in the conversation", async (code, status, data, limit) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.refusals.push({ status, json: { error: { code, ...data } } });
    ann.app.share([{ file: fileOf(), text: "words" }]);
    await network.clock.run(60_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: code, limit, retry: false });
    ann.app.retryUpload(first(ann).id);
    await network.clock.run(10_000);
    expect([ann.talk.messages, bob.talk.messages]).toEqual([[], []]);
    ann.app.cancelUpload(first(ann).id);
    expect(ann.app.uploads.get()).toEqual([]);
  });

  it.each([
    ["file_infected", null],
    ["file_unreadable", null],
    ["picture_too_large", 40_000_000],
  ])("is final for %s, found out after it was uploaded", async (code, limit) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.findings.push(code);
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(20_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: code, limit, retry: false });
    expect([ann.talk.messages, bob.talk.messages]).toEqual([[], []]);
  });

  it("is asked again by hand where that may help", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.refusals.push({ status: 507, json: { error: { code: "storage_full" } } });
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(20_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: "storage_full", retry: true });
    ann.app.retryUpload(first(ann).id);
    expect(first(ann)).toMatchObject({ problem: null });
    await network.clock.run(10_000);
    expect(names(bob)).toEqual(["notes.pdf"]);
  });

  it("goes on from where it was when it had no room for a while", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.stumbles.push("lost", 507);
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(10_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: "storage_full", retry: true });
    ann.app.retryUpload(first(ann).id);
    await network.clock.run(10_000);
    expect(network.files.all).toHaveLength(1);
    expect(names(bob)).toEqual(["notes.pdf"]);
  });

  it("is tried again by itself while it cannot, but not for ever", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.files.refusals.push(...Array.from({ length: 3 }, () => ({ status: 503, json: { error: { code: "busy", retryInMs: 500 } } })));
    ann.app.share([{ file: fileOf("one"), text: "" }]);
    await network.clock.run(200);
    expect(phases(ann)).toEqual(["waiting"]);
    await network.clock.run(10_000);
    expect(names(bob)).toEqual(["one"]);
    network.files.refusals.push(...Array.from({ length: 9 }, () => ({ status: 500, json: { error: { code: "internal" } } })));
    ann.app.share([{ file: fileOf("other"), text: "" }]);
    await network.clock.run(200_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: "internal", retry: true });
  });

  it("outlasts a proxy that finds nobody behind it, as it outlasts a lost network", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    const nobody = { status: 502, json: { error: { code: "unavailable", retryInMs: 1000 } } };
    network.files.refusals.push(...Array.from({ length: 9 }, () => nobody));
    ann.app.share([{ file: fileOf("one"), text: "" }]);
    await network.clock.run(200);
    expect(phases(ann)).toEqual(["paused"]);
    await network.clock.run(300_000);
    expect(names(bob)).toEqual(["one"]);
  });

  it("is not believed for ever when it always has less than was sent", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    network.files.findings.push("never");
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(4_200);
    server(network).phase = "uploading";
    await network.clock.run(120_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: "internal", retry: true });
  });

  it("is not counted against an upload that gets on nevertheless", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    for (let chunk = 0; chunk < 9; chunk += 1) network.files.stumbles.push("fine", 503);
    ann.app.share([{ file: fileOf("long", 10_000), text: "" }]);
    await network.clock.run(100_000);
    expect(names(bob)).toEqual(["long"]);
  });

  it("begins a file anew that the server has forgotten, once", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share([{ file: fileOf(), text: "" }]);
    await network.clock.run(2_500);
    server(network).gone = true;
    await network.clock.run(10_000);
    expect(server(network, 1).resumed).toEqual([0]);
    expect(names(bob)).toEqual(["notes.pdf"]);
    ann.app.share([{ file: fileOf("other"), text: "" }]);
    await network.clock.run(2_500);
    server(network, 2).gone = true;
    await network.clock.run(2_500);
    server(network, 3).gone = true;
    await network.clock.run(20_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: "no_such_file", retry: true });
  });
});

describe("an upload", () => {
  it("that is given up is gone here and there, whatever it was doing", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    for (const [index, ms] of [5, 15, 1_000, 4_200].entries()) {
      ann.app.share([{ file: fileOf("cat.png"), text: "" }]);
      await network.clock.run(ms);
      ann.app.cancelUpload(first(ann).id);
      expect(ann.app.uploads.get()).toEqual([]);
      expect(ann.urls.size).toBe(0);
      await network.clock.run(10_000);
      expect(server(network, index).gone).toBe(true);
    }
    expect([ann.talk.messages, bob.talk.messages]).toEqual([[], []]);
  });

  it("that is given up makes room for the next", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    ann.app.share(["1", "2", "3"].map((name) => ({ file: fileOf(name), text: "" })));
    await network.clock.run(100);
    ann.app.cancelUpload(first(ann).id);
    await network.clock.run(100);
    expect(phases(ann)).toEqual(["uploading", "uploading"]);
  });

  it("of a file that this device has no more fails for good", async () => {
    const network = new Network();
    const [ann] = await network.pair();
    const [never, midway] = [fileOf("never"), fileOf("midway")];
    ann.unreadable.add(never);
    ann.app.share([{ file: never, text: "" }, { file: midway, text: "" }]);
    await network.clock.run(1_500);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: "unreadable_here", retry: false });
    ann.unreadable.add(midway);
    network.files.stumbles.push("lost");
    await network.clock.run(5_000);
    expect(ann.app.uploads.get()[1]).toMatchObject({ phase: "failed", problem: "unreadable_here", retry: false });
    expect(server(network).gone).toBe(true);
  });

  it.each([
    ["the guest leaves", (ann: Browser) => ann.app.leave()],
    ["the guest blocks", (ann: Browser) => ann.app.block()],
    ["the partner leaves", (_: Browser, bob: Browser) => bob.app.leave()],
    ["the guest goes on to the next", (ann: Browser) => ann.app.skip()],
  ])("ends with the conversation, when %s", async (_, act) => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    ann.app.share(["1.png", "2.png", "3.png"].map((name) => ({ file: fileOf(name), text: "" })));
    await network.clock.run(1_000);
    await Promise.all([act(ann, bob), network.clock.run(10_000)]);
    expect(ann.app.uploads.get()).toEqual([]);
    expect(ann.urls.size).toBe(0);
    expect(ann.asksBeforeGoing).toBe(0);
    expect(network.files.all.map(({ gone }) => gone)).toEqual([true, true]);
  });

  it("leaves nothing behind once the conversation is over with which files could be said", async () => {
    const network = new Network();
    const [ann, bob] = await network.pair();
    network.cut(bob);
    ann.app.share([{ file: fileOf(), text: "words" }]);
    await network.clock.run(8_000);
    const kept = () => ann.session.items.get("visavis.talk.2") ?? "";
    expect(kept()).toContain("seal-file");
    await Promise.all([ann.app.leave(), network.clock.run(500)]);
    expect(kept()).not.toContain("seal-file");
    ann.reload();
    expect(ann.talk.messages).toMatchObject([{ text: "words", file: { name: "notes.pdf" } }]);
  });

  it("is refused here already where this device knows better", async () => {
    const network = new Network();
    network.files.limits = { ...LIMITS, kinds: ["picture", "document"] };
    const [ann] = await network.pair();
    const check = (file: File) => ann.app.checkFile(file);
    expect(check(fileOf("cat.png"))).toBeNull();
    expect(check(fileOf("empty", 0))).toEqual({ problem: "file_empty", limit: null });
    expect(check(fileOf("long", 10_001))).toEqual({ problem: "file_too_large", limit: 10_000 });
    expect(check(fileOf("film", 10, "video/mp4"))).toEqual({ problem: "kind_refused", limit: null });
    expect(check(fileOf("odd", 10, "image/x-unheard-of"))).toBeNull();
    expect(check(fileOf("who knows", 10, ""))).toBeNull();
    ann.app.share([{ file: fileOf("film", 10, "video/mp4"), text: "" }]);
    await network.clock.run(1_000);
    expect(first(ann)).toMatchObject({ phase: "failed", problem: "kind_refused", retry: false });
    expect(network.fetched).toEqual([]);
  });

  it("is refused where the server takes no files at all, and without a conversation there is none", async () => {
    const network = new Network();
    network.files.limits = null;
    const [ann] = await network.pair();
    expect(ann.app.files.get().limits).toBeNull();
    expect(ann.app.checkFile(fileOf())).toEqual({ problem: "kind_refused", limit: null });
    await Promise.all([ann.app.leave(), network.clock.run(100)]);
    ann.app.share([{ file: fileOf(), text: "" }]);
    expect(ann.app.uploads.get()).toEqual([]);
  });
});

import { describe, expect, it } from "vitest";
import { Network } from "./network.fake";

async function listed() {
  const network = new Network();
  network.recordings = { one: 200, other: 100 };
  const ann = await network.guest();
  await Promise.all([ann.app.loadRecordings(), network.clock.run(100)]);
  return { network, ann, view: () => ann.app.recordings.get() };
}

describe("recordings", () => {
  it("are listed, and say why they are not", async () => {
    const { network, ann, view } = await listed();
    expect(view().recordings.map(({ id }) => id)).toEqual(["one", "other"]);
    network.down = true;
    await Promise.all([ann.app.loadRecordings(), network.clock.run(100)]);
    expect(view()).toMatchObject({ problem: "unreachable", recordings: [{}, {}] });
  });

  it("are downloaded, showing how far it is", async () => {
    const { network, ann, view } = await listed();
    const shares: number[] = [];
    ann.app.recordings.subscribe(() => shares.push(view().fetching?.share ?? -1));
    await Promise.all([ann.app.downloadRecording("one"), network.clock.run(100)]);
    expect(shares).toEqual([0, 0.5, -1]);
    expect(ann.saved).toMatchObject([{ bytes: 200 }]);
    expect(ann.saved[0]?.name).toMatch(/^visavis-\d{4}-\d\d-\d\d-\d{4}\.mp4$/);
  });

  it("that have expired are said to be gone", async () => {
    const { network, ann, view } = await listed();
    network.recordings = {};
    await Promise.all([ann.app.downloadRecording("one"), network.clock.run(100)]);
    expect(view()).toMatchObject({ problem: "not_found", fetching: null });
  });

  it("are deleted for good, once or twice", async () => {
    const { network, ann, view } = await listed();
    await Promise.all([ann.app.deleteRecording("one"), network.clock.run(100)]);
    expect(Object.keys(network.recordings)).toEqual(["other"]);
    await Promise.all([ann.app.deleteRecording("one"), network.clock.run(100)]);
    expect(view()).toMatchObject({ problem: null, recordings: [{ id: "other" }] });
  });
});

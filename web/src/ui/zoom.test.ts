import { describe, expect, test } from "vitest";
import { CLOSEST, fitted, kept, moved, swiped, WHOLE, zoomed } from "./zoom";

const FRAME = { width: 400, height: 600 };
const SHOWN = { width: 400, height: 300 };

test("all of a picture fits its frame, and a tiny one is enlarged only so far", () => {
  expect(fitted({ width: 4000, height: 3000 }, FRAME)).toEqual(SHOWN);
  expect(fitted({ width: 300, height: 3000 }, FRAME)).toEqual({ width: 60, height: 600 });
  expect(fitted({ width: 20, height: 10 }, FRAME)).toEqual({ width: 40, height: 20 });
  expect(fitted({ width: 0, height: 0 }, FRAME)).toEqual({ width: 0, height: 0 });
});

describe("looking closer", () => {
  test("what lies under the finger stays there", () => {
    const at = { x: 50, y: -30 };
    const look = zoomed({ scale: 4, x: 100, y: 20 }, 1.5, at, SHOWN, FRAME);
    expect(look.scale).toBe(6);
    expect((at.x - look.x) / 6).toBeCloseTo((at.x - 100) / 4);
    expect((at.y - look.y) / 6).toBeCloseTo((at.y - 20) / 4);
  });

  test("it ends at the closest, and at the whole, which is in the middle", () => {
    expect(zoomed(WHOLE, 100, { x: 0, y: 0 }, SHOWN, FRAME).scale).toBe(CLOSEST);
    expect(zoomed({ scale: 2, x: 90, y: 0 }, 0.1, { x: 150, y: 9 }, SHOWN, FRAME)).toEqual(WHOLE);
  });

  test("the picture is not pushed past its own edges", () => {
    expect(moved({ scale: 2, x: 0, y: 0 }, { x: 5000, y: -5000 }, SHOWN, FRAME)).toEqual({ scale: 2, x: 200, y: 0 });
    expect(kept({ scale: 4, x: -900, y: 400 }, SHOWN, FRAME)).toEqual({ scale: 4, x: -600, y: 300 });
  });
});

test("a swipe goes with the reading direction, downwards puts it away, a tremble is nothing", () => {
  expect(swiped({ x: -80, y: 10 }, "ltr")).toBe("next");
  expect(swiped({ x: 80, y: 10 }, "ltr")).toBe("previous");
  expect(swiped({ x: 80, y: 10 }, "rtl")).toBe("next");
  expect(swiped({ x: 10, y: 140 }, "ltr")).toBe("close");
  expect(swiped({ x: 20, y: 20 }, "ltr")).toBeNull();
  expect(swiped({ x: -70, y: 69 }, "ltr")).toBeNull();
});

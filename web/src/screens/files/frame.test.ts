import { expect, test } from "vitest";
import { frameOf } from "./frame";

test("a picture's place has its shape, within what a conversation can bear", () => {
  expect(frameOf(4000, 3000)).toEqual({ ratio: 4 / 3, rem: 20 });
  expect(frameOf(3000, 4000)).toEqual({ ratio: 0.75, rem: 18 });
  expect(frameOf(10_000, 100)).toEqual({ ratio: 2.2, rem: 20 });
  expect(frameOf(100, 10_000)).toEqual({ ratio: 0.55, rem: 13.2 });
  expect(frameOf(null, null).ratio).toBeCloseTo(4 / 3);
});

import { expect, test } from "vitest";
import { birthDate, digits, order } from "./birthDate";

const TODAY = new Date("2026-11-21T12:00:00Z");

test("a date that exists is read", () => {
  expect(birthDate({ day: "9", month: "2", year: "2000" }, TODAY)).toEqual({ iso: "2000-02-09" });
  expect(birthDate({ day: "29", month: "02", year: "2004" }, TODAY)).toEqual({ iso: "2004-02-29" });
});

test("a date that does not exist, or not yet, is refused", () => {
  for (const [day, month, year] of [["31", "2", "1990"], ["29", "2", "2001"], ["1", "13", "1990"], ["0", "1", "1990"], ["1", "1", "90"], ["1", "1", "1899"], ["22", "11", "2026"]] as const)
    expect(birthDate({ day, month, year }, TODAY)).toEqual({ wrong: "wrong" });
  expect(birthDate({ day: "", month: "1", year: "1990" }, TODAY)).toEqual({ wrong: "missing" });
});

test("digits of other scripts count", () => {
  expect(digits("٢٠٠٠")).toBe("2000");
  expect(digits("۱۳")).toBe("13");
  expect(digits("1a2")).toBe("12");
});

test("the order is that of the language", () => {
  expect(order("en-US")).toEqual(["month", "day", "year"]);
  expect(order("es")).toEqual(["day", "month", "year"]);
});

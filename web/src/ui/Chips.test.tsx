// @vitest-environment jsdom
import { act, useState } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Chips } from "./Chips";

vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
const emptyEnter = vi.fn();
let root: Root;
let page: HTMLElement;

function Field() {
  const [words, setWords] = useState<readonly string[]>([]);
  return (
    <>
      <label htmlFor="words">Words</label>
      <Chips
        id="words"
        chips={words.map((word) => ({ value: word, label: word, removeLabel: `Remove ${word}` }))}
        placeholder=""
        describedBy="hint"
        full={false}
        maxLength={40}
        onAdd={(text) => {
          const word = text.trim().toLowerCase();
          if (words.includes(word)) return false;
          setWords((now) => [...now, word]);
          return true;
        }}
        onRemove={(word) => setWords((now) => now.filter((other) => other !== word))}
        onEmptyEnter={emptyEnter}
      />
    </>
  );
}

beforeEach(() => {
  emptyEnter.mockClear();
  page = document.body.appendChild(document.createElement("div"));
  root = createRoot(page);
  act(() => root.render(<Field />));
});
afterEach(() => {
  act(() => root.unmount());
  page.remove();
});

const input = () => page.querySelector("input") ?? expect.fail("no field");
const chips = () => [...page.querySelectorAll("li")].map((chip) => chip.textContent);

function type(text: string) {
  act(() => {
    const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value")?.set;
    set?.call(input(), text);
    input().dispatchEvent(new Event("input", { bubbles: true }));
  });
}
function press(key: string) {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  act(() => void input().dispatchEvent(event));
  return event;
}

test("Enter adds the word and empties the field, without sending the form", () => {
  type("Climbing");
  expect(press("Enter").defaultPrevented).toBe(true);
  expect(chips()).toEqual(["climbing"]);
  expect(input().value).toBe("");
  expect(emptyEnter).not.toHaveBeenCalled();
});

test("a comma adds, and a pasted list adds all of it but the unfinished word", () => {
  type("jazz,");
  type("tea, old maps، foot");
  expect(chips()).toEqual(["jazz", "tea", "old maps"]);
  expect(input().value).toBe(" foot");
});

test("Backspace takes the last one back only from the empty field", () => {
  type("jazz,");
  type("tea,");
  type("x");
  press("Backspace");
  expect(chips()).toEqual(["jazz", "tea"]);
  type("");
  press("Backspace");
  expect(chips()).toEqual(["jazz"]);
});

test("what is refused stays in the field", () => {
  type("jazz,");
  type("jazz");
  press("Enter");
  expect(chips()).toEqual(["jazz"]);
  expect(input().value).toBe("jazz");
});

test("Enter in the empty field is the screen's", () => {
  press("Enter");
  expect(emptyEnter).toHaveBeenCalledOnce();
});

test("a chip is removed by its named button, and the focus goes back to the field", () => {
  type("jazz,");
  const button = page.querySelector<HTMLButtonElement>("button[aria-label='Remove jazz']");
  act(() => button?.click());
  expect(chips()).toEqual([]);
  expect(document.activeElement).toBe(input());
});

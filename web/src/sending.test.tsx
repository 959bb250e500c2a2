// @vitest-environment jsdom
import { act } from "react";
import { createRoot } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { App } from "./App";
import { fakeVisavis, SCENES } from "./gallery-scenes";
import type { Visavis } from "./model";

vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
vi.stubGlobal("matchMedia", () => ({ matches: false, addEventListener: () => undefined, removeEventListener: () => undefined }));
Element.prototype.scrollTo = () => undefined;
HTMLDialogElement.prototype.showModal = function (this: HTMLDialogElement) {
  this.open = true;
};
HTMLDialogElement.prototype.close = function (this: HTMLDialogElement) {
  this.open = false;
};
URL.createObjectURL = () => "blob:one";
URL.revokeObjectURL = () => undefined;

let page: HTMLElement;
let root: ReturnType<typeof createRoot>;
let visavis: Visavis;

const settle = () => new Promise((resolve) => setTimeout(resolve, 20));
/** Parts of the page come when they come. */
async function there(testid: string) {
  for (let turn = 0; turn < 300 && by(testid) === null; turn += 1) await act(settle);
}
const by = (testid: string) => page.querySelector<HTMLElement>(`[data-testid="${testid}"]`);
const press = (control: Element | null) => act(() => void control?.dispatchEvent(new MouseEvent("click", { bubbles: true })));

beforeEach(async () => {
  visavis = fakeVisavis({ ...SCENES["conversation"], settings: { locale: "en" } });
  page = document.body.appendChild(document.createElement("div"));
  root = createRoot(page);
  await act(async () => {
    root.render(<App visavis={visavis} />);
    await import("./screens/Conversation");
    await import("./screens/files/parts");
    await settle();
  });
  await there("composer");
});
afterEach(() => {
  act(() => root.unmount());
  page.remove();
});

interface Carried {
  readonly files?: readonly File[];
  readonly text?: string;
  readonly types?: readonly string[];
}

/** Brings something to the page; returns whether the page took it in its own way. */
async function bring(type: "drop" | "dragover" | "paste", { files = [], text = "", types = [] }: Carried, at: Element = document.body): Promise<boolean> {
  const data = {
    types: [...(files.length > 0 ? ["Files"] : []), ...(text === "" ? [] : ["text/plain"]), ...types],
    files,
    items: files.map((file) => ({ kind: "file", getAsFile: () => file, webkitGetAsEntry: () => null })),
    getData: () => text,
    dropEffect: "copy",
  };
  const event = Object.assign(new Event(type, { bubbles: true, cancelable: true }), { dataTransfer: data, clipboardData: data });
  await act(async () => {
    at.dispatchEvent(event);
    await settle();
  });
  return event.defaultPrevented;
}

const cat = new File(["cat"], "cat.png", { type: "image/png" });
const notes = new File(["notes"], "notes.pdf", { type: "application/pdf" });
const written = () => page.querySelector<HTMLTextAreaElement>("[data-testid=composer]")?.value;
const captions = () => [...page.querySelectorAll<HTMLTextAreaElement>("[data-testid=tray-caption]")].map(({ value }) => value);

test("the draft goes with the first file that can go, and only once it is sent", async () => {
  const share = vi.spyOn(visavis, "share");
  act(() => visavis.setDraft("look at\nthis "));
  await bring("drop", { files: [new File([], "empty.txt"), notes, cat] });
  expect(captions()).toEqual(["look at\nthis", ""]);
  await bring("drop", { files: [cat] });
  expect(captions()).toEqual(["look at\nthis", "", ""]);
  press(page.querySelector("dialog[open] button"));
  expect(by("tray")).toBeNull();
  expect(share).not.toHaveBeenCalled();
  expect(written()).toBe("look at\nthis ");
  await bring("drop", { files: [notes, cat] });
  act(() => page.querySelector<HTMLFormElement>("[data-testid=tray]")?.requestSubmit());
  expect(share.mock.calls[0]?.[0]).toMatchObject([
    { file: notes, text: "look at\nthis", replyTo: null },
    { file: cat, text: "", replyTo: null },
  ]);
  expect(written()).toBe("");
  expect(visavis.conversation.get()?.draft).toBe("");
});

test("the draft stays where the file it was to go with is taken out, or it is too long for a message", async () => {
  act(() => visavis.setDraft("words"));
  await bring("drop", { files: [notes, cat] });
  press(by("tray-remove"));
  act(() => page.querySelector<HTMLFormElement>("[data-testid=tray]")?.requestSubmit());
  expect(written()).toBe("words");
  act(() => visavis.setDraft("x".repeat(4_001)));
  await bring("drop", { files: [notes] });
  expect(captions()).toEqual([""]);
});

/** Answers the newest message. */
function answer(): string {
  const id = visavis.conversation.get()?.messages.at(-1)?.id ?? "";
  const message = document.getElementById(`message-${id}`);
  act(() => message?.focus());
  act(() => void message?.dispatchEvent(new KeyboardEvent("keydown", { key: "r", bubbles: true })));
  expect(page.querySelector("[aria-label='Don’t reply']")).not.toBeNull();
  return id;
}

test("the first of several files answers, and the reply is over", async () => {
  const share = vi.spyOn(visavis, "share");
  const id = answer();
  await bring("drop", { files: [notes, cat] });
  act(() => page.querySelector<HTMLFormElement>("[data-testid=tray]")?.requestSubmit());
  expect(share.mock.calls[0]?.[0].map(({ replyTo }) => replyTo)).toEqual([id, null]);
  expect(page.querySelector("[aria-label='Don’t reply']")).toBeNull();
});

test("a voice message answers, and the reply is over", async () => {
  const send = vi.spyOn(visavis, "sendVoice");
  const id = answer();
  await act(async () => {
    await visavis.startVoice();
    await settle();
  });
  await there("voice-send");
  await act(async () => {
    by("voice-send")?.click();
    await settle();
  });
  expect(send).toHaveBeenCalledWith(id);
  expect(page.querySelector("[aria-label='Don’t reply']")).toBeNull();
});

test("words win over the picture that comes with them, but not the name of a copied file", async () => {
  expect(await bring("paste", { files: [cat], text: "1\t2\n3\t4" })).toBe(false);
  expect(by("tray")).toBeNull();
  expect(await bring("paste", { files: [cat], text: "cat.png" })).toBe(true);
  expect(captions()).toHaveLength(1);
});

test("a link dropped beside a field opens nothing, and words can be dropped into one", async () => {
  const types = ["text/uri-list"];
  expect(await bring("dragover", { types, text: "https://example.org" })).toBe(true);
  expect(await bring("drop", { types, text: "https://example.org" })).toBe(true);
  expect(await bring("drop", { text: "words" }, by("composer") ?? undefined)).toBe(false);
  expect(by("tray")).toBeNull();
});

test("drags that end without a word do not stay on the page", async () => {
  await bring("dragover", { files: [cat] });
  expect(by("drop-area")).not.toBeNull();
  await act(() => new Promise((resolve) => setTimeout(resolve, 1_700)));
  expect(by("drop-area")).toBeNull();
});

test("a press that begins in a dialog and ends beside it does not close it", async () => {
  await bring("drop", { files: [notes] });
  const dialog = page.querySelector("dialog[open]");
  act(() => {
    by("tray-caption")?.dispatchEvent(new Event("pointerdown", { bubbles: true }));
    dialog?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  });
  expect(by("tray")).not.toBeNull();
  act(() => {
    dialog?.dispatchEvent(new Event("pointerdown", { bubbles: true }));
    dialog?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  });
  expect(by("tray")).toBeNull();
});

test("a call that begins ends the recording, and so does another screen", async () => {
  const stop = vi.spyOn(visavis, "stopVoice");
  await act(async () => {
    await visavis.startVoice();
    await visavis.invite("voice");
    await visavis.accept("voice");

    await settle();
  });
  expect(stop).toHaveBeenCalled();
  stop.mockClear();
  act(() => visavis.close());
  expect(stop).toHaveBeenCalled();
});

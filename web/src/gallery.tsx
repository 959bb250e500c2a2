/**
 * Every screen in every state, without a server: /gallery.html#lobby-chips,dark,ar. For developing, for screenshots
 * and for accessibility checks; not part of the production build. With no name it lists what there is.
 */
import "./styles/app.css";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { fakeVisavis, SCENES } from "./gallery-scenes";
import type { Locale, Theme } from "./model";

const words = decodeURIComponent(location.hash.slice(1)).split(",");
const scene = SCENES[words[0] ?? ""];
const theme = words.find((word): word is Theme => word === "light" || word === "dark") ?? "system";
const locale = words.find((word): word is Locale => word === "es" || word === "ar") ?? "en";
const root = document.getElementById("root");

/** Opens what a scene shows open. What is not there in this layout is passed over. */
async function press(names: readonly string[]) {
  for (const name of names)
    for (let turn = 0; turn < 20; turn += 1) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      const control = document.querySelector<HTMLElement>(`[data-testid="${name}"]`);
      if (control === null) continue;
      control.click();
      break;
    }
  document.documentElement.dataset["pressed"] = "yes";
}

/** As if somebody dragged them here. */
async function drop(files: readonly File[], hover: boolean) {
  for (let turn = 0; turn < 40 && document.querySelector("[data-testid=composer]") === null; turn += 1)
    await new Promise((resolve) => setTimeout(resolve, 50));
  const dataTransfer = new DataTransfer();
  for (const file of files) dataTransfer.items.add(file);
  const tell = (type: string) => document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
  for (const type of ["dragenter", "dragover", ...(hover ? [] : ["drop"])]) tell(type);
  if (hover) setInterval(() => tell("dragover"), 300);
}
if (scene?.drop !== undefined) void drop(scene.drop(), scene.hover === true);
void press(scene?.press ?? []);
window.addEventListener("hashchange", () => location.reload());

if (root !== null)
  createRoot(root).render(
    scene === undefined ? (
      <main className="screen p-8">
        <h1 className="text-2xl font-bold">Gallery</h1>
        <ul className="mt-4 columns-2">
          {Object.keys(SCENES).map((name) => (
            <li key={name}>
              <a className="underline" href={`#${name}`}>
                {name}
              </a>{" "}
              (<a href={`#${name},dark`}>dark</a>, <a href={`#${name},ar`}>ar</a>, <a href={`#${name},dark,ar`}>dark ar</a>)
            </li>
          ))}
        </ul>
      </main>
    ) : (
      <App visavis={fakeVisavis({ ...scene, settings: { theme, locale } })} />
    ),
  );

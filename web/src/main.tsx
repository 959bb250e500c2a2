import "./styles/app.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { browserEnv } from "./env";
import { createSounds } from "./sound";
import { createVisavis } from "./visavis";

/** Once per tab and hour. */
const RELOADED = "visavis.reloadedForParts";
const AGAIN_MS = 3_600_000;

/** A part is missing: an old page asks for what a newer server no longer has, or the network is away. */
window.addEventListener("vite:preloadError", () => void reloadIfAnswered());

async function reloadIfAnswered() {
  try {
    // While the server cannot be reached, a reload would throw away a page that still works.
    if (!(await fetch("/api/info", { cache: "no-store" })).ok) return;
    if (Date.now() - Number(sessionStorage.getItem(RELOADED) ?? 0) < AGAIN_MS) return;
    sessionStorage.setItem(RELOADED, String(Date.now()));
  } catch {
    return;
  }
  location.reload();
}

const visavis = createVisavis(browserEnv());
visavis.onMoment(createSounds(() => visavis.settings.get().sounds));

const root = document.getElementById("root");
if (root !== null)
  createRoot(root).render(
    <StrictMode>
      <App visavis={visavis} />
    </StrictMode>,
  );

if (import.meta.env.PROD && "serviceWorker" in navigator)
  window.addEventListener("load", () => void navigator.serviceWorker.register("/sw.js").catch(() => undefined));

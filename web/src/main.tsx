import "./styles/app.css";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { browserEnv } from "./env";
import { createSounds } from "./sound";
import { createVisavis } from "./visavis";

/** Once per tab and hour: an old page asks for a part that a newer server no longer has. */
const RELOADED = "visavis.reloadedForParts";
const AGAIN_MS = 3_600_000;

window.addEventListener("vite:preloadError", (event) => {
  try {
    if (Date.now() - Number(sessionStorage.getItem(RELOADED) ?? 0) < AGAIN_MS) return;
    sessionStorage.setItem(RELOADED, String(Date.now()));
  } catch {
    return;
  }
  event.preventDefault();
  location.reload();
});

const visavis = createVisavis(browserEnv());
const play = createSounds();
visavis.onMoment((moment) => {
  if (visavis.settings.get().sounds) play(moment);
});

const root = document.getElementById("root");
if (root !== null)
  createRoot(root).render(
    <StrictMode>
      <App visavis={visavis} />
    </StrictMode>,
  );

if (import.meta.env.PROD && "serviceWorker" in navigator)
  window.addEventListener("load", () => void navigator.serviceWorker.register("/sw.js").catch(() => undefined));

import { useEffect } from "react";
import type { Theme } from "../model";

/** What belongs to the page itself: its theme, and its height while a keyboard covers part of it. */
export function useDocument(theme: Theme): void {
  useEffect(() => {
    const root = document.documentElement;
    if (theme === "system") delete root.dataset["theme"];
    else root.dataset["theme"] = theme;
    // The browser's own frame follows the paper; the tags' `media` covers the system's choice.
    const paper = getComputedStyle(root).backgroundColor;
    for (const tag of document.querySelectorAll<HTMLMetaElement>('meta[name="theme-color"]'))
      if (theme !== "system" && paper !== "") tag.content = paper;
  }, [theme]);

  useEffect(() => {
    const viewport = window.visualViewport;
    if (!viewport) return;
    const fit = () => {
      const covered = viewport.scale === 1 && window.innerHeight - viewport.height > 80;
      if (covered) document.documentElement.style.setProperty("--app-height", `${viewport.height}px`);
      else document.documentElement.style.removeProperty("--app-height");
    };
    fit();
    viewport.addEventListener("resize", fit);
    return () => viewport.removeEventListener("resize", fit);
  }, []);
}

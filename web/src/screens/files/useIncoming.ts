import { useEffect, useEffectEvent, useState } from "react";

const carriesFiles = (data: DataTransfer | null): data is DataTransfer => data?.types.includes("Files") === true;

/** Folders look like empty files. */
function filesOf(data: DataTransfer): readonly File[] {
  const items = Array.from(data.items).filter(({ kind }) => kind === "file");
  const files = items.flatMap((item) => {
    if (item.webkitGetAsEntry()?.isDirectory === true) return [];
    return item.getAsFile() ?? [];
  });
  return files.length > 0 || items.length > 0 ? files : Array.from(data.files);
}

/**
 * Files that are dropped or pasted anywhere on the page; returns whether some are being dragged over it. Even while
 * none are taken it keeps the browser from opening a dropped file in the place of the conversation.
 */
export function useIncoming(taken: boolean, onFiles: (files: readonly File[]) => void): boolean {
  const [dragging, setDragging] = useState(false);
  const isTaken = useEffectEvent(() => taken);
  const take = useEffectEvent((data: DataTransfer) => {
    const files = taken ? filesOf(data) : [];
    if (files.length > 0) onFiles(files);
  });

  useEffect(() => {
    // Entering a child comes before leaving its parent: what counts is how deep one is.
    let depth = 0;
    const listeners = {
      dragenter(event: DragEvent) {
        if (!carriesFiles(event.dataTransfer)) return;
        event.preventDefault();
        depth += 1;
        setDragging(true);
      },
      dragover(event: DragEvent) {
        if (!carriesFiles(event.dataTransfer)) return;
        event.preventDefault();
        event.dataTransfer.dropEffect = isTaken() ? "copy" : "none";
      },
      dragleave(event: DragEvent) {
        if (!carriesFiles(event.dataTransfer)) return;
        depth = Math.max(0, depth - 1);
        if (depth === 0) setDragging(false);
      },
      drop(event: DragEvent) {
        if (!carriesFiles(event.dataTransfer)) return;
        event.preventDefault();
        depth = 0;
        setDragging(false);
        take(event.dataTransfer);
      },
      paste(event: ClipboardEvent) {
        // Words copied from an office program bring a picture of themselves along.
        if (!carriesFiles(event.clipboardData) || event.clipboardData.types.includes("text/plain") || !isTaken()) return;
        event.preventDefault();
        take(event.clipboardData);
      },
    };
    const all = Object.entries(listeners) as [string, EventListener][];
    for (const [name, listener] of all) window.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of all) window.removeEventListener(name, listener);
    };
  }, []);

  return taken && dragging;
}

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
 * Files that are dropped or pasted anywhere on the page; returns whether some are being dragged over it. Without it
 * the browser would open a dropped file in the place of the conversation.
 */
export function useIncoming(enabled: boolean, onFiles: (files: readonly File[]) => void): boolean {
  const [dragging, setDragging] = useState(false);
  const take = useEffectEvent((data: DataTransfer) => {
    const files = filesOf(data);
    if (files.length > 0) onFiles(files);
  });

  useEffect(() => {
    if (!enabled) return;
    // Entering a child comes before leaving its parent: what counts is how deep one is.
    let depth = 0;
    const done = () => {
      depth = 0;
      setDragging(false);
    };
    const onEnter = (event: DragEvent) => {
      if (!carriesFiles(event.dataTransfer)) return;
      event.preventDefault();
      depth += 1;
      setDragging(true);
    };
    const onOver = (event: DragEvent) => {
      if (!carriesFiles(event.dataTransfer)) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "copy";
    };
    const onLeave = () => {
      depth -= 1;
      if (depth <= 0) done();
    };
    const onDrop = (event: DragEvent) => {
      if (!carriesFiles(event.dataTransfer)) return;
      event.preventDefault();
      done();
      take(event.dataTransfer);
    };
    const onPaste = (event: ClipboardEvent) => {
      // Words copied from an office program bring a picture of themselves along.
      if (!carriesFiles(event.clipboardData) || event.clipboardData.types.includes("text/plain")) return;
      event.preventDefault();
      take(event.clipboardData);
    };
    const listeners = { dragenter: onEnter, dragover: onOver, dragleave: onLeave, drop: onDrop, paste: onPaste } as const;
    const all = Object.entries(listeners) as [string, EventListener][];
    for (const [name, listener] of all) window.addEventListener(name, listener);
    return () => {
      for (const [name, listener] of all) window.removeEventListener(name, listener);
      setDragging(false);
    };
  }, [enabled]);

  return enabled && dragging;
}

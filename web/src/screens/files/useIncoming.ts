import { useEffect, useEffectEvent, useState } from "react";

const carriesFiles = (data: DataTransfer | null): data is DataTransfer => data?.types.includes("Files") === true;
const isField = ({ target }: Event) => target instanceof Element && target.closest("input, textarea") !== null;
/** While something is dragged the browser says so some times a second. */
const STILL_MS = 1500;

/** Folders look like empty files. */
function filesOf(data: DataTransfer): readonly File[] {
  const items = Array.from(data.items).filter(({ kind }) => kind === "file");
  const files = items.flatMap((item) => {
    if (item.webkitGetAsEntry()?.isDirectory === true) return [];
    return item.getAsFile() ?? [];
  });
  return files.length > 0 || items.length > 0 ? files : Array.from(data.files);
}

/** Words copied from an office program bring a picture of themselves along; a copied file brings only its name. */
function isText(data: DataTransfer): boolean {
  const names = new Set(Array.from(data.files, ({ name }) => name));
  const lines = data.getData("text/plain").split(/[\r\n]+/).filter((line) => line.trim() !== "");
  return lines.some((line) => !names.has(line));
}

/**
 * Files that are dropped or pasted anywhere on the page; returns whether some are being dragged over it. Even while
 * none are taken it keeps the browser from opening a dropped file, or a link, in the place of the conversation.
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
    // What is under the pointer may go away without having been left.
    let still: ReturnType<typeof setTimeout> | undefined;
    function over() {
      clearTimeout(still);
      depth = 0;
      setDragging(false);
    }
    const listeners = {
      dragenter(event: DragEvent) {
        if (!carriesFiles(event.dataTransfer)) return;
        event.preventDefault();
        depth += 1;
        setDragging(true);
      },
      dragover(event: DragEvent) {
        const { dataTransfer } = event;
        const files = carriesFiles(dataTransfer);
        if (dataTransfer === null || (!files && isField(event))) return;
        event.preventDefault();
        dataTransfer.dropEffect = files && isTaken() ? "copy" : "none";
        if (!files) return;
        clearTimeout(still);
        still = setTimeout(over, STILL_MS);
        setDragging(true);
      },
      dragleave(event: DragEvent) {
        if (!carriesFiles(event.dataTransfer)) return;
        depth = Math.max(0, depth - 1);
        if (depth === 0) over();
      },
      drop(event: DragEvent) {
        const { dataTransfer } = event;
        if (!carriesFiles(dataTransfer)) {
          if (!isField(event)) event.preventDefault();
          return;
        }
        event.preventDefault();
        over();
        take(dataTransfer);
      },
      paste(event: ClipboardEvent) {
        if (!carriesFiles(event.clipboardData) || isText(event.clipboardData) || !isTaken()) return;
        event.preventDefault();
        take(event.clipboardData);
      },
    };
    const all = Object.entries(listeners) as [string, EventListener][];
    for (const [name, listener] of all) window.addEventListener(name, listener);
    return () => {
      clearTimeout(still);
      for (const [name, listener] of all) window.removeEventListener(name, listener);
    };
  }, []);

  return taken && dragging;
}

import { useEffect, useEffectEvent } from "react";

const INTERACTIVE = "a[href], button, input, textarea, select, summary, [role='menuitem'], [role='switch']";

/** Whether the key was pressed while nothing in particular had the focus. */
export function isFree(event: KeyboardEvent): boolean {
  return !(event.target instanceof Element && event.target.closest(INTERACTIVE) !== null);
}

/** Keys for a whole screen. What a dialog, a menu or an input method uses itself does not arrive here. */
export function useKeys(handle: (event: KeyboardEvent) => void): void {
  const onKey = useEffectEvent((event: KeyboardEvent) => {
    if (event.defaultPrevented || event.isComposing || event.repeat) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open], [popover] > *") !== null) return;
    handle(event);
  });
  useEffect(() => {
    const listener = (event: KeyboardEvent) => onKey(event);
    window.addEventListener("keydown", listener);
    return () => window.removeEventListener("keydown", listener);
  }, []);
}

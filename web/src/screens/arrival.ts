import { createContext, type RefObject, useContext, useEffect } from "react";

/** Tells of each screen whether another was there before it. */
type Arrive = () => boolean;

export const ArrivalContext = createContext<Arrive>(() => false);

export function createArrive(): Arrive {
  let shown = false;
  return () => {
    const before = shown;
    shown = true;
    return before;
  };
}

/** When this screen replaces another, its heading gets the focus. The first one leaves it to the page. */
export function useArrival(target: RefObject<HTMLElement | null>): void {
  const arrive = useContext(ArrivalContext);
  useEffect(() => {
    if (!arrive()) return;
    // The last screen may have been scrolled; this one begins at its top.
    window.scrollTo(0, 0);
    target.current?.focus({ preventScroll: true });
  }, [arrive, target]);
}

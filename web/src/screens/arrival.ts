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
    if (arrive()) target.current?.focus({ preventScroll: true });
  }, [arrive, target]);
}

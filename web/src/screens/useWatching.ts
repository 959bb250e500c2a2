import { useEffect } from "react";
import { useVisavis } from "./useVisavis";

/** Tells the program whether somebody is really looking at the newest message. */
export function useWatching(newestInView: boolean): void {
  const visavis = useVisavis();
  useEffect(() => {
    const look = () =>
      visavis.setWatching(newestInView && document.visibilityState === "visible" && document.hasFocus());
    look();
    window.addEventListener("focus", look);
    window.addEventListener("blur", look);
    document.addEventListener("visibilitychange", look);
    return () => {
      window.removeEventListener("focus", look);
      window.removeEventListener("blur", look);
      document.removeEventListener("visibilitychange", look);
      visavis.setWatching(false);
    };
  }, [visavis, newestInView]);
}

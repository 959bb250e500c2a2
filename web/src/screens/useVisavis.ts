import { createContext, useContext } from "react";
import type { Visavis } from "../model";

export const VisavisContext = createContext<Visavis | null>(null);

export function useVisavis(): Visavis {
  const visavis = useContext(VisavisContext);
  if (visavis === null) throw new Error("no program provided");
  return visavis;
}

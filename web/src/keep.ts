/** What is kept in this browser, as JSON under a name. Where nothing may be kept it lasts as long as the page. */
import type { Storage } from "./env";
import type { Fits } from "./shape";

export interface Keep {
  /** What was kept, or null; null as well if it does not fit. A name whose shape changes gets a new number. */
  read(name: string, fits?: Fits): unknown;
  /** Whether it fitted. */
  write(name: string, value: unknown): boolean;
  forget(name: string): void;
}

export function keepIn(storage: Storage | null): Keep {
  const fallback = new Map<string, string>();
  const key = (name: string) => `visavis.${name}`;
  return {
    read(name, fits = () => true) {
      try {
        const text = fallback.get(name) ?? storage?.getItem(key(name)) ?? null;
        const value: unknown = text === null ? null : JSON.parse(text);
        return fits(value) ? value : null;
      } catch {
        return null;
      }
    },
    write(name, value) {
      const text = JSON.stringify(value);
      try {
        if (storage === null) throw new Error("nothing is kept here");
        storage.setItem(key(name), text);
        fallback.delete(name);
        return true;
      } catch {
        fallback.set(name, text);
        return false;
      }
    },
    forget(name) {
      fallback.delete(name);
      try {
        storage?.removeItem(key(name));
      } catch {
        // Forbidden storage has nothing to forget.
      }
    },
  };
}

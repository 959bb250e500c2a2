/** What is kept in this browser, as JSON under a name. Where nothing may be kept it lasts as long as the page. */
import type { Storage } from "./env";

export interface Keep {
  /** What was kept, or null. The shape is the writer's word: a name whose shape changes gets a new number. */
  read(name: string): unknown;
  /** Whether it fitted. */
  write(name: string, value: unknown): boolean;
  forget(name: string): void;
}

export function keepIn(storage: Storage | null): Keep {
  const fallback = new Map<string, string>();
  const key = (name: string) => `visavis.${name}`;
  return {
    read(name) {
      try {
        const text = fallback.get(name) ?? storage?.getItem(key(name)) ?? null;
        return text === null ? null : (JSON.parse(text) as unknown);
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

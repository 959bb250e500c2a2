/** How view-models hold what they show: one immutable value, replaced when it changes. */
import type { Store } from "./model";

export interface WritableStore<T> extends Store<T> {
  set(value: T): void;
}

/** A store; setting the very same value tells nobody. */
export function store<T>(initial: T): WritableStore<T> {
  let value = initial;
  const listeners = new Set<() => void>();
  return {
    get: () => value,
    set(next) {
      if (Object.is(next, value)) return;
      value = next;
      for (const listener of [...listeners]) listener();
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
  };
}

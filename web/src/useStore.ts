/** The one bridge between view-models and React. */
import { useSyncExternalStore } from "react";
import type { Store } from "./model";

/** The store's value; the component renders again whenever it changes. */
export function useStore<T>(store: Store<T>): T {
  return useSyncExternalStore(store.subscribe, store.get, store.get);
}

/** The recordings of this browser's calls: listed, fetched with the guest's token, deleted for both. */
import type { SavedRecordings } from "./contract.gen";
import type { Env } from "./env";
import type { RecordingsView, Store } from "./model";
import { failureOf, type Failure } from "./socket";
import { store } from "./store";

export interface Recordings {
  readonly view: Store<RecordingsView>;
  load(): Promise<void>;
  download(id: string): Promise<void>;
  remove(id: string): Promise<void>;
}

const PATH = "/api/recordings";

export function createRecordings(env: Env, token: () => string): Recordings {
  const view = store<RecordingsView>({ recordings: [], fetching: null, problem: null });

  function show(change: Partial<RecordingsView>): void {
    view.set({ ...view.get(), ...change });
  }

  /** The answer, or why there is none. */
  async function call(path: string, method?: "DELETE"): Promise<{ readonly ok: unknown } | { readonly error: Failure }> {
    try {
      const request = method === undefined ? { token: token() } : { token: token(), method };
      const { status, json } = await env.fetch(path, undefined, request);
      if (status >= 200 && status < 300) return { ok: json };
      return { error: failureOf((json as { readonly error?: unknown } | null)?.error) };
    } catch {
      return { error: failureOf(null) };
    }
  }

  function without(id: string): RecordingsView["recordings"] {
    return view.get().recordings.filter((recording) => recording.id !== id);
  }

  return {
    view,
    async load() {
      const outcome = await call(PATH);
      if ("ok" in outcome) show({ recordings: (outcome.ok as SavedRecordings).recordings, problem: null });
      else show({ problem: outcome.error.code });
    },
    async download(id) {
      if (view.get().fetching !== null) return;
      const recording = view.get().recordings.find((one) => one.id === id);
      const bytes = Math.max(1, recording?.bytes ?? Infinity);
      show({ fetching: { id, share: 0 }, problem: null });
      try {
        const file = await env.fetchBytes(`${PATH}/${encodeURIComponent(id)}`, token(), (here) => {
          const share = Math.min(1, here / bytes);
          // A step of a hundredth is all that can be seen.
          if (share - (view.get().fetching?.share ?? 0) >= 0.01) show({ fetching: { id, share } });
        });
        if (file === null) show({ problem: "not_found" });
        else env.saveFile(file, nameOf(recording?.madeAt ?? env.now()));
      } catch {
        show({ problem: "unreachable" });
      }
      show({ fetching: null });
    },
    async remove(id) {
      const outcome = await call(`${PATH}/${encodeURIComponent(id)}`, "DELETE");
      // What is gone already was to be gone.
      if ("ok" in outcome || outcome.error.code === "not_found") show({ recordings: without(id), problem: null });
      else show({ problem: outcome.error.code });
    },
  };
}

function nameOf(madeAt: number): string {
  return `visavis-${new Date(madeAt).toISOString().slice(0, 16).replace("T", "-").replace(":", "")}.mp4`;
}

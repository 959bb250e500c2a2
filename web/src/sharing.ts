/**
 * What the first load has of sharing files and voice messages: what the screens see, and a place to wait in until the
 * parts that do it are here. Both end with the conversation.
 */
import type { Conversation } from "./conversation";
import type { Devices } from "./devices";
import type { Cancel, Env } from "./env";
import { guessKind, type Files } from "./files";
import type { Store, UploadView, Visavis, VoiceView } from "./model";
import type { Connection } from "./socket";
import { store } from "./store";
import type { createUploads, Uploads } from "./uploads";
import type { createVoice, Voice } from "./voice";

export interface SharingParts {
  uploads(): Promise<{ readonly createUploads: typeof createUploads }>;
  voice(): Promise<{ readonly createVoice: typeof createVoice }>;
}

/** A file that is to be sent in this conversation. */
export interface Chosen {
  readonly conversationId: string;
  /** Of what was chosen together, which is said in the order in which it was chosen. */
  readonly batch: number;
  readonly file: File;
  readonly replyTo: string | null;
  readonly view: UploadView;
}

export interface Sharing {
  readonly uploads: Store<readonly UploadView[]>;
  readonly voice: Store<VoiceView>;
  share: Visavis["share"];
  cancel(id: string): void;
  retry(id: string): void;
  startVoice(): Promise<void>;
  stopVoice(): Promise<void>;
  cancelVoice(): void;
  sendVoice: Visavis["sendVoice"];
}

/** How a file is said, and for a voice message how long it is. */
interface Manner {
  readonly text?: string;
  readonly replyTo?: string | null;
  readonly seconds?: number;
}

const LOAD_AGAIN_MS = 2_000;
export const MAX_VOICE_SECONDS = 300;
const SILENT: VoiceView = { phase: "idle", seconds: 0, maxSeconds: MAX_VOICE_SECONDS, levels: [], url: null, problem: null };

export function createSharing(
  env: Env,
  connection: Connection,
  outside: {
    readonly conversation: Conversation;
    readonly files: Files;
    readonly devices: Devices;
    token(): string;
    newId(): string;
  },
  parts: SharingParts,
): Sharing {
  const { conversation, files, devices, token, newId } = outside;
  const uploads = store<readonly UploadView[]>([]);
  const voice = store<VoiceView>(SILENT);
  let queue: Uploads | null = null;
  let loading = false;
  let waiting: Chosen[] = [];
  let recorder: Voice | null = null;
  /** Counts what was begun, so that what was given up while it loaded is told from it. */
  let attempt = 0;
  let batches = 0;
  let asking: Cancel | null = null;

  function live(): string | null {
    const talk = conversation.view.get();
    return talk !== null && talk.ended === null ? talk.id : null;
  }

  function load(): void {
    if (loading) return;
    loading = true;
    parts.uploads().then(
      ({ createUploads }) => {
        queue = createUploads(env, connection, { list: uploads, files, token, say: conversation.sayFile });
        for (const one of waiting.splice(0)) queue.add(one);
      },
      () => {
        loading = false;
        env.after(LOAD_AGAIN_MS, () => waiting.length > 0 && load());
      },
    );
  }

  function add(batch: number, file: File, manner: Manner): void {
    const { text = "", replyTo = null, seconds = null } = manner;
    const conversationId = live();
    if (conversationId === null) return;
    const kind = seconds === null ? guessKind(file) : "voice";
    const refusal = seconds === null ? files.check(file) : null;
    const chosen: Chosen = {
      conversationId,
      batch,
      file,
      replyTo,
      view: {
        id: newId(),
        name: file.name,
        bytes: file.size,
        kind,
        text,
        preview: kind === "picture" || kind === "video" ? env.urlOf(file) : null,
        seconds,
        phase: refusal === null ? "waiting" : "failed",
        share: 0,
        problem: refusal?.problem ?? null,
        limit: refusal?.limit ?? null,
        retry: false,
      },
    };
    uploads.set([...uploads.get(), chosen.view]);
    if (queue === null) waiting.push(chosen);
    else queue.add(chosen);
    load();
  }

  /** Takes one away that the queue has not got yet. */
  function drop(id: string): void {
    const view = uploads.get().find((one) => one.id === id);
    if (view?.preview != null) env.revokeUrl(view.preview);
    waiting = waiting.filter((one) => one.view.id !== id);
    uploads.set(uploads.get().filter((one) => one.id !== id));
  }

  function cancelVoice(): void {
    attempt += 1;
    recorder?.cancel();
    voice.set(SILENT);
  }

  let current = live();
  conversation.view.subscribe(() => {
    const before = current;
    current = live();
    if (before === null || before === current) return;
    if (queue === null) for (const { view } of waiting) drop(view.id);
    else queue.end();
    cancelVoice();
  });
  uploads.subscribe(() => {
    const busy = uploads.get().some(({ phase }) => phase !== "failed");
    if (busy) asking ??= env.askBeforeGoing();
    else {
      asking?.();
      asking = null;
    }
  });

  return {
    uploads,
    voice,
    share(chosen) {
      batches += 1;
      for (const { file, ...said } of chosen) add(batches, file, said);
    },
    cancel(id) {
      if (queue === null) drop(id);
      else queue.cancel(id);
    },
    retry: (id) => queue?.retry(id),
    async startVoice() {
      const { phase } = voice.get();
      if (live() === null || phase === "asking" || phase === "recording") return;
      cancelVoice();
      const mine = attempt;
      voice.set({ ...SILENT, phase: "asking" });
      if (recorder === null) {
        try {
          const { createVoice } = await parts.voice();
          recorder ??= createVoice(env, devices, voice, (file, seconds, replyTo) => add((batches += 1), file, { seconds, replyTo }));
        } catch {
          if (mine === attempt) voice.set({ ...SILENT, problem: "failed" });
          return;
        }
      }
      if (mine === attempt) await recorder.start();
    },
    async stopVoice() {
      if (recorder === null) cancelVoice();
      else await recorder.stop();
    },
    cancelVoice,
    sendVoice: async (replyTo = null) => (await recorder?.send(replyTo)) ?? false,
  };
}

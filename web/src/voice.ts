/** Records a voice message: asks for the microphone, shows how loud it is, lets it be heard before it is sent. Loaded when needed. */
import type { Devices } from "./devices";
import type { Cancel, Env } from "./env";
import type { VoiceView } from "./model";
import { MAX_VOICE_SECONDS } from "./sharing";
import type { WritableStore } from "./store";

export interface Voice {
  start(): Promise<void>;
  stop(): Promise<void>;
  cancel(): void;
  /** Resolves to whether there was anything to send. */
  send(replyTo: string | null): Promise<boolean>;
}

/** What every browser can say and play comes first. */
const TYPES = ["audio/webm;codecs=opus", "audio/mp4"];
const ENDINGS: readonly (readonly [type: string, ending: string])[] = [
  ["audio/webm", "webm"],
  ["audio/mp4", "m4a"],
  ["audio/ogg", "ogg"],
];
const LEVEL_MS = 100;
const SHORTEST_SECONDS = 0.5;

interface Recording {
  readonly since: number;
  /** Lets go of the microphone. */
  end(): Promise<Blob>;
}

export function createVoice(
  env: Env,
  devices: Devices,
  view: WritableStore<VoiceView>,
  send: (file: File, seconds: number, replyTo: string | null) => void,
): Voice {
  /** Counts what was begun: the answers to what was given up are not for what came after it. */
  let attempt = 0;
  let recording: Recording | null = null;
  let recorded: Blob | null = null;

  function show(change: Partial<VoiceView>): void {
    view.set({ ...view.get(), ...change });
  }

  function idle(problem: VoiceView["problem"] = null): void {
    const { url } = view.get();
    if (url !== null) env.revokeUrl(url);
    recorded = null;
    show({ phase: "idle", seconds: 0, levels: [], url: null, problem });
  }

  function cancel(): void {
    attempt += 1;
    void recording?.end().catch(() => undefined);
    recording = null;
    idle();
  }

  function record(track: MediaStreamTrack): void {
    const recorder = env.media.record(track, TYPES);
    let timer: Cancel | null = null;
    let meter: ReturnType<Env["media"]["meter"]> | null = null;
    try {
      meter = env.media.meter(track);
      env.media.wake();
    } catch {
      // Without a meter one is heard all the same.
    }
    const since = env.now();
    const current: Recording = {
      since,
      async end() {
        timer?.();
        meter?.close();
        const bytes = recorder.stop();
        try {
          return await bytes;
        } finally {
          track.stop();
        }
      },
    };
    recording = current;
    track.addEventListener("ended", () => {
      if (recording === current) void stop();
    });
    const tick = () => {
      const seconds = Math.min(MAX_VOICE_SECONDS, (env.now() - since) / 1_000);
      // Speech is quiet in numbers: what is loud to the ear should look loud.
      const level = Math.round(Math.min(1, (meter?.level() ?? 0) * 4) * 50) / 50;
      show({ seconds, levels: [...view.get().levels, level] });
      if (seconds >= MAX_VOICE_SECONDS) void stop();
      else timer = env.after(LEVEL_MS, tick);
    };
    show({ phase: "recording", seconds: 0, levels: [] });
    timer = env.after(LEVEL_MS, tick);
  }

  /** To the preview; resolves to whether there is one. */
  async function stop(): Promise<boolean> {
    // Nothing was said yet.
    if (view.get().phase === "asking") cancel();
    if (recording === null) return false;
    const { since, end } = recording;
    recording = null;
    const mine = (attempt += 1);
    const seconds = Math.min(MAX_VOICE_SECONDS, (env.now() - since) / 1_000);
    const bytes = await end().catch(() => null);
    if (mine !== attempt) return false;
    if (seconds < SHORTEST_SECONDS) idle();
    else if (bytes === null || bytes.size === 0) idle("failed");
    else {
      recorded = bytes;
      show({ phase: "preview", seconds, url: env.urlOf(bytes) });
      return true;
    }
    return false;
  }

  env.onGone(cancel);
  // Nobody is recorded by a page that they do not see; what was said so far can be heard when they are back.
  env.onHidden(() => {
    if (recording !== null) void stop();
  });

  return {
    async start() {
      cancel();
      const mine = attempt;
      show({ phase: "asking" });
      const lent = await devices.lend();
      if (mine !== attempt) {
        if (typeof lent !== "string") lent.stop();
      } else if (typeof lent === "string") idle(lent);
      else
        try {
          record(lent);
        } catch {
          lent.stop();
          idle("unsupported");
        }
    },
    async stop() {
      await stop();
    },
    cancel,
    async send(replyTo) {
      if (view.get().phase === "recording" && !(await stop())) return false;
      if (recorded === null) return false;
      const { seconds } = view.get();
      const bytes = recorded;
      idle();
      const ending = ENDINGS.find(([type]) => bytes.type.startsWith(type))?.[1] ?? "bin";
      send(new File([bytes], `voice-message.${ending}`, { type: bytes.type }), seconds, replyTo);
      return true;
    },
  };
}

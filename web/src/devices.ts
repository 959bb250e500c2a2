/**
 * Microphone and camera: which there are, which one wants, what is open right now, and why something is not.
 *
 * Whoever needs them says so (a look before joining, a call); what nobody needs is let go at once, so that no light
 * stays on. A device that fails never fails the other.
 */
import type { Cancel, Env, MediaEnv } from "./env";
import type { Keep } from "./keep";
import type { DeviceProblem, DevicesView, Store } from "./model";
import { either, isFlag, isNothing, isRecord, isText } from "./shape";
import { store } from "./store";

type Kind = "microphone" | "camera";

export interface DeviceTracks {
  readonly microphone: MediaStreamTrack | null;
  readonly camera: MediaStreamTrack | null;
}

export interface Devices {
  readonly view: Store<DevicesView>;
  readonly level: Store<number>;
  /** What is open. A muted microphone is open, and its track not enabled. */
  readonly tracks: Store<DeviceTracks>;
  /** What a call needs, as far as the guest has it switched on; null: no call. Resolves when it is open, or will not be. */
  use(need: { readonly camera: boolean } | null): Promise<void>;
  open(what: "voice" | "video"): Promise<void>;
  close(): void;
  /**
   * A track of the microphone that is the asker's to stop, or why there is none. In a call it is that call's
   * microphone, heard even if the call has it muted.
   */
  lend(): Promise<MediaStreamTrack | DeviceProblem>;
  choose(kind: Kind | "speaker", id: string): Promise<void>;
  setMicrophone(on: boolean): Promise<void>;
  setCamera(on: boolean): Promise<void>;
}

interface Choice {
  readonly microphone: string | null;
  readonly camera: string | null;
  readonly speaker: string | null;
  readonly microphoneOn: boolean;
  readonly cameraOn: boolean;
}

const CHOICE = "devices.1";
const isId = either(isText, isNothing);
const isChoice = isRecord({ microphone: isId, camera: isId, speaker: isId, microphoneOn: isFlag, cameraOn: isFlag });
const DEFAULT: Choice = { microphone: null, camera: null, speaker: null, microphoneOn: true, cameraOn: true };
const LEVEL_MS = 100;

export function createDevices(env: Env, keeps: { readonly tab: Keep; readonly browser: Keep }): Devices {
  const { media } = env;
  // A call's own choice outlives a reload of it: who was muted must not be heard because of one.
  let inCall = keeps.tab.read(CHOICE, isChoice) as Choice | null;
  let chosen = (keeps.browser.read(CHOICE, isChoice) as Choice | null) ?? DEFAULT;
  const tracks = store<DeviceTracks>({ microphone: null, camera: null });
  const level = store(0);
  const view = store<DevicesView>({
    microphones: [],
    cameras: [],
    speakers: [],
    microphone: now().microphone,
    camera: now().camera,
    speaker: now().speaker,
    microphoneOn: now().microphoneOn,
    cameraOn: now().cameraOn,
    microphoneProblem: media.missing,
    cameraProblem: media.missing,
    opening: false,
    preview: null,
  });
  let looking: "voice" | "video" | null = null;
  let call: { readonly camera: boolean } | null = null;
  let working: Promise<void> | null = null;
  let again = false;
  /** Asked for anew, whatever is open: another device was chosen. */
  const renew = new Set<Kind>();
  /** Failed, and not to be tried again until somebody asks. */
  const failed = new Set<Kind>();
  let meter: { readonly track: MediaStreamTrack; readonly stop: Cancel } | null = null;

  function now(): Choice {
    return inCall ?? chosen;
  }

  function show(change: Partial<DevicesView>): void {
    view.set({ ...view.get(), ...change });
  }

  function decide(change: Partial<Choice>): void {
    if (call !== null) {
      inCall = { ...now(), ...change };
      keeps.tab.write(CHOICE, inCall);
    }
    // Which device it is holds for the next call as well; being muted in this one does not.
    const { microphone, camera, speaker } = { ...chosen, ...change };
    chosen = call === null ? { ...chosen, ...change } : { ...chosen, microphone, camera, speaker };
    keeps.browser.write(CHOICE, chosen);
    show(change);
  }

  // ------------------------------------------------------------------ opening and letting go

  function wanted(kind: Kind): boolean {
    if (failed.has(kind) || media.missing !== null) return false;
    if (kind === "camera") return now().cameraOn && (call?.camera === true || looking === "video");
    // Once open, a muted microphone stays so: speaking again must not take a second.
    const needed = call !== null || looking !== null;
    return needed && (now().microphoneOn || tracks.get().microphone !== null);
  }

  function put(kind: Kind, track: MediaStreamTrack | null): void {
    const former = tracks.get()[kind];
    if (former === track) return;
    tracks.set({ ...tracks.get(), [kind]: track });
    former?.stop();
    if (track !== null) {
      if (kind === "microphone") track.enabled = now().microphoneOn;
      track.addEventListener("ended", () => {
        if (tracks.get()[kind] === track) unplugged(kind);
      });
    }
    if (kind === "camera") show({ preview: track === null ? null : media.stream([track]) });
    else measure();
  }

  function unplugged(kind: Kind): void {
    put(kind, null);
    show(kind === "microphone" ? { swapped: "microphone" } : { swapped: "camera" });
    // Whichever the browser takes instead.
    decide({ [kind]: null });
    void sync();
  }

  /** Brings what is open in line with what is wanted; one request to the browser at a time. */
  function sync(): Promise<void> {
    again = true;
    working ??= work().then(() => {
      working = null;
      // Somebody may have asked in the very moment it was done.
      if (again) return sync();
    });
    return working;
  }

  async function work(): Promise<void> {
    while (again) {
      again = false;
      for (const kind of ["microphone", "camera"] as const) if (!wanted(kind)) put(kind, null);
      const missing = (["microphone", "camera"] as const).filter(
        (kind) => wanted(kind) && (tracks.get()[kind] === null || renew.has(kind)),
      );
      // A phone may not open a second camera while the first is in use.
      if (renew.has("camera")) put("camera", null);
      renew.clear();
      if (missing.length === 0) continue;
      show({ opening: true });
      await request(missing);
      await list();
      show({ opening: false });
      again = true;
    }
  }

  /** Together first, so that the browser asks once; each alone if that fails, so that one does not fail the other. */
  async function request(kinds: readonly Kind[]): Promise<void> {
    try {
      const stream = await media.open(Object.assign({}, ...kinds.map(constraintsOf)) as MediaStreamConstraints);
      for (const kind of kinds) {
        const [track] = kind === "microphone" ? stream.getAudioTracks() : stream.getVideoTracks();
        if (track === undefined) fail(kind, "failed");
        else succeed(kind, track);
      }
    } catch (error) {
      if (kinds.length === 1) {
        for (const kind of kinds) fail(kind, await problemOf(error, kind));
        return;
      }
      for (const kind of kinds) {
        const problem = await problemOf(error, kind);
        // A person who has just said no is not asked the same question again.
        if (problem === "dismissed") fail(kind, problem);
        else await request([kind]);
      }
    }
  }

  function constraintsOf(kind: Kind): MediaStreamConstraints {
    const id = now()[kind];
    const deviceId = id === null ? {} : { deviceId: { ideal: id } };
    return kind === "microphone"
      ? { audio: { ...deviceId, echoCancellation: true, noiseSuppression: true, autoGainControl: true } }
      : // Every camera has it, an old phone encodes it without sweat, and a relay carries it for many.
        { video: { ...deviceId, width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30, max: 30 } } };
  }

  function succeed(kind: Kind, track: MediaStreamTrack): void {
    if (!wanted(kind)) {
      track.stop();
      return;
    }
    put(kind, track);
    const id = track.getSettings().deviceId ?? now()[kind];
    show(kind === "microphone" ? { microphone: id, microphoneProblem: null } : { camera: id, cameraProblem: null });
  }

  function fail(kind: Kind, problem: DeviceProblem): void {
    failed.add(kind);
    put(kind, null);
    show(kind === "microphone" ? { microphoneProblem: problem } : { cameraProblem: problem });
  }

  async function problemOf(error: unknown, kind: Kind): Promise<DeviceProblem> {
    const name = error instanceof Error ? error.name : "";
    if (name === "NotAllowedError" || name === "SecurityError") {
      return (await media.permission(kind)) === "prompt" ? "dismissed" : "denied";
    }
    return PROBLEMS[name] ?? "failed";
  }

  // ------------------------------------------------------------------ which there are

  async function list(): Promise<void> {
    const all = await media.list().catch(() => []);
    const of = (kind: MediaDeviceKind) =>
      all.filter((device) => device.kind === kind && device.deviceId !== "").map(({ deviceId, label }) => ({ id: deviceId, label }));
    show({
      microphones: of("audioinput"),
      cameras: of("videoinput"),
      speakers: media.canChooseSpeaker ? of("audiooutput") : [],
    });
  }

  media.onDevices(() => {
    void list().then(() => {
      for (const kind of ["microphone", "camera"] as const) {
        const track = tracks.get()[kind];
        const there = kind === "microphone" ? view.get().microphones : view.get().cameras;
        const id = track?.getSettings().deviceId;
        // Some browsers leave the track of an unplugged device alive and silent.
        if (track !== null && id !== undefined && there.length > 0 && there.every((device) => device.id !== id)) unplugged(kind);
        const problem = kind === "microphone" ? view.get().microphoneProblem : view.get().cameraProblem;
        if (problem === "none" && there.length > 0) failed.delete(kind);
      }
      void sync();
    });
  });

  // ------------------------------------------------------------------ how loud

  function measure(): void {
    const track = tracks.get().microphone;
    if (meter?.track === track) return;
    meter?.stop();
    meter = null;
    level.set(0);
    if (track === null) return;
    let timer: Cancel | null = null;
    let reader: ReturnType<MediaEnv["meter"]>;
    try {
      reader = media.meter(track);
    } catch {
      // Without a meter one is heard all the same.
      return;
    }
    const tick = () => {
      // Speech is quiet in numbers: what is loud to the ear should look loud.
      level.set(track.enabled ? Math.round(Math.min(1, reader.level() * 4) * 50) / 50 : 0);
      timer = env.after(LEVEL_MS, tick);
    };
    meter = {
      track,
      stop() {
        timer?.();
        reader.close();
      },
    };
    tick();
  }

  function ask(kind: Kind): void {
    failed.delete(kind);
  }

  env.onGone(() => {
    looking = null;
    call = null;
    for (const kind of ["microphone", "camera"] as const) put(kind, null);
  });

  return {
    view,
    level,
    tracks,
    async use(need) {
      if (need === null && call !== null) {
        inCall = null;
        keeps.tab.forget(CHOICE);
        show({ microphoneOn: chosen.microphoneOn, cameraOn: chosen.cameraOn, swapped: null });
      }
      if (need !== null && call === null) {
        // The look before it is over, whoever forgets to say so.
        looking = null;
        ask("microphone");
        ask("camera");
      }
      call = need;
      await sync();
    },
    async open(what) {
      looking = what;
      ask("microphone");
      ask("camera");
      await Promise.all([list(), sync()]);
    },
    close() {
      looking = null;
      void sync();
    },
    async lend() {
      if (media.missing !== null) return media.missing;
      // Not before that is over: a phone takes a microphone away from who opened it first.
      await working;
      const open = tracks.get().microphone;
      if (open !== null) {
        const copy = open.clone();
        copy.enabled = true;
        return copy;
      }
      try {
        const [track] = (await media.open(constraintsOf("microphone"))).getAudioTracks();
        void list();
        return track ?? "failed";
      } catch (error) {
        return problemOf(error, "microphone");
      }
    },
    async choose(kind, id) {
      decide({ [kind]: id });
      if (kind === "speaker") return;
      ask(kind);
      show({ swapped: null });
      if (tracks.get()[kind] !== null) renew.add(kind);
      await sync();
    },
    async setMicrophone(on) {
      decide({ microphoneOn: on });
      const { microphone } = tracks.get();
      if (microphone !== null) {
        microphone.enabled = on;
        // The same track in another state is news to whoever sends it.
        tracks.set({ ...tracks.get() });
      }
      if (on) ask("microphone");
      await sync();
    },
    async setCamera(on) {
      decide({ cameraOn: on });
      if (on) ask("camera");
      await sync();
    },
  };
}

const PROBLEMS: Readonly<Record<string, DeviceProblem>> = {
  NotReadableError: "busy",
  AbortError: "busy",
  TrackStartError: "busy",
  NotFoundError: "none",
  DevicesNotFoundError: "none",
  OverconstrainedError: "none",
};

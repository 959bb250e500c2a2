/**
 * Sends this side's sound and camera to the recorder while, and only while, both agree: a peer connection of its own,
 * with the same tracks and the same blur as the partner gets. A shared screen is not recorded.
 */
import { cameraEncoding } from "./adapt";
import type { Call } from "./contract.gen";
import type { Cancel, Env } from "./env";
import { configurationOf, encode, preferCodecs, showsVideo, sideOf, type Terms, type Tracks } from "./peer";

export interface Recorder {
  /** What to send, or that nothing may be sent any more: then it stops at once. */
  update(recordingId: string | null, terms: Terms, tracks: Tracks): void;
  answer(session: string, sdp: string): void;
  close(): void;
}

interface Sending {
  readonly recordingId: string;
  readonly session: string;
  readonly video: boolean;
  readonly connection: RTCPeerConnection;
  readonly sound: RTCRtpTransceiver;
  readonly camera: RTCRtpTransceiver | null;
  readonly timers: Cancel[];
}

/** One description with the candidates in it: a relay that takes longer than this takes its time. */
const GATHERING_MS = 1_500;
const ANSWER_MS = 8_000;
const RETRIES = 1;
/** How long a recorder may take to be found. */
const FOUND_MS = 10_000;
const ASK_AGAIN_MS = 100;

export function createRecorder(
  env: Env,
  newId: () => string,
  /** Returns whether it arrived, or in how many milliseconds it may. */
  offer: (recordingId: string, session: string, sdp: string) => Promise<boolean | number>,
): Recorder {
  let sending: Sending | null = null;
  let retries = 0;
  let wanted: { readonly recordingId: string; readonly terms: Terms; readonly tracks: Tracks } | null = null;
  let dressing: Promise<void> = Promise.resolve();

  function stop(): void {
    if (sending === null) return;
    for (const cancel of sending.timers) cancel();
    sending.connection.close();
    sending = null;
  }

  async function start(): Promise<void> {
    if (wanted === null) return;
    const { recordingId, terms } = wanted;
    const video = showsVideo(terms.rung);
    const connection = env.media.peer({
      ...configurationOf({ direct: terms.servers.length === 0, servers: terms.servers }),
      iceCandidatePoolSize: 0,
    });
    const sound = connection.addTransceiver("audio", { direction: "sendonly" });
    const sendEncodings = [blurOf(terms.rung, wanted.tracks)];
    const camera = video ? connection.addTransceiver("video", { direction: "sendonly", sendEncodings }) : null;
    const current: Sending = { recordingId, session: newId(), video, connection, sound, camera, timers: [] };
    sending = current;
    connection.addEventListener("connectionstatechange", () => {
      if (connection.connectionState === "failed") fail(current);
      // What breaks after that is another trouble.
      else if (connection.connectionState === "connected" && current === sending) retries = 0;
    });
    try {
      preferCodecs(env, sound, "audio", ["audio/opus"]);
      if (camera !== null) preferCodecs(env, camera, "video");
      await dress();
      await connection.setLocalDescription(await connection.createOffer());
      await gathered(current);
      const { localDescription } = connection;
      if (current !== sending || localDescription === null) return;
      if (await offered(current, localDescription.sdp)) {
        current.timers.push(env.after(ANSWER_MS, () => connection.connectionState !== "connected" && fail(current)));
      } else fail(current);
    } catch {
      fail(current);
    }
  }

  /** Offers until a recorder has been found that it can be passed on to. */
  async function offered(current: Sending, sdp: string): Promise<boolean> {
    const end = env.now() + FOUND_MS;
    for (;;) {
      const outcome = await offer(current.recordingId, current.session, sdp);
      if (typeof outcome === "boolean") return outcome;
      const waitMs = Math.max(ASK_AGAIN_MS, outcome);
      if (current !== sending || env.now() + waitMs > end) return false;
      await new Promise<void>((resolve) => current.timers.push(env.after(waitMs, resolve)));
    }
  }

  function gathered({ connection, timers }: Sending): Promise<void> {
    if (connection.iceGatheringState === "complete") return Promise.resolve();
    return new Promise((resolve) => {
      timers.push(env.after(GATHERING_MS, resolve));
      connection.addEventListener("icegatheringstatechange", () => {
        if (connection.iceGatheringState === "complete") resolve();
      });
    });
  }

  function fail(current: Sending): void {
    if (current !== sending) return;
    stop();
    // The server says how the recording ended; one more attempt is this side's part.
    if (retries >= RETRIES) return;
    retries += 1;
    void start();
  }

  function blurOf(rung: Call["rung"], tracks: Tracks): RTCRtpEncodingParameters {
    return cameraEncoding(rung !== "clear", 0, sideOf(tracks.camera));
  }

  function dress(): Promise<void> {
    dressing = dressing.then(redress, redress);
    return dressing;
  }

  async function redress(): Promise<void> {
    if (sending === null || wanted === null) return;
    const { sound, camera } = sending;
    const { terms, tracks } = wanted;
    if (sound.sender.track !== tracks.microphone) await sound.sender.replaceTrack(tracks.microphone);
    if (camera === null) return;
    const { sender } = camera;
    const before = sender.getParameters().encodings[0]?.scaleResolutionDownBy ?? 1;
    const blur = blurOf(terms.rung, tracks);
    // Nothing clear may slip through while the blur comes into force.
    if (sender.track !== null && (before < (blur.scaleResolutionDownBy ?? 1) || sender.track !== tracks.camera)) await sender.replaceTrack(null);
    if ((await encode(sender, blur)) && sender.track !== tracks.camera) await sender.replaceTrack(tracks.camera);
  }

  return {
    update(recordingId, terms, tracks) {
      if (recordingId === null || !terms.open) {
        wanted = null;
        retries = 0;
        stop();
        return;
      }
      const other = wanted?.recordingId !== recordingId;
      wanted = { recordingId, terms, tracks };
      if (other) retries = 0;
      if (other || (sending !== null && sending.video !== showsVideo(terms.rung))) {
        stop();
        void start();
      } else void dress();
    },
    answer(session, sdp) {
      const current = sending;
      if (current?.session !== session) return;
      current.connection.setRemoteDescription({ type: "answer", sdp }).catch(() => fail(current));
    },
    close() {
      wanted = null;
      stop();
    },
  };
}

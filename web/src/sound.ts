/** Quiet notes, made on the spot: nothing to download, nothing that startles. */
import type { Moment } from "./model";

interface Note {
  readonly hz: number;
  /** Seconds from now. */
  readonly at: number;
  readonly seconds: number;
  /** 0 to 1. */
  readonly loud: number;
}

const NOTES: Readonly<Record<Moment, readonly Note[]>> = {
  // A rising third, twice: it may have to be heard from the next room.
  matched: [
    { hz: 523.25, at: 0, seconds: 0.5, loud: 0.12 },
    { hz: 659.25, at: 0.16, seconds: 0.7, loud: 0.12 },
    { hz: 523.25, at: 0.6, seconds: 0.5, loud: 0.1 },
    { hz: 783.99, at: 0.76, seconds: 1, loud: 0.1 },
  ],
  message: [{ hz: 698.46, at: 0, seconds: 0.28, loud: 0.07 }],
  ended: [
    { hz: 440, at: 0, seconds: 0.4, loud: 0.07 },
    { hz: 329.63, at: 0.18, seconds: 0.7, loud: 0.07 },
  ],
  // Three steps up and a rest: a call, and nothing like the note of a message.
  ring: [
    { hz: 587.33, at: 0, seconds: 0.35, loud: 0.14 },
    { hz: 739.99, at: 0.18, seconds: 0.35, loud: 0.14 },
    { hz: 880, at: 0.36, seconds: 0.9, loud: 0.14 },
    { hz: 587.33, at: 0.9, seconds: 0.35, loud: 0.12 },
    { hz: 739.99, at: 1.08, seconds: 0.35, loud: 0.12 },
    { hz: 880, at: 1.26, seconds: 0.9, loud: 0.12 },
  ],
  ringback: [
    { hz: 440, at: 0, seconds: 0.9, loud: 0.045 },
    { hz: 554.37, at: 0, seconds: 0.9, loud: 0.035 },
  ],
  quiet: [],
  joined: [
    { hz: 523.25, at: 0, seconds: 0.25, loud: 0.08 },
    { hz: 783.99, at: 0.12, seconds: 0.5, loud: 0.08 },
  ],
  hangup: [
    { hz: 523.25, at: 0, seconds: 0.25, loud: 0.08 },
    { hz: 349.23, at: 0.14, seconds: 0.55, loud: 0.08 },
  ],
  recorded: [
    { hz: 987.77, at: 0, seconds: 0.18, loud: 0.08 },
    { hz: 987.77, at: 0.26, seconds: 0.4, loud: 0.08 },
  ],
};

/** What goes on until somebody answers. */
const AGAIN_MS: Readonly<Partial<Record<Moment, number>>> = { ring: 3000, ringback: 4000 };
/** These say something of their own about a call that rang; the rest leaves it ringing. */
const STOPS: ReadonlySet<Moment> = new Set(["ring", "ringback", "quiet", "joined", "hangup", "ended", "matched"]);

/**
 * Plays a moment's notes while `isOn` says so. Browsers allow sound only after a gesture, so the player listens for the
 * first one.
 */
export function createSounds(isOn: () => boolean): (moment: Moment) => void {
  let context: AudioContext | null = null;
  let again: ReturnType<typeof setInterval> | undefined;

  function wake() {
    if (!("AudioContext" in window)) return;
    context ??= new AudioContext();
    void context.resume().catch(() => undefined);
  }
  for (const gesture of ["pointerup", "keydown"]) window.addEventListener(gesture, wake, { passive: true });

  function play(notes: readonly Note[]) {
    if (context === null || context.state !== "running" || !isOn()) return;
    const now = context.currentTime + 0.02;
    for (const note of notes) {
      const tone = context.createOscillator();
      const volume = context.createGain();
      tone.type = "sine";
      tone.frequency.value = note.hz;
      volume.gain.setValueAtTime(0, now + note.at);
      volume.gain.linearRampToValueAtTime(note.loud, now + note.at + 0.015);
      volume.gain.exponentialRampToValueAtTime(0.0001, now + note.at + note.seconds);
      tone.connect(volume).connect(context.destination);
      tone.start(now + note.at);
      tone.stop(now + note.at + note.seconds);
    }
  }

  return (moment) => {
    if (STOPS.has(moment)) clearInterval(again);
    play(NOTES[moment]);
    const every = AGAIN_MS[moment];
    if (every !== undefined) again = setInterval(() => play(NOTES[moment]), every);
  };
}

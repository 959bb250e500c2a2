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
};

/** Plays a moment's notes. Browsers allow sound only after a gesture, so the player listens for the first one. */
export function createSounds(): (moment: Moment) => void {
  let context: AudioContext | null = null;

  function wake() {
    if (!("AudioContext" in window)) return;
    context ??= new AudioContext();
    void context.resume().catch(() => undefined);
  }
  for (const gesture of ["pointerup", "keydown"]) window.addEventListener(gesture, wake, { passive: true });

  return (moment) => {
    if (context === null || context.state !== "running") return;
    const now = context.currentTime + 0.02;
    for (const note of NOTES[moment]) {
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
  };
}

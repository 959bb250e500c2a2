/** The server's part in calls, for tests: `backend/visavis/core/calls.py` is the original. */
import type { Call, CallOver, CallState, IceServers, Media, Party, Recording } from "./contract.gen";
import type { RequestOf } from "./socket";

const RUNGS: readonly Call["rung"][] = ["text", "voice", "blurred", "clear"];
type Seat = 0 | 1;
export type Request = { readonly [E in "call:invite" | "call:accept" | "call:end" | "call:set"]: RequestOf<E> };

interface Running {
  readonly id: string;
  readonly caller: Seat | null;
  readonly parties: [Party, Party];
  answered: boolean;
  recording: Recording | null;
}

const NOBODY: Party = { rung: "text", direct: false, recording: false, media: {} };

/** One conversation's calls. A refusal is the returned code. */
export class FakeCalls {
  version = 0;
  call: Running | null = null;
  over: CallOver | null = null;
  ice: IceServers;
  #count = 0;
  readonly #id: string;

  constructor(id: string, mode: string, ice: IceServers) {
    this.#id = id;
    this.ice = ice;
    if (mode === "text") return;
    const party: Party = { rung: mode === "video" ? "blurred" : "voice", direct: false, recording: false, media: {} };
    this.call = { id: `${id}-match`, caller: null, parties: [party, { ...party }], answered: true, recording: null };
  }

  get rung(): Call["rung"] {
    return RUNGS[Math.min(...(this.call?.parties ?? [NOBODY]).map(({ rung }) => RUNGS.indexOf(rung)))] ?? "text";
  }

  get direct(): boolean {
    return this.call?.parties.every(({ direct }) => direct) ?? false;
  }

  get open(): boolean {
    return this.call?.answered === true && this.rung !== "text" && (this.ice.servers.length > 0 || this.direct);
  }

  /** On which rung a caller may offer while it rings; null: this one may not. */
  mayOffer(seat: Seat): Call["rung"] | null {
    const { call } = this;
    return call !== null && !call.answered && call.caller === seat ? call.parties[seat].rung : null;
  }

  view(seat: Seat): CallState {
    const { call, version, over } = this;
    return {
      conversationId: this.#id,
      version,
      over,
      call: call && {
        id: call.id,
        phase: call.answered ? "active" : "ringing",
        caller: call.caller,
        rung: this.rung,
        direct: this.direct,
        open: this.open,
        polite: call.caller === null ? seat === 1 : seat !== call.caller,
        mine: call.parties[seat],
        theirs: call.parties[seat === 0 ? 1 : 0],
        recording: call.recording,
        ice: this.ice,
      },
    };
  }

  #join(seat: Seat, { rung, direct = false, media = {} }: { rung: Call["rung"]; direct?: boolean; media?: Media }): void {
    if (this.call !== null) this.call.parties[seat] = { rung, direct, recording: false, media };
  }

  do<E extends keyof Request>(event: E, seat: Seat, request: Request[E]): string | null {
    const { call } = this;
    const changed = () => {
      this.version += 1;
      return null;
    };
    if (event === "call:invite") {
      const asked = request as Request["call:invite"];
      if (this.ice.servers.length === 0 && asked.direct !== true) return "direct_needed";
      if (call !== null && (call.answered || call.caller === seat)) return null;
      if (call !== null) call.answered = true;
      else {
        const id = `${this.#id}-${(this.#count += 1)}`;
        this.call = { id, caller: seat, parties: [NOBODY, NOBODY], answered: false, recording: null };
      }
      this.#join(seat, asked);
      return changed();
    }
    const { callId } = request as { readonly callId: string };
    if (event === "call:end") {
      if (call?.id !== callId) return null;
      const reason = call.answered ? ((request as Request["call:end"]).reason ?? "hung_up") : call.caller === seat ? "cancelled" : "declined";
      this.finish(reason, seat);
      return null;
    }
    if (call?.id !== callId) return "no_such_call";
    if (event === "call:accept") {
      const asked = request as Request["call:accept"];
      if (this.ice.servers.length === 0 && asked.direct !== true) return "direct_needed";
      if (call.answered || call.caller === seat) return null;
      call.answered = true;
      this.#join(seat, asked);
      return changed();
    }
    const { rung, direct, recording, media } = request as Request["call:set"];
    const before = call.parties[seat];
    if (before.rung === "text") return "not_agreed";
    call.parties[seat] = {
      rung: rung ?? before.rung,
      direct: direct ?? before.direct,
      recording: recording ?? before.recording,
      media: media ?? before.media,
    };
    if (recording === false) {
      call.recording = null;
      for (const party of [0, 1] as const) call.parties[party] = { ...call.parties[party], recording: false };
    } else if (call.recording === null && call.parties.every((party) => party.recording)) {
      call.recording = { id: `${call.id}-recording-${this.version}`, phase: "starting" };
    }
    return changed();
  }

  finish(reason: CallOver["reason"], by: Seat | null): void {
    const { call } = this;
    if (call === null) return;
    const video = call.parties.some(({ rung }) => RUNGS.indexOf(rung) >= RUNGS.indexOf("blurred"));
    this.over = { id: call.id, reason, by, caller: call.caller, video };
    this.call = null;
    this.version += 1;
  }
}

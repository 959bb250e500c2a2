/**
 * The conversation's call, as the server says it stands: who rings, what both agree to, how it ended. What flows is
 * `flow.ts`'s, which is loaded only when a call may come.
 *
 * Giving less takes effect here at once and is said to the server until it knows; giving more waits for its word.
 */
import type { Call, CallOver, CallState, Conversation as Seated, ErrorCode, Media, Signalled } from "./contract.gen";
import type { Devices } from "./devices";
import type { Env } from "./env";
import type { createFlow, Flow } from "./flow";
import type { Keep } from "./keep";
import type { CallLine, CallView, ConversationView, Moment, Rung, Store } from "./model";
import { either, isFlag, isList, isNothing, isNumber, isOneOf, isRecord, isText } from "./shape";
import { passes, type Connection } from "./socket";
import { store } from "./store";

type Code = ErrorCode | "unreachable";

export interface Calls {
  readonly view: Store<CallView | null>;
  /** The guest has this seat; `anew`: on a new connection, whose word replaces everything. */
  seated(seat: Seated, anew: boolean): void;
  /** The conversation ended, or its page is put away. */
  unseated(how: ConversationView["ended"]): void;
  /** A call may come soon: loads what it needs. */
  prepare(): void;
  invite(rung: Rung, direct?: boolean): Promise<Code | null>;
  accept(rung: Rung, direct?: boolean): Promise<Code | null>;
  end(): Promise<void>;
  agree(change: { rung?: Rung; direct?: boolean; recording?: boolean }): Promise<void>;
  shareScreen(): Promise<void>;
  stopScreen(): void;
  playSound(): void;
  dismissProblem(): void;
}

/** What outlives a reload of the page: how long it lasted, what was taken back. */
interface Kept {
  readonly conversationId: string;
  readonly callId: string;
  readonly liveSince: number | null;
  readonly video: boolean;
  /** When the page was last seen alive. */
  readonly seen: number;
  readonly less: Less;
}

/** Consent taken back here that the server may not know of yet. */
interface Less {
  readonly rung?: Rung;
  readonly direct?: false;
  readonly recording?: false;
}

const CALL = "call.2";
const isKept = isRecord({
  conversationId: isText,
  callId: isText,
  liveSince: either(isNumber, isNothing),
  video: isFlag,
  seen: isNumber,
  less: isRecord({
    rung: isOneOf(undefined, "voice", "blurred", "clear"),
    direct: isOneOf(undefined, false),
    recording: isOneOf(undefined, false),
  }),
});
/** Calls whose end stands in the conversation. */
const OVER = "calls.over.1";
const KEPT_OVER = 20;
const LADDER: readonly Call["rung"][] = ["text", "voice", "blurred", "clear"];
const DOUBT_MS = 2_000;
const DOUBT_AGAIN_MS = 10_000;
const TELL_AGAIN_MS = 1_000;
const LOAD_AGAIN_MS = 2_000;
const EARLY_SIGNALS = 64;

function lower(one: Call["rung"], other: Call["rung"]): Call["rung"] {
  return LADDER.indexOf(one) < LADDER.indexOf(other) ? one : other;
}

function hasVideo(rung: Call["rung"]): boolean {
  return LADDER.indexOf(rung) >= LADDER.indexOf("blurred");
}

/** Whether anybody asked for more than sound. */
function meantAsVideo({ mine, theirs }: Call): boolean {
  return hasVideo(mine.rung) || hasVideo(theirs.rung);
}

export function createCalls(
  env: Env,
  connection: Connection,
  devices: Devices,
  tab: Keep,
  load: () => Promise<{ readonly createFlow: typeof createFlow }>,
  outside: {
    moment(moment: Moment): void;
    /** Adds a line to the conversation; one that is there already stays as it is. */
    note(conversationId: string, line: CallLine): void;
    newId(): string;
  },
): Calls {
  const view = store<CallView | null>(null);
  let seat: { readonly id: string; readonly number: number } | null = null;
  let version = -1;
  let call: Call | null = null;
  let kept = tab.read(CALL, isKept) as Kept | null;
  let ended = (tab.read(OVER, isList(isText)) as readonly string[] | null) ?? [];
  let less: Less = {};
  /** How many wishes are on their way to the server. */
  let saying = 0;
  let screen: MediaStream | null = null;
  let problem: CallView["problem"] = null;
  /** Asked whether this guest may join: the devices start meanwhile. Without a call it is an invitation. */
  let joining: { readonly callId: string | null; readonly camera: boolean } | null = null;
  let telling = false;
  let sounding: "ring" | "ringback" | null = null;
  let recorded: { readonly id: string; readonly since: number } | null = null;
  let resumed = false;
  let make: typeof createFlow | null = null;
  let loading = false;
  let flow: { readonly id: string; readonly it: Flow } | null = null;
  let early: Signalled[] = [];
  let doubtedAt = -DOUBT_AGAIN_MS;

  // ------------------------------------------------------------------ how it stands

  /** The call, unless this guest has left it, or has seen its end: no server makes that undone. */
  function current(): Call | null {
    return call !== null && ended.includes(call.id) ? null : call;
  }

  function isMine(caller: number | null): boolean {
    return caller !== null && caller === seat?.number;
  }

  function effective(now: Call): { open: boolean; rung: Call["rung"]; direct: boolean; recordingId: string | null } {
    const rung = lower(now.rung, less.rung ?? "clear");
    const direct = now.direct && less.direct !== false;
    return {
      open: now.open && (direct || now.ice.servers.length > 0),
      rung,
      direct,
      recordingId: less.recording === false ? null : (now.recording?.id ?? null),
    };
  }

  /** What the call is about to be: while it rings, the invitation counts as taken. */
  function expected(now: Call): Call["rung"] {
    if (now.phase === "active") return effective(now).rung;
    return isMine(now.caller) ? now.mine.rung : now.theirs.rung;
  }

  function take(state: CallState, anew = false): void {
    if (state.conversationId !== seat?.id) return;
    // On a new connection even the same state brings newer servers.
    if (!anew && state.version <= version) return;
    version = state.version;
    const before = call?.id ?? (kept?.conversationId === seat.id ? kept.callId : null);
    const known = call?.id;
    call = state.call;
    if (before !== null && before !== call?.id) over(before, state.over?.id === before ? state.over : null);
    if (state.over !== null && state.over.id !== before && state.over.id !== call?.id) over(state.over.id, state.over);
    if (call !== null && call.id !== known) begun(call, anew);
    // The server has not heard of it, as while the link was away, or has lost it.
    if (call !== null && current() === null && (anew || call.id !== known)) void sayEnd(call.id, "hung_up");
    forgetLess();
    apply();
    insist();
  }

  function begun(now: Call, anew: boolean): void {
    resumed = anew && now.phase === "active";
    if (current() !== null && kept?.callId !== now.id) keep({ callId: now.id, liveSince: null, less: {} });
    less = kept?.callId === now.id ? kept.less : {};
    early = early.filter((push) => push.callId === now.id);
  }

  function takeBack(next: Less): void {
    if (JSON.stringify(next) === JSON.stringify(less)) return;
    less = next;
    if (call !== null && kept?.callId === call.id) keep({ callId: call.id, less });
  }

  function forgetLess(): void {
    // Something that gives more may still be on its way, and be counted after this.
    if (call === null || saying > 0) return;
    const { rung, direct, recording } = call.mine;
    const still: { rung?: Rung; direct?: false; recording?: false } = {};
    if (less.rung !== undefined && lower(rung, less.rung) !== rung) still.rung = less.rung;
    if (less.direct === false && direct) still.direct = false;
    if (less.recording === false && recording) still.recording = false;
    takeBack(still);
  }

  function keep(change: Partial<Kept> & { readonly callId: string }): void {
    if (seat === null) return;
    const former = kept?.callId === change.callId ? kept : { liveSince: null, less: {} };
    kept = { conversationId: seat.id, video: call !== null && meantAsVideo(call), seen: env.now(), ...former, ...change };
    tab.write(CALL, kept);
  }

  // ------------------------------------------------------------------ the end

  function secondsOf(id: string): number | null {
    if (kept?.callId !== id || kept.liveSince === null) return null;
    const until = flow?.id === id ? env.now() : kept.seen;
    return Math.max(0, Math.round((until - kept.liveSince) / 1000));
  }

  function end(id: string): void {
    if (ended.includes(id)) return;
    ended = [...ended, id].slice(-KEPT_OVER);
    tab.write(OVER, ended);
  }

  /** Says in the conversation how a call ended; null: nobody here knows, and it may come back. */
  function over(id: string, how: CallOver | null): void {
    if (seat === null) return;
    const by = how?.reason === "missed" ? how.caller : (how?.by ?? null);
    outside.note(seat.id, {
      id,
      at: env.now(),
      what: how?.reason ?? "lost",
      by: by === null ? null : by === seat.number ? "me" : "partner",
      video: how?.video ?? (kept?.callId === id && kept.video),
      seconds: secondsOf(id),
      recordingId: null,
    });
    if (how !== null) end(id);
    if (kept?.callId !== id) return;
    if (flow?.id === id && flow.it.view.get().liveSince !== null) outside.moment("hangup");
    kept = null;
    tab.forget(CALL);
  }

  /** Lets go of everything at once, and tells the server until it knows. */
  async function leave(reason: "hung_up" | "failed"): Promise<void> {
    const now = current();
    if (now === null || seat === null) return;
    const mine = isMine(now.caller);
    const what = reason === "failed" ? "failed" : now.phase === "active" ? "hung_up" : mine ? "cancelled" : "declined";
    outside.note(seat.id, {
      id: now.id,
      at: env.now(),
      what,
      by: reason === "failed" ? null : "me",
      video: meantAsVideo(now),
      seconds: secondsOf(now.id),
      recordingId: null,
    });
    if (flow?.it.view.get().liveSince != null) outside.moment("hangup");
    end(now.id);
    joining = null;
    apply();
    await sayEnd(now.id, reason);
  }

  async function sayEnd(callId: string, reason: "hung_up" | "failed"): Promise<void> {
    if (seat === null) return;
    const outcome = await connection.ask("call:end", { conversationId: seat.id, callId, reason });
    if ("ok" in outcome) take(outcome.ok);
    // While the link is away, the state that comes with its return says whether it is still to be said.
    else if (passes(outcome.error) && connection.link.get() === "online")
      env.after(outcome.error.retryInMs ?? TELL_AGAIN_MS, () => {
        if (call?.id === callId) void sayEnd(callId, reason);
      });
  }

  // ------------------------------------------------------------------ bringing everything in line

  function apply(): void {
    const now = current();
    sound(now);
    if (now === null || seat === null) {
      stopFlow();
      stopTracks();
      problem = null;
      void devices.use(joining?.callId === null ? joining : null);
      show();
      return;
    }
    prepare();
    // Whoever is asked chooses first what to join with.
    const joins = now.phase === "active" || isMine(now.caller);
    const { open, rung, direct, recordingId } = effective(now);
    const asks = joining?.callId === null || joining?.callId === now.id ? joining : null;
    void devices.use(joins ? { camera: hasVideo(expected(now)) } : asks);
    if (!hasVideo(expected(now))) stopTracks();
    if (flow !== null && flow.id !== now.id) stopFlow();
    const { microphone, camera, screen: shared } = now.theirs.media;
    const expecting = microphone === true || camera === true || shared === true;
    const early = now.phase === "ringing" && isMine(now.caller);
    const standing = { open, early, rung: open ? rung : expected(now), direct, ice: now.ice, recordingId, expecting };
    if (flow === null) startFlow(now, standing);
    else flow.it.update(standing);
    carry();
    tellMedia();
    show();
  }

  function startFlow(now: Call, standing: Parameters<Flow["update"]>[0]): void {
    if (make === null || seat === null || !env.media.canCall) return;
    const { id } = now;
    const it = make(
      env,
      connection,
      {
        conversationId: seat.id,
        callId: id,
        polite: now.polite,
        resumed,
        liveSince: kept?.callId === id ? kept.liveSince : null,
        level: devices.level,
        newId: outside.newId,
        joined: () => outside.moment("joined"),
        failed: () => void leave("failed"),
        doubt: () => doubt(id),
        broken() {
          problem = "media_failed";
          show();
        },
      },
      standing,
    );
    flow = { id, it };
    it.view.subscribe(() => {
      if (flow?.it !== it) return;
      const { liveSince } = it.view.get();
      if (liveSince !== null && kept?.liveSince !== liveSince) keep({ callId: id, liveSince });
      show();
    });
    for (const push of early.splice(0)) if (push.callId === id) it.receive(push);
  }

  function stopFlow(): void {
    const former = flow;
    flow = null;
    former?.it.close();
  }

  function stopTracks(): void {
    const former = screen;
    screen = null;
    for (const track of former?.getTracks() ?? []) track.stop();
  }

  function carry(): void {
    flow?.it.carry(devices.tracks.get(), screen);
  }

  /** The partner is told what comes and what does not, so that silence explains itself. */
  function tellMedia(): void {
    const now = current();
    if (now === null || seat === null || now.phase !== "active" || telling || devices.view.get().opening) return;
    const media = mediaOf(now);
    const { mine } = now;
    if (same(media, mine.media)) return;
    telling = true;
    void connection.ask("call:set", { conversationId: seat.id, callId: now.id, media }).then((outcome) => {
      telling = false;
      if ("ok" in outcome) {
        take(outcome.ok);
        // It may have changed again meanwhile, and an older state says nothing new.
        if (!same(mediaOf(now), media)) tellMedia();
      } else if (connection.link.get() === "online") env.after(outcome.error.retryInMs ?? TELL_AGAIN_MS, tellMedia);
    });
  }

  function mediaOf(now: Call): Media {
    const { microphone, camera } = devices.tracks.get();
    const video = hasVideo(effective(now).rung);
    return { microphone: microphone?.enabled === true, camera: video && camera !== null, screen: video && screen !== null };
  }

  function same(one: Media, other: Media): boolean {
    return (["microphone", "camera", "screen"] as const).every((what) => (one[what] ?? false) === (other[what] ?? false));
  }

  function sound(now: Call | null): void {
    const wanted = now?.phase !== "ringing" ? null : isMine(now.caller) ? "ringback" : "ring";
    if (wanted !== sounding) {
      sounding = wanted;
      outside.moment(wanted ?? "quiet");
    }
    if (now?.recording?.phase === "on" && recorded?.id !== now.recording.id) {
      recorded = { id: now.recording.id, since: env.now() };
      outside.moment("recorded");
    }
  }

  // ------------------------------------------------------------------ showing

  function show(): void {
    const now = current();
    if (now === null || seat === null) {
      view.set(null);
      return;
    }
    const { open, rung, direct, recordingId } = effective(now);
    const flowing = flow?.id === now.id ? flow.it.view.get() : null;
    const { mine, theirs } = now;
    const mineAgreed = {
      rung: lower(mine.rung, less.rung ?? "clear"),
      direct: mine.direct && less.direct !== false,
      recording: mine.recording && less.recording !== false,
    };
    view.set({
      phase:
        now.phase === "ringing" ? (isMine(now.caller) ? "calling" : "ringing") : !open ? "asking" : (flowing?.phase ?? "connecting"),
      video: hasVideo(expected(now)),
      liveSince: flowing?.liveSince ?? null,
      rung,
      direct,
      relay: now.ice.servers.length > 0,
      mine: {
        ...mineAgreed,
        media: mediaOf(now),
        speaking: flowing?.speaking.mine ?? false,
        stream: hasVideo(expected(now)) ? devices.view.get().preview : null,
        screen,
      },
      theirs: {
        ...theirs,
        speaking: flowing?.speaking.theirs ?? false,
        stream: flowing?.theirs ?? null,
        screen: theirs.media.screen === true ? (flowing?.screen ?? null) : null,
      },
      recording: recordingId !== null ? (now.recording?.phase ?? "off") : less.recording !== false && (mine.recording || theirs.recording) ? "asked" : "off",
      quality: flowing?.quality ?? null,
      numbers: flowing?.numbers ?? null,
      sending: flowing?.sending ?? "full",
      canShareScreen: env.media.canShareScreen,
      // Who plays it finds out whether it may be heard.
      muffled: false,
      problem,
    });
  }

  function fault(code: CallView["problem"]): void {
    problem = code;
    show();
  }

  function prepare(): void {
    if (loading || make !== null) return;
    loading = true;
    load().then(
      (module) => {
        make = module.createFlow;
        if (current() !== null) apply();
      },
      () => {
        loading = false;
        env.after(LOAD_AGAIN_MS, () => current() !== null && prepare());
      },
    );
  }

  /** A call that the server denies while this side sees it: its word is on the way, or is asked for. */
  function doubt(id: string): void {
    env.after(DOUBT_MS, () => {
      if (current()?.id !== id || env.now() - doubtedAt < DOUBT_AGAIN_MS) return;
      doubtedAt = env.now();
      connection.reconnect();
    });
  }

  /** This page has no say any more; the call itself may go on elsewhere. */
  function drop(): void {
    seat = null;
    call = null;
    version = -1;
    less = {};
    early = [];
    joining = null;
    apply();
  }

  // ------------------------------------------------------------------ what arrives

  connection.on("call:state", (state) => take(state));
  connection.on("call:signal", (push) => {
    if (push.conversationId !== seat?.id) return;
    if (flow !== null && flow.id === push.callId) flow.it.receive(push);
    // Its state, or the program that reads it, is still on the way.
    else if (early.length < EARLY_SIGNALS) early.push(push);
  });
  connection.on("recording:answer", (push) => {
    if (push.conversationId === seat?.id) flow?.it.recorderAnswered(push.session, push.sdp);
  });
  connection.on("recording:over", ({ conversationId, recordingId, outcome }) => {
    const saved = outcome === "saved";
    const seconds = saved && recorded?.id === recordingId ? Math.round((env.now() - recorded.since) / 1000) : null;
    outside.note(conversationId, {
      id: recordingId,
      at: env.now(),
      what: saved ? "recorded" : `recording_${outcome}`,
      by: null,
      video: call !== null && hasVideo(call.rung),
      seconds,
      recordingId: saved ? recordingId : null,
    });
  });
  connection.on("conversation:partner", ({ conversationId, state }) => {
    if (conversationId === seat?.id && state === "here") flow?.it.back();
  });
  connection.on("session:replaced", drop);
  connection.onRefused(drop);
  connection.link.subscribe(() => {
    if (connection.link.get() !== "online") return;
    flow?.it.back();
    tellMedia();
    insist();
  });
  devices.tracks.subscribe(() => {
    carry();
    tellMedia();
    show();
  });
  devices.view.subscribe(() => {
    tellMedia();
    if (call !== null) show();
  });
  env.onNetwork(() => env.online() && flow?.it.moved());
  env.onPath(() => flow?.it.moved());
  env.onHidden(() => {
    if (kept !== null && flow?.id === kept.callId) keep({ callId: kept.callId, seen: env.now() });
  });
  env.onGone(stopFlow);

  // ------------------------------------------------------------------ what this guest does

  async function say(change: { rung?: Rung; direct?: boolean; recording?: boolean }): Promise<void> {
    const now = current();
    if (now === null || seat === null) return;
    saying += 1;
    const outcome = await connection.ask("call:set", { conversationId: seat.id, callId: now.id, ...change });
    if ("ok" in outcome) take(outcome.ok);
    saying -= 1;
    if ("ok" in outcome) {
      forgetLess();
      show();
      // A server that had not yet heard of more took less for nothing new.
      if (lacks()) env.after(TELL_AGAIN_MS, insist);
      return;
    }
    const { error } = outcome;
    // What was taken back is said again until it is known; more was only a wish.
    if (!passes(error) || !lacks()) fault(error.code);
    else if (connection.link.get() === "online") env.after(error.retryInMs ?? TELL_AGAIN_MS, insist);
  }

  function lacks(): boolean {
    return Object.keys(less).length > 0;
  }

  /** Says what was taken back until the server knows. */
  function insist(): void {
    if (saying === 0 && lacks()) void say(less);
  }

  async function join(callId: string | null, rung: Rung, ask: (media: Media) => Promise<Code | null>): Promise<Code | null> {
    prepare();
    problem = null;
    const { microphoneOn, cameraOn } = devices.view.get();
    // The devices start while the question is on its way.
    const mine = { callId, camera: hasVideo(rung) };
    joining = mine;
    void devices.use(mine);
    const code = await ask({ microphone: microphoneOn, camera: cameraOn && hasVideo(rung), screen: false });
    // Somebody may have asked once more meanwhile, or thought better of it.
    if (joining === mine) joining = null;
    apply();
    return code;
  }

  return {
    view,
    seated({ id, seat: number, call: state }, anew) {
      if (seat?.id !== id) {
        call = null;
        version = -1;
        less = {};
        joining = null;
        early = early.filter((push) => push.conversationId === id);
        stopFlow();
      }
      seat = { id, number };
      if (kept !== null && kept.conversationId !== id) kept = null;
      prepareSoon();
      take(state, anew);
    },
    unseated(how) {
      if (seat === null) return;
      const now = current();
      if (now !== null && how !== null) {
        const by = how === "me" ? seat.number : how === "left" ? (seat.number === 0 ? 1 : 0) : null;
        const { id, caller } = now;
        const reason = now.phase === "active" ? "hung_up" : by !== null && by === caller ? "cancelled" : isMine(caller) ? "missed" : "declined";
        over(id, by === null ? null : { id, reason, by, caller, video: meantAsVideo(now) });
      }
      kept = null;
      tab.forget(CALL);
      drop();
    },
    prepare,
    invite(rung, direct = false) {
      if (seat === null) return Promise.resolve("not_in_conversation");
      const conversationId = seat.id;
      return join(null, rung, async (media) => {
        const outcome = await connection.ask("call:invite", { conversationId, rung, direct, media });
        if ("error" in outcome) return outcome.error.code;
        take(outcome.ok);
        return null;
      });
    },
    accept(rung, direct = false) {
      const now = current();
      if (seat === null || now === null) return Promise.resolve("no_such_call");
      const conversationId = seat.id;
      return join(now.id, rung, async (media) => {
        const outcome = await connection.ask("call:accept", { conversationId, callId: now.id, rung, direct, media });
        if ("error" in outcome) return outcome.error.code;
        take(outcome.ok);
        return null;
      });
    },
    end: () => leave("hung_up"),
    async agree(change) {
      const now = current();
      if (now === null) return;
      const { rung, direct, recording } = change;
      const next: { rung?: Rung; direct?: false; recording?: false } = { ...less };
      if (rung !== undefined) {
        // As long as more is on its way, what is known of this guest's own wish may be about to change.
        if (lower(now.mine.rung, rung) !== now.mine.rung || (saying > 0 && rung !== "clear")) next.rung = rung;
        else delete next.rung;
      }
      if (direct !== undefined) {
        if (direct) delete next.direct;
        else next.direct = false;
      }
      if (recording !== undefined) {
        if (recording) delete next.recording;
        else next.recording = false;
      }
      takeBack(next);
      problem = null;
      apply();
      await say(change);
    },
    async shareScreen() {
      const now = current();
      if (now === null || screen !== null) return;
      if (!hasVideo(effective(now).rung)) {
        fault("not_agreed");
        return;
      }
      let opened: MediaStream;
      try {
        opened = await env.media.openScreen();
      } catch (error) {
        fault(error instanceof Error && error.name === "NotAllowedError" ? "screen_denied" : "media_failed");
        return;
      }
      const then = current();
      if (then?.id !== now.id || !hasVideo(effective(then).rung)) {
        for (const track of opened.getTracks()) track.stop();
        return;
      }
      screen = opened;
      // The browser has a button of its own to stop it.
      opened.getVideoTracks()[0]?.addEventListener("ended", () => screen === opened && stopScreen());
      carry();
      tellMedia();
      show();
    },
    stopScreen,
    playSound: () => env.media.wake(),
    dismissProblem: () => fault(null),
  };

  function stopScreen(): void {
    stopTracks();
    carry();
    tellMedia();
    show();
  }

  /** After the page has shown the conversation: nobody calls in its first instant. */
  function prepareSoon(): void {
    env.after(500, prepare);
  }
}

/**
 * The conversation on screen: what was said on both sides, how far it came, who is there.
 *
 * All of it is written to this tab's storage before anything depends on it (an item before it is sent, what arrived
 * before its receipt), so that a reload at any moment goes on where it was.
 */
import {
  MAX_REPORT_WORDS,
  MAX_REPORTED_FILES,
  MAX_REPORTED_MESSAGES,
  MAX_TEXT,
  type Body,
  type Conversation as Seated,
  type ErrorCode,
  type Message,
  type PartnerState,
  type ReportReason,
  type SharedFile,
} from "./contract.gen";
import { createInbox, createOutbox, type Inbox, type InboxState, type Outbox, type OutboxState } from "./delivery";
import type { Cancel, Env } from "./env";
import { newId } from "./id";
import type { Keep } from "./keep";
import type { CallLine, ConversationView, Delivery, MessageView, Moment, Store } from "./model";
import { either, isFlag, isList, isNothing, isNumber, isOneOf, isRecord, isText } from "./shape";
import { type Connection, type Failure, type Outcome } from "./socket";
import { store } from "./store";
import { isVisible } from "./visible";

type Code = ErrorCode | "unreachable";

/** A text of either side, or a file with or without one. */
interface Said {
  id: string;
  readonly mine: boolean;
  /** Its number in its sender's stream. */
  seq: number;
  /** Empty for a file alone; null once deleted. */
  text: string | null;
  file?: SharedFile | undefined;
  /** With which one's own file is said. */
  seal?: string | undefined;
  at: number;
  readonly replyTo: string | null;
  refused: boolean;
  reactions: { mine?: string | undefined; theirs?: string | undefined };
}

interface Kept {
  readonly seated: Seated;
  readonly said: readonly Said[];
  readonly calls: readonly CallLine[];
  readonly outbox: OutboxState;
  readonly inbox: InboxState;
  readonly draft: string;
  readonly ended: ConversationView["ended"];
  readonly blocked: boolean;
  readonly reported: boolean;
}

const isSharedFile = isRecord({
  id: isText,
  kind: isOneOf("picture", "video", "audio", "voice", "document"),
  name: isText,
  type: isText,
  bytes: isNumber,
  expiresAt: isNumber,
  width: either(isNumber, isNothing),
  height: either(isNumber, isNothing),
  seconds: either(isNumber, isNothing),
  waveform: either(isText, isNothing),
  blur: either(isText, isNothing),
  thumb: isFlag,
});

const isBody = either(
  isRecord({ kind: isOneOf("text"), text: isText }),
  isRecord({ kind: isOneOf("file"), seal: isText }),
  isRecord({ kind: isOneOf("reaction", "deletion"), target: isText }),
);

const isKept = isRecord({
  seated: isRecord({
    id: isText,
    claim: isText,
    startedAt: isNumber,
    partner: isRecord({ seat: isNumber, state: isOneOf("here", "away"), profile: isRecord({ name: isText, hue: isNumber }) }),
    why: isRecord({ interests: isList(isText), languages: isList(isText) }),
  }),
  said: isList(
    isRecord({
      id: isText,
      mine: isFlag,
      seq: isNumber,
      text: either(isText, isNothing),
      file: either(isSharedFile, isNothing),
      seal: either(isText, isNothing),
      at: isNumber,
      replyTo: either(isText, isNothing),
      refused: isFlag,
      reactions: isRecord({ mine: either(isText, isNothing), theirs: either(isText, isNothing) }),
    }),
  ),
  calls: isList(
    isRecord({
      id: isText,
      at: isNumber,
      what: isText,
      by: isOneOf("me", "partner", null),
      video: isFlag,
      seconds: either(isNumber, isNothing),
      recordingId: either(isText, isNothing),
    }),
  ),
  outbox: isRecord({
    last: isNumber,
    delivered: isNumber,
    read: isNumber,
    items: isList(isRecord({ id: isText, seq: isNumber, body: isBody, accepted: isFlag, refused: isFlag })),
  }),
  inbox: isRecord({ applied: isNumber, read: isNumber }),
  draft: isText,
  ended: isOneOf("left", "lost", "missed", "me", null),
  blocked: isFlag,
  reported: isFlag,
});

/** One conversation from its first moment until it is put away. */
interface Talk {
  seated: Seated;
  readonly said: Said[];
  readonly byId: Map<string, Said>;
  calls: readonly CallLine[];
  readonly outbox: Outbox;
  readonly inbox: Inbox<Message>;
  draft: string;
  ended: ConversationView["ended"];
  blocked: boolean;
  reported: boolean;
  partnerTyping: boolean;
}

export interface Conversation {
  readonly view: Store<ConversationView | null>;
  /** To present when connecting, so that the seat survives even a server that forgot everything. */
  claim(): string | null;
  /** `match:found`. */
  begin(seated: Seated): void;
  /**
   * Compares with what the server says on a new connection. Resolves to whether the guest has a seat; one that the
   * guest meant to leave while away is left now.
   */
  reconcile(seated: Seated | null): Promise<boolean>;
  /** Adds what happened to a call; what is there already stays as it is. */
  note(conversationId: string, line: CallLine): void;
  /** Leaves what was left while the server did not hear it. */
  settle(): Promise<void>;
  /** Gets up from a seat that was offered too late. */
  refuse(id: string): Promise<void>;
  /** The guest session is another one: its seat is gone. */
  abandon(): void;
  /** The tab is a copy of another: what it holds is the other's. */
  discard(): void;
  leave(): Promise<void>;
  close(): void;
  say(text: string, replyTo: string | null): boolean;
  /** Says a file that the server found good; false if this conversation is not the one that goes on. */
  sayFile(conversationId: string, file: SharedFile, seal: string, text: string, replyTo: string | null): boolean;
  retry(messageId: string): void;
  remove(messageId: string): void;
  react(messageId: string, emoji: string | null): void;
  setDraft(text: string): void;
  setWatching(watching: boolean): void;
  block(): Promise<Code | null>;
  report(report: {
    reason: ReportReason;
    words: string;
    messageIds: readonly string[];
    fileIds: readonly string[];
    block: boolean;
  }): Promise<Code | null>;
}

const TALK = "talk.2";
const LEAVING = "leaving.1";
/** The newest messages that survive a reload, and what they may take of the few megabytes there are. */
const KEPT_MESSAGES = 500;
const KEPT_CHARACTERS = 1_000_000;
/** What a file takes of them, with its seal and what it looks like from afar. */
const FILE_CHARACTERS = 2_000;
const KEPT_CALLS = 100;
const SAVE_MS = 300;
const TYPING_REPEAT_MS = 4_000;
const TYPING_SILENCE_MS = 3_000;
const PARTNER_TYPING_MS = 6_000;
const MAX_EMOJI = 16;
/** A server that has forgotten the seat is asked for the truth by connecting anew, but not in a tight loop. */
const DOUBT_MS = 10_000;

export function createConversation(
  env: Env,
  connection: Connection,
  session: Keep,
  moment: (moment: Moment) => void,
  calls: {
    /** `anew`: on a new connection, whose word replaces what was believed. */
    seated(seated: Seated, anew: boolean): void;
    unseated(how: ConversationView["ended"]): void;
  },
  files: {
    /** A message was deleted that this was part of. */
    erased(file: SharedFile, mine: boolean): void;
    /** Just now the server's clock showed this. */
    clock(at: number): void;
  },
): Conversation {
  const view = store<ConversationView | null>(null);
  const shown = new WeakMap<Said, { readonly key: string; readonly view: MessageView }>();
  let messages: readonly MessageView[] = [];
  let talk: Talk | null = null;
  let watching = false;
  let saveTimer: Cancel | null = null;
  let typingSince: number | null = null;
  let typingTimer: Cancel | null = null;
  let partnerTypingTimer: Cancel | null = null;
  let doubtedAt = -DOUBT_MS;

  // ------------------------------------------------------------------ showing and keeping

  function show(what: "all" | "frame" = "all"): void {
    if (talk === null) {
      messages = [];
      view.set(null);
      return;
    }
    const { seated, ended } = talk;
    if (what === "all") {
      const current = talk;
      messages = talk.said.map((said) => viewOf(current, said));
    }
    const { read } = talk.inbox.state();
    view.set({
      id: seated.id,
      partner: seated.partner.profile,
      presence: ended === "left" ? "left" : ended === "lost" || ended === "missed" ? "lost" : seated.partner.state,
      typing: talk.partnerTyping && ended === null && seated.partner.state === "here",
      why: seated.why,
      startedAt: seated.startedAt,
      ended,
      blocked: talk.blocked,
      reported: talk.reported,
      messages,
      calls: talk.calls,
      waitsUntil: ended === null ? talk.outbox.waitsUntil() : null,
      unread: talk.said.filter((said) => !said.mine && said.seq > read && said.text !== null).length,
      draft: talk.draft,
    });
  }

  /** The same object as before unless something of it changed: a list of hundreds is rendered row by row. */
  function viewOf(current: Talk, said: Said): MessageView {
    const delivery = said.mine ? deliveryOf(current, said) : null;
    const quoted = said.replyTo === null ? undefined : current.byId.get(said.replyTo);
    const reactions = [
      ...(said.reactions.mine === undefined ? [] : [{ mine: true, emoji: said.reactions.mine }]),
      ...(said.reactions.theirs === undefined ? [] : [{ mine: false, emoji: said.reactions.theirs }]),
    ];
    const replyTo =
      quoted === undefined ? null : { id: quoted.id, mine: quoted.mine, text: quoted.text, file: quoted.file ?? null };
    const key = JSON.stringify([said.id, said.at, delivery, said.text === null, reactions, replyTo?.text]);
    const before = shown.get(said);
    if (before?.key === key) return before.view;
    const { id, mine, text, at } = said;
    const file = said.file ?? null;
    const now: MessageView = { id, mine, text, file, deleted: text === null, at, delivery, replyTo, reactions };
    shown.set(said, { key, view: now });
    return now;
  }

  function deliveryOf(current: Talk, said: Said): Delivery {
    const standing = said.refused ? "failed" : current.outbox.standing(said.seq);
    return current.ended !== null && standing !== "delivered" && standing !== "read" ? "lost" : standing;
  }

  function save(): void {
    saveTimer?.();
    saveTimer = null;
    if (talk === null) return;
    let count = KEPT_MESSAGES;
    let characters = 0;
    for (let index = talk.said.length - 1, seen = 0; index >= 0 && seen < count; index -= 1, seen += 1) {
      const said = talk.said[index];
      characters += (said?.text?.length ?? 0) + (said?.file === undefined ? 0 : FILE_CHARACTERS);
      if (characters > KEPT_CHARACTERS) count = seen;
    }
    // A full storage loses the oldest history first, and never the numbers that delivery depends on.
    for (; ; count = Math.floor(count / 2)) {
      const kept: Kept = {
        seated: talk.seated,
        said: count === 0 ? [] : talk.said.slice(-count),
        calls: talk.calls,
        outbox: talk.outbox.state(),
        inbox: talk.inbox.state(),
        draft: talk.draft,
        ended: talk.ended,
        blocked: talk.blocked,
        reported: talk.reported,
      };
      if (session.write(TALK, kept) || count === 0) return;
    }
  }

  function saveSoon(): void {
    saveTimer ??= env.after(SAVE_MS, save);
  }

  // ------------------------------------------------------------------ a conversation's life

  function open(seated: Seated, kept: Kept | null): Talk {
    const said = kept?.said.map((one) => ({ ...one })) ?? [];
    const current: Talk = {
      seated,
      said,
      byId: new Map(said.map((one) => [one.id, one])),
      calls: kept?.calls ?? [],
      outbox: createOutbox(
        env,
        {
          async send({ id, seq, body }) {
            const outcome = await connection.ask("chat:message", { conversationId: seated.id, id, seq, body });
            if ("error" in outcome) doubt(outcome.error);
            else files.clock(outcome.ok.at);
            return outcome;
          },
          accepted({ id }, at) {
            const one = current.byId.get(id);
            if (one !== undefined) one.at = at;
            changed();
          },
          refused({ id }) {
            const one = current.byId.get(id);
            if (one !== undefined) one.refused = true;
            changed();
          },
          changed,
        },
        kept?.outbox,
      ),
      inbox: createInbox<Message>(
        env,
        {
          apply: (message) => apply(current, message),
          async acknowledge(delivered, read) {
            if (current === talk) save();
            const outcome = await connection.ask("chat:receipt", { conversationId: seated.id, delivered, read });
            if ("error" in outcome) doubt(outcome.error);
            return outcome;
          },
        },
        kept?.inbox,
      ),
      draft: kept?.draft ?? "",
      ended: kept?.ended ?? null,
      blocked: kept?.blocked ?? false,
      reported: kept?.reported ?? false,
      partnerTyping: false,
    };
    if (current.ended !== null) stop(current);
    current.inbox.watch(watching);
    return current;

    function changed(): void {
      if (current !== talk) return;
      show();
      saveSoon();
    }
  }

  /** A seat that the server does not know any more while this side does: ask by connecting anew. */
  function doubt({ code }: Failure): void {
    if (code !== "not_in_conversation" || talk === null || talk.ended !== null) return;
    if (env.now() - doubtedAt < DOUBT_MS) return;
    doubtedAt = env.now();
    connection.reconnect();
  }

  function stop(current: Talk): void {
    current.outbox.end();
    current.inbox.end();
    stopTyping(false);
    current.partnerTyping = false;
  }

  function end(how: NonNullable<ConversationView["ended"]>): void {
    if (talk === null || talk.ended !== null) return;
    calls.unseated(how);
    talk.ended = how;
    stop(talk);
    // Nothing is said with them any more.
    for (const said of talk.said) said.seal = undefined;
    save();
    show();
    if (how !== "me") moment("ended");
  }

  function begin(seated: Seated, anew = false): void {
    if (talk?.seated.id === seated.id) {
      if (talk.ended === null) refresh(talk, seated);
    } else {
      if (talk !== null) stop(talk);
      talk = open(seated, null);
      talk.outbox.connected(seated.partner.state === "here");
      save();
      show();
      moment("matched");
    }
    if (talk.ended === null) calls.seated(seated, anew);
  }

  function refresh(current: Talk, seated: Seated): void {
    current.seated = seated;
    current.partnerTyping = false;
    current.outbox.connected(seated.partner.state === "here");
    current.inbox.repeat();
    save();
    show();
  }

  function forget(): void {
    calls.unseated(null);
    if (talk !== null) stop(talk);
    talk = null;
    saveTimer?.();
    saveTimer = null;
    session.forget(TALK);
    show();
  }

  /** Kept until the server has heard it: a seat is left even if the network was away when the guest left. */
  async function leaveSeat(id: string): Promise<void> {
    session.write(LEAVING, id);
    const outcome = await connection.ask("conversation:leave", { conversationId: id });
    const left = "ok" in outcome || outcome.error.code === "not_in_conversation";
    if (left && session.read(LEAVING) === id) session.forget(LEAVING);
  }

  /** Nobody looks at the files of an ended conversation any more; a server that does not hear it keeps them a while longer. */
  function free(): void {
    if (talk === null || talk.ended === "me" || talk.said.every(({ file }) => file === undefined)) return;
    void connection.ask("conversation:leave", { conversationId: talk.seated.id });
  }

  async function leave(): Promise<void> {
    if (talk === null || talk.ended !== null) return;
    const { id } = talk.seated;
    end("me");
    await leaveSeat(id);
  }

  async function block(): Promise<Code | null> {
    if (talk === null) return "not_in_conversation";
    const current = talk;
    const outcome = await connection.ask("safety:block", { conversationId: current.seated.id });
    if ("error" in outcome) return outcome.error.code;
    current.blocked = true;
    if (current === talk) {
      end("me");
      save();
      show("frame");
    }
    return null;
  }

  // ------------------------------------------------------------------ what arrives

  function apply(current: Talk, { id, seq, body, at }: Message): void {
    if (body.kind === "text" || body.kind === "file") {
      if (current.byId.has(id)) return;
      const { text } = body;
      const file = body.kind === "file" ? { file: body.file } : {};
      add(current, { id, mine: false, seq, text, ...file, at, replyTo: body.replyTo ?? null, refused: false, reactions: {} });
      partnerTyping(current, false);
      show();
      moment("message");
      return;
    }
    const target = current.byId.get(body.target);
    if (target === undefined) return;
    if (body.kind === "reaction") setReaction(target, "theirs", body.emoji);
    else if (!target.mine) erase(target);
    show();
  }

  function add(current: Talk, said: Said): void {
    current.said.push(said);
    current.byId.set(said.id, said);
  }

  function setReaction(target: Said, side: "mine" | "theirs", emoji: string | null): void {
    if (target.text !== null) target.reactions[side] = emoji ?? undefined;
  }

  function erase(target: Said): void {
    const { file, mine } = target;
    target.text = null;
    target.file = undefined;
    target.seal = undefined;
    target.reactions = {};
    if (file !== undefined) files.erased(file, mine);
  }

  /** Whatever comes from the partner's client shows that it is here, should the news of its return be lost. */
  function alive(current: Talk): void {
    if (current.ended === null && current.seated.partner.state !== "here") partnerIs(current, "here");
  }

  function partnerIs(current: Talk, state: PartnerState): void {
    current.seated = { ...current.seated, partner: { ...current.seated.partner, state } };
    if (state === "away") partnerTyping(current, false);
    else current.inbox.repeat();
    current.outbox.partner(state === "here");
    saveSoon();
    show("frame");
  }

  function partnerTyping(current: Talk, typing: boolean): void {
    partnerTypingTimer?.();
    partnerTypingTimer = typing ? env.after(PARTNER_TYPING_MS, () => partnerTyping(current, false)) : null;
    if (current.partnerTyping === typing) return;
    current.partnerTyping = typing;
    if (current === talk) show("frame");
  }

  /** The conversation that a push of the partner is about, if it is the one on screen. */
  function about(push: { readonly conversationId: string; readonly seat: number }): Talk | null {
    return talk !== null && talk.seated.id === push.conversationId && talk.seated.partner.seat === push.seat
      ? talk
      : null;
  }

  connection.on("chat:message", (message) => {
    const current = about(message);
    if (current === null || current.ended === "me") return;
    files.clock(message.at);
    alive(current);
    current.inbox.receive(message);
    if (current.ended !== null) saveSoon();
  });
  connection.on("chat:receipt", (receipt) => {
    const current = about(receipt);
    if (current === null) return;
    alive(current);
    current.outbox.receipt(receipt.delivered, receipt.read);
  });
  connection.on("chat:typing", (push) => {
    const current = about(push);
    if (current === null || current.ended !== null) return;
    alive(current);
    partnerTyping(current, push.typing);
  });
  connection.on("conversation:partner", (push) => {
    const current = about(push);
    if (current !== null && current.ended === null) partnerIs(current, push.state);
  });
  connection.on("conversation:ended", (push) => {
    if (talk?.seated.id === push.conversationId) end(push.reason);
  });
  connection.link.subscribe(() => {
    if (connection.link.get() === "online") return;
    talk?.outbox.disconnected();
    stopTyping(false);
  });
  env.onHidden(save);

  // ------------------------------------------------------------------ what this guest does

  function send(current: Talk, id: string, body: Body): number {
    const { seq } = current.outbox.add(id, body);
    save();
    current.outbox.flush();
    return seq;
  }

  /** The limit counts characters as the server does; half a surrogate pair is no character at all. */
  function wordsOf(text: string): readonly [words: string, length: number] {
    const words = text.replace(/\p{Surrogate}/gu, "\ufffd").trim();
    return [words, Array.from(words).length];
  }

  function sayNew(current: Talk, words: string, replyTo: string | null, shared?: { readonly file: SharedFile; readonly seal: string }): void {
    const quoted = replyTo !== null && current.byId.has(replyTo) ? replyTo : null;
    const said: Said = {
      id: newId(env),
      mine: true,
      seq: current.outbox.state().last + 1,
      text: words,
      ...shared,
      at: env.now(),
      replyTo: quoted,
      refused: false,
      reactions: {},
    };
    add(current, said);
    send(current, said.id, bodyOf(said, words));
    show();
  }

  function bodyOf({ seal, replyTo }: Said, text: string): Body {
    return seal === undefined ? { kind: "text", text, replyTo } : { kind: "file", seal, text, replyTo };
  }

  function live(): Talk | null {
    return talk !== null && talk.ended === null ? talk : null;
  }

  function tellTyping(typing: boolean): void {
    const current = live();
    if (current !== null) void connection.ask("chat:typing", { conversationId: current.seated.id, typing });
  }

  function keystroke(): void {
    typingTimer?.();
    typingTimer = env.after(TYPING_SILENCE_MS, () => stopTyping(true));
    if (typingSince !== null && env.now() - typingSince < TYPING_REPEAT_MS) return;
    typingSince = env.now();
    tellTyping(true);
  }

  function stopTyping(tell: boolean): void {
    typingTimer?.();
    typingTimer = null;
    if (typingSince === null) return;
    typingSince = null;
    if (tell) tellTyping(false);
  }

  const kept = session.read(TALK, isKept) as Kept | null;
  if (kept !== null) {
    talk = open(kept.seated, kept);
    show();
  }

  return {
    view,
    claim: () => live()?.seated.claim ?? null,
    begin,
    async reconcile(seated) {
      if (seated !== null && session.read(LEAVING) === seated.id) {
        await leaveSeat(seated.id);
        return false;
      }
      session.forget(LEAVING);
      if (seated === null) {
        end("missed");
        return false;
      }
      // Ended here means that this guest left or that the partner did; a seat the server still holds is left.
      if (talk?.seated.id === seated.id && talk.ended !== null) {
        await leaveSeat(seated.id);
        return false;
      }
      if (talk?.seated.id !== seated.id) end("missed");
      begin(seated, true);
      return true;
    },
    note(conversationId, line) {
      if (talk?.seated.id !== conversationId || talk.calls.some(({ id }) => id === line.id)) return;
      talk.calls = [...talk.calls, line].slice(-KEPT_CALLS);
      save();
      show("frame");
    },
    async settle() {
      const id = session.read(LEAVING);
      if (typeof id === "string") await leaveSeat(id);
    },
    async refuse(id) {
      await leaveSeat(id);
    },
    abandon: () => {
      session.forget(LEAVING);
      end("missed");
    },
    discard() {
      session.forget(LEAVING);
      forget();
    },
    leave,
    close() {
      void leave();
      free();
      forget();
    },
    say(text, replyTo) {
      const current = live();
      const [words, length] = wordsOf(text);
      if (current === null || !isVisible(words) || length > MAX_TEXT) return false;
      // The words themselves end it at the partner's.
      stopTyping(false);
      current.draft = "";
      sayNew(current, words, replyTo);
      return true;
    },
    sayFile(conversationId, file, seal, text, replyTo) {
      const current = live();
      if (current === null || current.seated.id !== conversationId) return false;
      const [words] = wordsOf(text);
      sayNew(current, isVisible(words) ? Array.from(words).slice(0, MAX_TEXT).join("") : "", replyTo, { file, seal });
      return true;
    },
    retry(messageId) {
      const current = live();
      const said = current?.byId.get(messageId);
      if (current === null || said === undefined || !said.mine || said.text === null) return;
      if (said.refused) {
        // Its number is taken by a stand-in: it goes again as a new item.
        current.byId.delete(said.id);
        said.id = newId(env);
        said.refused = false;
        said.seq = current.outbox.state().last + 1;
        current.byId.set(said.id, said);
        send(current, said.id, bodyOf(said, said.text));
      } else if (deliveryOf(current, said) === "failed") current.outbox.retry();
      show();
    },
    remove(messageId) {
      const current = live();
      const said = current?.byId.get(messageId);
      if (current === null || said === undefined || !said.mine || said.text === null) return;
      erase(said);
      if (current.outbox.withdraw(said.seq)) save();
      else if (!said.refused) send(current, newId(env), { kind: "deletion", target: said.id });
      show();
    },
    react(messageId, emoji) {
      const current = live();
      const said = current?.byId.get(messageId);
      if (current === null || said === undefined || said.text === null) return;
      if (emoji !== null && (emoji === "" || Array.from(emoji).length > MAX_EMOJI)) return;
      if ((said.reactions.mine ?? null) === emoji) return;
      setReaction(said, "mine", emoji);
      send(current, newId(env), { kind: "reaction", target: said.id, emoji });
      show();
    },
    setDraft(text) {
      if (talk === null || talk.draft === text) return;
      talk.draft = text;
      if (text === "") stopTyping(true);
      else if (talk.ended === null) keystroke();
      saveSoon();
      show("frame");
    },
    setWatching(now) {
      watching = now;
      if (talk === null) return;
      talk.inbox.watch(now);
      if ((view.get()?.unread ?? 0) > 0) show("frame");
      saveSoon();
    },
    block,
    async report({ reason, words, messageIds, fileIds, block: alsoBlock }) {
      if (talk === null) return "not_in_conversation";
      const current = talk;
      const chosen = messageIds.slice(0, MAX_REPORTED_MESSAGES).flatMap((id) => {
        const said = current.byId.get(id);
        if (said === undefined || said.text === null) return [];
        // Without words it is called by its name: a report has something to read.
        return [{ id, mine: said.mine, text: said.text === "" ? (said.file?.name ?? "") : said.text, at: said.at }];
      });
      const there = new Set(current.said.map(({ file }) => file?.id));
      const outcome: Outcome<unknown> = await connection.ask("safety:report", {
        conversationId: current.seated.id,
        reason,
        words: Array.from(words).slice(0, MAX_REPORT_WORDS).join(""),
        messages: chosen,
        files: fileIds.filter((id) => there.has(id)).slice(0, MAX_REPORTED_FILES),
      });
      if ("error" in outcome) return outcome.error.code;
      current.reported = true;
      if (current === talk) {
        save();
        show("frame");
      }
      return alsoBlock ? block() : null;
    },
  };
}

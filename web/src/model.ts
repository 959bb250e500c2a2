/**
 * What the screens see of the program: plain views to read and actions to call.
 * View-models implement it without React; screens never see the socket.
 */
import type {
  ErrorCode,
  Mode,
  PartnerState,
  Popular,
  Profile,
  ReportReason,
  SearchStep,
  Why,
} from "./contract.gen";

/** A value that changes over time. `get` returns the same object until something changed. */
export interface Store<T> {
  get(): T;
  subscribe(listener: () => void): () => void;
}

/** `online`: connected. `reconnecting`: trying. `offline`: the device itself says it has no network. */
export type Link = "online" | "reconnecting" | "offline";

export type SessionView =
  /** Finding out whether this browser is known. */
  | { readonly phase: "loading" }
  /** First visit (or new house rules): asks for what `needs` names. `problem` is the last refusal. */
  | {
      readonly phase: "welcome";
      readonly needs: { readonly birthDate: boolean; readonly rules: boolean };
      readonly minimumAge: number;
      readonly busy: boolean;
      readonly problem: ErrorCode | null;
    }
  /** Under age: stays so on this browser. */
  | { readonly phase: "underAge"; readonly minimumAge: number }
  /** A guest: the rest of the program works. */
  | { readonly phase: "ready"; readonly profile: Profile; readonly link: Link }
  /** The same guest was opened in another window. `takeBack()` returns. */
  | { readonly phase: "replaced" }
  /** No guest could be had. `retryAt` (ms since the epoch) is when it tries again by itself, if it does. */
  | { readonly phase: "failed"; readonly problem: ErrorCode | "unreachable"; readonly retryAt: number | null };

export interface LobbyView {
  readonly online: number;
  readonly waiting: number;
  readonly popular: readonly Popular[];
  readonly modes: readonly Mode[];
  /** What the guest has chosen; kept in this browser. */
  readonly mode: Mode;
  readonly interests: readonly string[];
  readonly languages: readonly string[];
}

export type SearchView =
  | { readonly phase: "idle"; readonly problem: ErrorCode | "unreachable" | null }
  | {
      readonly phase: "searching";
      /** ms since the epoch, by this device's clock. */
      readonly since: number;
      /** Whom the search accepts right now; changes as it widens. */
      readonly accepts: SearchStep["accepts"];
      readonly interests: readonly string[];
      readonly languages: readonly string[];
      /** Nobody else is on the server. */
      readonly alone: boolean;
      /** The connection is away; the search goes on when it is back. */
      readonly paused: boolean;
    };

/** `failed`: needs a retry (or will be retried on reconnect). `lost`: the conversation ended before delivery. */
export type Delivery = "sending" | "sent" | "delivered" | "read" | "failed" | "lost";

export interface MessageView {
  readonly id: string;
  readonly mine: boolean;
  /** Absent once deleted. */
  readonly text: string | null;
  readonly deleted: boolean;
  /** ms since the epoch. */
  readonly at: number;
  /** Only for one's own. */
  readonly delivery: Delivery | null;
  readonly replyTo: { readonly id: string; readonly mine: boolean; readonly text: string | null } | null;
  /** At most one of each side. */
  readonly reactions: readonly { readonly mine: boolean; readonly emoji: string }[];
}

export interface ConversationView {
  readonly id: string;
  readonly partner: Profile;
  /** `typing` only while `here`. */
  readonly presence: PartnerState | "left" | "lost";
  readonly typing: boolean;
  readonly why: Why;
  readonly startedAt: number;
  /**
   * Over: readable, nothing can be sent. `left`, `lost`: the partner went, or did not come back. `missed`: it ended
   * while this guest was away, and nobody here knows how. `me`: this guest left, blocked included.
   */
  readonly ended: "left" | "lost" | "missed" | "me" | null;
  readonly blocked: boolean;
  readonly reported: boolean;
  readonly messages: readonly MessageView[];
  /** Partner's messages not yet seen. */
  readonly unread: number;
  /** The draft survives a reload. */
  readonly draft: string;
}

export type Theme = "system" | "light" | "dark";
export type Locale = "en" | "es" | "ar";

export interface SettingsView {
  readonly theme: Theme;
  readonly sounds: boolean;
  readonly locale: Locale;
}

/** Everything the screens need. Actions never throw; what went wrong shows in a view or in the returned code. */
export interface Visavis {
  readonly session: Store<SessionView>;
  readonly lobby: Store<LobbyView>;
  readonly search: Store<SearchView>;
  readonly conversation: Store<ConversationView | null>;
  readonly settings: Store<SettingsView>;

  /** Answers the first visit's questions. `birthDate` is YYYY-MM-DD. */
  enter(answers: { birthDate: string | null; acceptRules: boolean }): Promise<void>;
  /** After `replaced` or `failed`: connect again now. */
  takeBack(): void;

  setMode(mode: Mode): void;
  /** Returns the normalised interest, or null if it was empty, too long, a repeat or one too many. */
  addInterest(text: string): string | null;
  removeInterest(interest: string): void;
  setLanguages(languages: readonly string[]): void;

  find(): Promise<void>;
  cancel(): Promise<void>;
  /** Leaves the conversation and looks for the next one at once. */
  skip(): Promise<void>;
  /** Leaves the conversation; it stays readable. */
  leave(): Promise<void>;
  /** Puts an ended conversation away and goes to the lobby. */
  close(): void;

  /** Sends the text; returns false (and keeps the draft) if it is empty, too long or the conversation is over. */
  say(text: string, replyTo: string | null): boolean;
  retry(messageId: string): void;
  remove(messageId: string): void;
  react(messageId: string, emoji: string | null): void;
  setDraft(text: string): void;
  /** The conversation is on screen and the window has the focus, or not: drives `read` and `unread`. */
  setWatching(watching: boolean): void;

  block(): Promise<ErrorCode | "unreachable" | null>;
  report(report: {
    reason: ReportReason;
    words: string;
    messageIds: readonly string[];
    block: boolean;
  }): Promise<ErrorCode | "unreachable" | null>;

  setSettings(change: Partial<SettingsView>): void;
}

/** Moments that deserve a sound or an announcement. */
export type Moment = "matched" | "message" | "ended";

/** What happens once, beside what lasts. `createVisavis` returns it together with `Visavis`. */
export interface Moments {
  /** `message`: the partner said something. `ended`: not by this guest. Returns what stops listening. */
  onMoment(listener: (moment: Moment) => void): () => void;
}

/**
 * What the screens see of the program: plain views to read and actions to call.
 * View-models implement it without React; screens never see the socket.
 */
import type {
  Call,
  CallOver,
  ErrorCode,
  FileKind,
  FileLimits,
  Media,
  Mode,
  PartnerState,
  Popular,
  Profile,
  ReportReason,
  SavedRecording,
  SearchStep,
  SharedFile,
  Why,
} from "./contract.gen";

/** A value that changes over time. `get` returns the same object until something changed. */
export interface Store<T> {
  get(): T;
  subscribe(listener: () => void): () => void;
}

/** `online`: connected. `reconnecting`: trying. `offline`: the device itself says it has no network. */
export type Link = "online" | "reconnecting" | "offline";

/** The server asked to wait before connecting again, for this reason, until `retryAt` (ms since the epoch). */
export interface Hold {
  readonly problem: ErrorCode | "unreachable";
  readonly retryAt: number;
}

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
  | { readonly phase: "ready"; readonly profile: Profile; readonly link: Link; readonly hold?: Hold | null }
  /** The same guest was opened in another window. `takeBack()` returns. */
  | { readonly phase: "replaced" }
  /** No guest could be had. `retryAt` (ms since the epoch) is when it tries again by itself. */
  | { readonly phase: "failed"; readonly problem: ErrorCode | "unreachable"; readonly retryAt: number };

export interface LobbyView {
  readonly online: number;
  readonly waiting: number;
  readonly popular: readonly Popular[];
  readonly modes: readonly Mode[];
  /** Whether calls go through a relay, and can be recorded. */
  readonly relay: boolean;
  readonly recording: boolean;
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
  /** Absent once deleted; may be empty beside a file. */
  readonly text: string | null;
  /** What was sent with it; null for words alone, and once deleted. */
  readonly file: SharedFile | null;
  readonly deleted: boolean;
  /** ms since the epoch. */
  readonly at: number;
  /** Only for one's own. */
  readonly delivery: Delivery | null;
  readonly replyTo: {
    readonly id: string;
    readonly mine: boolean;
    readonly text: string | null;
    readonly file: SharedFile | null;
  } | null;
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
  /** What happened to calls, in order of `at`; shown between the messages. */
  readonly calls: readonly CallLine[];
  /** Until when (ms since the epoch) messages wait, because they were more than the server takes at once. */
  readonly waitsUntil?: number | null;
  /** Partner's messages not yet seen. */
  readonly unread: number;
  /** The draft survives a reload. */
  readonly draft: string;
}

/** A line in the conversation about a call or a recording that is over. */
export interface CallLine {
  readonly id: string;
  /** ms since the epoch. */
  readonly at: number;
  /** `lost`: it ended while this guest was away. */
  readonly what: CallOver["reason"] | "lost" | "recorded" | "recording_failed" | "recording_full" | "recording_empty";
  /** By this guest, the partner, or nobody. For `missed`: who had called. */
  readonly by: "me" | "partner" | null;
  readonly video: boolean;
  /** How long media had flowed; null if it never did. */
  readonly seconds: number | null;
  /** For `recorded`: the recording, while it can be had. */
  readonly recordingId: string | null;
}

/** Steps of the ladder that are a call. */
export type Rung = Exclude<Call["rung"], "text">;

/**
 * Why a microphone, camera or screen is not to be had. `insecure`: the page's address is neither https nor this
 * machine. `dismissed`: the browser's question was closed without an answer.
 */
export type DeviceProblem = "denied" | "dismissed" | "busy" | "none" | "insecure" | "unsupported" | "failed";

export interface Device {
  readonly id: string;
  /** Empty until the browser tells. */
  readonly label: string;
}

/** Microphone and camera, and what the guest wants of them; the choice is kept in this browser. */
export interface DevicesView {
  readonly microphones: readonly Device[];
  readonly cameras: readonly Device[];
  /** Empty where the browser cannot choose. */
  readonly speakers: readonly Device[];
  readonly microphone: string | null;
  readonly camera: string | null;
  readonly speaker: string | null;
  /** Join with it on. Off is a full way to take part. */
  readonly microphoneOn: boolean;
  readonly cameraOn: boolean;
  readonly microphoneProblem: DeviceProblem | null;
  readonly cameraProblem: DeviceProblem | null;
  /** It was in use and went away; the browser's default took its place, if there is one. */
  readonly swapped?: "microphone" | "camera" | null;
  /** The browser is asking, or the device is starting. */
  readonly opening: boolean;
  /** The camera's picture, clear, for this guest alone; null while it is off. */
  readonly preview: MediaStream | null;
}

/** In words `quality`, and the numbers behind it; null where not known. */
export interface CallNumbers {
  readonly roundTripMs: number | null;
  /** Of what should have arrived in the last seconds, 0 to 100. */
  readonly lossPercent: number | null;
  readonly jitterMs: number | null;
  readonly sendKbps: number | null;
  readonly receiveKbps: number | null;
  readonly sendVideo: { readonly width: number; readonly height: number; readonly fps: number } | null;
  readonly receiveVideo: { readonly width: number; readonly height: number; readonly fps: number } | null;
  readonly audioCodec: string | null;
  readonly videoCodec: string | null;
  readonly path: "relay" | "direct" | null;
  readonly transport: "udp" | "tcp" | "tls" | null;
}

export interface CallSide {
  /** What this side agrees to. */
  readonly rung: Call["rung"];
  readonly direct: boolean;
  readonly recording: boolean;
  readonly media: Media;
  /** Right now, from the sound's level. */
  readonly speaking: boolean;
  /** Camera (and the microphone, where it is heard), and the shared screen with its sound. */
  readonly stream: MediaStream | null;
  readonly screen: MediaStream | null;
}

export interface CallView {
  /**
   * `calling`: this guest invited and waits. `ringing`: the partner invites. `asking`: the server has no relay, and
   * not both have agreed to connect directly yet. `connecting`: agreed, no media yet. `live`. `reconnecting`: media
   * stopped and is being brought back.
   */
  readonly phase: "calling" | "ringing" | "asking" | "connecting" | "live" | "reconnecting";
  /** What was asked for, or what it is. */
  readonly video: boolean;
  /** ms since the epoch when media first flowed. */
  readonly liveSince: number | null;
  /** What both agree to. */
  readonly rung: Call["rung"];
  readonly direct: boolean;
  /** The server has a relay: without `direct`, no address is shared. */
  readonly relay: boolean;
  readonly mine: CallSide;
  readonly theirs: CallSide;
  readonly recording: "off" | "asked" | "starting" | "on";
  readonly quality: "good" | "fair" | "poor" | null;
  readonly numbers: CallNumbers | null;
  /** What a weak network leaves of this guest's video: all, a smaller picture, or sound only for now. */
  readonly sending: "full" | "reduced" | "audio";
  /** The browser can share a screen. */
  readonly canShareScreen: boolean;
  /** The browser will not play the sound until the guest touches the page: offer a button for `playSound()`. */
  readonly muffled: boolean;
  /** The last thing that was refused or went wrong, to be said in words; `dismissProblem()` puts it away. */
  readonly problem: ErrorCode | "unreachable" | "screen_denied" | "media_failed" | null;
}

export interface RecordingsView {
  readonly recordings: readonly SavedRecording[];
  /** Being fetched: its id and the share that is here, 0 to 1. */
  readonly fetching: { readonly id: string; readonly share: number } | null;
  readonly problem: ErrorCode | "unreachable" | null;
}

/** Where a file can be fetched for now, as addresses of this server. */
export interface FilePlace {
  readonly main: string;
  readonly thumb: string | null;
  /** Saves it under its name. */
  readonly download: string;
}

/** The files of the conversation on screen. */
export interface FilesView {
  /** What this server takes; null: no files at all. */
  readonly limits: FileLimits | null;
  /** By file: asked for with `openFile`, renewed by themselves while the conversation is on screen. */
  readonly places: ReadonlyMap<string, FilePlace>;
  /** Files that are not to be had any more: expired, taken back, or withheld. */
  readonly gone: ReadonlySet<string>;
  /** Pictures and videos of the partner that this guest has uncovered; one's own never are covered. */
  readonly shown: ReadonlySet<string>;
  /** Show them at once: for this conversation. The setting `coverPictures` is for all. */
  readonly always: boolean;
}

/**
 * A file on its way into the conversation; it becomes a message once it is there and found good.
 *
 * `waiting`: others go first, or the server asked to wait. `paused`: the network is away; goes on by itself from
 * where it was. `checking`: all is there, the server looks at it, or those chosen before it are not that far.
 * `failed`: see `problem`; `retry` where it may help.
 */
export interface UploadView {
  readonly id: string;
  readonly name: string;
  readonly bytes: number;
  /** A guess, for drawing it. */
  readonly kind: FileKind;
  readonly text: string;
  /** An object URL of one's own picture or video. */
  readonly preview: string | null;
  /** For a voice message. */
  readonly seconds: number | null;
  readonly phase: "waiting" | "uploading" | "paused" | "checking" | "failed";
  /** Of the bytes, 0 to 1. */
  readonly share: number;
  readonly problem: ErrorCode | "unreachable" | "unreadable_here" | null;
  /** What `problem` was measured by: bytes or pixels. */
  readonly limit: number | null;
  readonly retry: boolean;
}

/** A voice message in the making. */
export interface VoiceView {
  /** `preview`: to be listened to before it is sent. */
  readonly phase: "idle" | "asking" | "recording" | "preview";
  readonly seconds: number;
  /** The longest that may be recorded. */
  readonly maxSeconds: number;
  /** Loudness so far, 0 to 1, oldest first; in `preview` the whole of it. */
  readonly levels: readonly number[];
  /** An object URL, in `preview`. */
  readonly url: string | null;
  readonly problem: DeviceProblem | null;
}

export type Theme = "system" | "light" | "dark";
export type Locale = "en" | "es" | "ar";

export interface SettingsView {
  readonly theme: Theme;
  readonly sounds: boolean;
  readonly locale: Locale;
  /** A stranger's pictures and videos stay covered until touched. */
  readonly coverPictures: boolean;
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
    /** Files of those messages that moderators may keep. */
    fileIds: readonly string[];
    block: boolean;
  }): Promise<ErrorCode | "unreachable" | null>;

  readonly devices: Store<DevicesView>;
  /** The microphone's loudness, 0 to 1, some times a second; 0 while it is not open. */
  readonly level: Store<number>;
  /** Opens what is switched on, for a look before joining. Asks the browser for permission. */
  openDevices(what: "voice" | "video"): Promise<void>;
  /** Lets go of everything, unless a call uses it. */
  closeDevices(): void;
  chooseDevice(kind: "microphone" | "camera" | "speaker", id: string): Promise<void>;
  /** Also during a call: mute, camera off. What is on again may need permission anew. */
  setMicrophone(on: boolean): Promise<void>;
  setCamera(on: boolean): Promise<void>;

  /** Null: no call. */
  readonly call: Store<CallView | null>;
  /** Invites the partner; with `direct`, agreeing to connect directly. The devices as chosen join. */
  invite(rung: Rung, direct?: boolean): Promise<ErrorCode | "unreachable" | null>;
  accept(rung: Rung, direct?: boolean): Promise<ErrorCode | "unreachable" | null>;
  /** Declines, takes the invitation back or hangs up, as the call stands. The conversation goes on. */
  endCall(): Promise<void>;
  /** This guest's own consent, up or down the ladder. `clear` by both reveals. */
  agree(change: { rung?: Rung; direct?: boolean; recording?: boolean }): Promise<void>;
  shareScreen(): Promise<void>;
  stopScreen(): void;
  /** From a touch: browsers hold back sound before one. */
  playSound(): void;
  dismissProblem(): void;

  readonly recordings: Store<RecordingsView>;
  loadRecordings(): Promise<void>;
  /** Saves the file through the browser's own download. */
  downloadRecording(id: string): Promise<void>;
  deleteRecording(id: string): Promise<void>;

  readonly files: Store<FilesView>;
  /** In the order in which they were chosen. */
  readonly uploads: Store<readonly UploadView[]>;
  /** Why a file cannot be sent here, as far as this device can tell; null: it may be. */
  checkFile(file: File): { readonly problem: ErrorCode | "unreadable_here"; readonly limit: number | null } | null;
  /**
   * Uploads each; it is said, with its words, once the server found it good and those before it are said, or came to
   * nothing. Goes on while other screens are shown.
   */
  share(files: readonly { readonly file: File; readonly text: string; readonly replyTo?: string | null }[]): void;
  cancelUpload(id: string): void;
  retryUpload(id: string): void;
  /** Asks for the places of a file, if they are not known or about to end. */
  openFile(id: string): Promise<void>;
  /** An address did not work: asks anew, and learns if the file is gone. */
  fileFailed(id: string): Promise<void>;
  /** Uncovers, or covers, one file of the partner. */
  showFile(id: string, shown: boolean): void;
  alwaysShow(always: boolean): void;

  readonly voice: Store<VoiceView>;
  startVoice(): Promise<void>;
  /** To `preview`, or to nothing if it was shorter than half a second. */
  stopVoice(): Promise<void>;
  cancelVoice(): void;
  /** From `recording` or `preview`. Resolves to whether there was anything to send. */
  sendVoice(replyTo?: string | null): Promise<boolean>;

  setSettings(change: Partial<SettingsView>): void;
}

/** Moments that deserve a sound or an announcement. */
export type Moment = "matched" | "message" | "ended" | "ring" | "ringback" | "quiet" | "joined" | "hangup" | "recorded";

/** What happens once, beside what lasts. `createVisavis` returns it together with `Visavis`. */
export interface Moments {
  /**
   * `message`: the partner said something. `ended`: not by this guest. `ring`, `ringback`: a call rings here, or at the
   * partner's, until `quiet`. `joined`: media flows. `hangup`: a call is over. `recorded`: a recording began.
   * Returns what stops listening.
   */
  onMoment(listener: (moment: Moment) => void): () => void;
}

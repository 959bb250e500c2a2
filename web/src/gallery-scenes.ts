/** What the gallery shows, and a stand-in for the program that shows it. */
import type { Conversation, FileKind, SharedFile } from "./contract.gen";
import { BLUR, chosenFile, humming, painted } from "./gallery-files";
import { picture } from "./gallery-pictures";
import type {
  CallLine,
  CallSide,
  CallView,
  ConversationView,
  Delivery,
  DevicesView,
  FilePlace,
  FilesView,
  LobbyView,
  MessageView,
  RecordingsView,
  SearchView,
  SessionView,
  SettingsView,
  UploadView,
  Visavis,
  VoiceView,
} from "./model";
import { store } from "./store";

export interface Scene {
  readonly session?: SessionView;
  readonly lobby?: Partial<LobbyView>;
  readonly search?: SearchView;
  readonly conversation?: ConversationView;
  readonly settings?: Partial<SettingsView>;
  readonly files?: Partial<FilesView>;
  readonly uploads?: readonly UploadView[];
  readonly voice?: Partial<VoiceView>;
  /** Files that are dragged over it, and dropped unless they hover. */
  readonly drop?: () => readonly File[];
  readonly hover?: boolean;
  readonly devices?: Partial<DevicesView>;
  /** Made when it is shown: its pictures are painted then. */
  readonly call?: () => CallView;
  readonly recordings?: RecordingsView;
  /** Names of controls that are pressed once it shows, in this order. */
  readonly press?: readonly string[];
}

const NOW = Date.now();
const MINUTE = 60_000;
const READY: SessionView = { phase: "ready", profile: { name: "Amber Otter", hue: 62 }, link: "online" };
const PARTNER: Conversation["partner"]["profile"] = { name: "Teal Heron", hue: 195 };
const LOBBY: LobbyView = {
  online: 1,
  waiting: 0,
  popular: [],
  modes: ["text"],
  relay: true,
  recording: false,
  mode: "text",
  interests: [],
  languages: ["en"],
};
const POPULAR = ["jazz", "climbing", "sourdough", "old maps", "football", "القهوة", "cinema", "chess", "night trains"];

let made = 0;
function said(mine: boolean, text: string | null, more: Partial<MessageView> = {}): MessageView {
  made += 1;
  return {
    id: `m${made}`,
    mine,
    text,
    file: null,
    deleted: text === null,
    at: NOW - 30 * MINUTE + made * 20_000,
    delivery: mine ? "read" : null,
    replyTo: null,
    reactions: [],
    ...more,
  };
}

const TALK: readonly MessageView[] = [
  said(false, "Hello! Climbing and jazz, that is a rare pair 😄", { at: NOW - 9 * MINUTE }),
  said(true, "I know! I hardly ever meet anyone who likes both.", { at: NOW - 8.5 * MINUTE }),
  said(true, "Do you play as well, or only listen?", { at: NOW - 8.4 * MINUTE, reactions: [{ mine: false, emoji: "👍" }] }),
  said(false, "Double bass, badly. In a basement with four other people who also play badly.", { at: NOW - 7 * MINUTE }),
  said(false, "It is the best evening of the week.", { at: NOW - 6.9 * MINUTE, reactions: [{ mine: true, emoji: "❤️" }] }),
  said(true, "That sounds perfect.", {
    at: NOW - 5 * MINUTE,
    replyTo: { id: "m5", mine: false, text: "It is the best evening of the week.", file: null },
  }),
  said(false, "This is the record I keep coming back to: https://example.org/records/kind-of-blue?side=a", { at: NOW - 3 * MINUTE }),
  said(true, "Listening now. Where do you climb?", { at: NOW - 2 * MINUTE, delivery: "delivered" }),
];

const CONVERSATION: ConversationView = {
  id: "c1",
  partner: PARTNER,
  presence: "here",
  typing: false,
  why: { interests: ["climbing", "jazz"], languages: ["en"] },
  startedAt: NOW - 9 * MINUTE,
  ended: null,
  blocked: false,
  reported: false,
  messages: TALK,
  calls: [],
  unread: 0,
  draft: "",
};

const LIMITS: NonNullable<FilesView["limits"]> = {
  bytes: 25_000_000,
  perMinute: 10,
  bytesTogether: 200_000_000,
  seconds: 86_400,
  kinds: ["picture", "video", "audio", "voice", "document"],
  chunkBytes: 1_000_000,
};
/** Loud and quiet, as speech is. */
const WAVEFORM = btoa(
  String.fromCharCode(...Array.from({ length: 64 }, (_, at) => Math.round(40 + 200 * Math.abs(Math.sin(at * 0.7) * Math.sin(at * 0.19 + 0.4))))),
);
let shared = 0;
function file(kind: FileKind, more: Partial<SharedFile> = {}): SharedFile {
  shared += 1;
  const seen = kind === "picture" || kind === "video";
  return {
    id: `f${shared}`,
    kind,
    name: { picture: "harbour.webp", video: "waves.mp4", audio: "Blue in Green (rehearsal).ogg", voice: "voice.ogg", document: "travel plan.pdf" }[kind],
    type: { picture: "image/webp", video: "video/mp4", audio: "audio/ogg", voice: "audio/ogg", document: "application/pdf" }[kind],
    bytes: 482_000 * shared,
    expiresAt: NOW + 23.4 * 60 * MINUTE,
    width: seen ? 1600 : null,
    height: seen ? 1200 : null,
    seconds: kind === "picture" || kind === "document" ? null : 17.4,
    waveform: kind === "voice" ? WAVEFORM : null,
    blur: seen ? BLUR : null,
    thumb: seen,
    ...more,
  };
}
const sent = (mine: boolean, what: SharedFile, text = "", more: Partial<MessageView> = {}): MessageView =>
  said(mine, text, { file: what, at: NOW - 10 * MINUTE + made * 1000, ...more });
const upload = (id: string, phase: UploadView["phase"], more: Partial<UploadView> = {}): UploadView => ({
  id,
  name: "travel plan.pdf",
  bytes: 4_820_000,
  kind: "document",
  text: "",
  preview: null,
  seconds: null,
  phase,
  share: 0,
  problem: null,
  limit: null,
  retry: false,
  ...more,
});
const TALL = file("picture", { width: 1200, height: 1600 });
const HARBOUR = file("picture");
const PANORAMA = file("picture", { width: 3000, height: 1000 });
const SPOKEN = file("voice");
const PAPER = file("document");
const PICTURES: readonly MessageView[] = [
  said(false, "Look what I found this morning", { at: NOW - 9 * MINUTE }),
  sent(false, HARBOUR, "The harbour, just before the rain came"),
  sent(true, TALL),
  sent(false, PANORAMA),
  said(true, "That light!", { at: NOW - 6 * MINUTE, replyTo: { id: "m0", mine: false, text: "", file: PANORAMA } }),
];
const SOUNDS: readonly MessageView[] = [
  sent(false, SPOKEN),
  sent(true, file("voice", { seconds: 4.2 }), "", { reactions: [{ mine: false, emoji: "😂" }] }),
  sent(false, file("audio", { name: "Blue in Green (rehearsal, second take, with the good microphone).ogg", seconds: 204 }), "Our worst take so far"),
  said(true, "I love it.", { at: NOW - 6 * MINUTE, replyTo: { id: "m0", mine: false, text: "", file: SPOKEN } }),
];
const PAPERS: readonly MessageView[] = [
  sent(true, PAPER, "Page 3 is the good one"),
  sent(false, file("document", { name: "photographs of the whole summer, sorted by day and place.zip", type: "application/zip", expiresAt: NOW + 40 * MINUTE })),
  sent(false, file("document", { name: "مصاريف الرحلة.xlsx", type: "application/vnd.ms-excel" })),
  sent(true, file("document", { name: "notes" })),
];
const OPEN: Partial<FilesView> = { always: true };
const STATES: readonly Delivery[] = ["read", "delivered", "sent", "sending", "failed", "lost"];
const searching = (accepts: "interests" | "language" | "anyone", more: object = {}): SearchView => ({
  phase: "searching",
  since: NOW - 47_000,
  accepts,
  interests: ["climbing", "jazz"],
  languages: ["en"],
  alone: false,
  paused: false,
  ...more,
});
const welcome = (more: Partial<Extract<SessionView, { phase: "welcome" }>> = {}): SessionView => ({
  phase: "welcome",
  needs: { birthDate: true, rules: true },
  minimumAge: 18,
  busy: false,
  problem: null,
  ...more,
});
const talk = (more: Partial<ConversationView>): Scene => ({ conversation: { ...CONVERSATION, ...more } });

const TALKING: Partial<LobbyView> = { online: 128, modes: ["text", "voice", "video"], recording: true };
const DEVICES: DevicesView = {
  microphones: [
    { id: "m1", label: "Built-in microphone" },
    { id: "m2", label: "Headset (USB)" },
  ],
  cameras: [
    { id: "c1", label: "Front camera" },
    { id: "c2", label: "" },
  ],
  speakers: [
    { id: "s1", label: "Built-in speakers" },
    { id: "s2", label: "Headset (USB)" },
  ],
  microphone: "m1",
  camera: "c1",
  speaker: "s1",
  microphoneOn: true,
  cameraOn: true,
  microphoneProblem: null,
  cameraProblem: null,
  opening: false,
  preview: null,
};
const side = (rung: CallSide["rung"], more: Partial<CallSide> = {}): CallSide => ({
  rung,
  direct: false,
  recording: false,
  media: { microphone: true, camera: rung !== "voice", screen: false },
  speaking: false,
  stream: null,
  screen: null,
  ...more,
});
const CALL: CallView = {
  phase: "live",
  video: true,
  liveSince: NOW - 200_000,
  rung: "voice",
  direct: false,
  relay: true,
  mine: side("voice"),
  theirs: side("voice"),
  recording: "off",
  quality: "good",
  numbers: {
    roundTripMs: 48,
    lossPercent: 0.4,
    jitterMs: 6,
    sendKbps: 812,
    receiveKbps: 1204,
    sendVideo: { width: 640, height: 480, fps: 24 },
    receiveVideo: { width: 1280, height: 720, fps: 30 },
    audioCodec: "opus",
    videoCodec: "VP8",
    path: "relay",
    transport: "udp",
  },
  sending: "full",
  canShareScreen: true,
  muffled: false,
  problem: null,
};
const LINES: readonly CallLine["what"][] = ["missed", "declined", "cancelled", "hung_up", "failed", "lost", "recorded", "recording_failed", "recording_full", "recording_empty"];
const SAVED = [
  { id: "r1", madeAt: NOW - 40 * MINUTE, expiresAt: NOW + 1399 * MINUTE, bytes: 18_400_000, seconds: 200 },
  { id: "r2", madeAt: NOW - 700 * MINUTE, expiresAt: NOW + 50 * MINUTE, bytes: 240_000, seconds: 31 },
];
const calling = (more: () => Partial<CallView>, rest: Scene = {}): Scene => ({
  ...talk({}),
  lobby: TALKING,
  call: () => ({ ...CALL, ...more() }),
  ...rest,
});
const seen = (rung: "blurred" | "clear", mine: Partial<CallSide> = {}, theirs: Partial<CallSide> = {}): Partial<CallView> => ({
  rung,
  mine: side(rung, { stream: picture("mine"), ...mine }),
  theirs: side(rung, { stream: picture(rung === "clear" ? "theirs" : "blurred"), speaking: true, ...theirs }),
});
const check = (devices: Partial<DevicesView>, lobby: Partial<LobbyView> = {}): Scene => ({
  lobby: { ...TALKING, mode: "video", ...lobby },
  devices,
  press: ["find"],
});

export const SCENES: Readonly<Record<string, Scene>> = {
  "loading": { session: { phase: "loading" } },
  "welcome": { session: welcome() },
  "welcome-rules": { session: welcome({ needs: { birthDate: false, rules: true } }) },
  "welcome-problem": { session: welcome({ problem: "busy" }) },
  "under-age": { session: { phase: "underAge", minimumAge: 18 } },
  "lobby-empty": {},
  "lobby-chips": {
    lobby: { online: 2, interests: ["climbing", "jazz", "القهوة العربية"], languages: ["en", "es", "ar"], popular: [{ interest: "chess", guests: 2 }] },
  },
  "lobby-popular": {
    lobby: {
      online: 128,
      waiting: 3,
      modes: ["text", "voice", "video"],
      popular: POPULAR.map((interest, index) => ({ interest, guests: 31 - index * 3 })),
      interests: ["jazz"],
    },
  },
  "lobby-full": {
    lobby: {
      online: 41,
      interests: ["climbing", "jazz", "bread", "an interest of forty characters, exactly", "chess", "tea", "maps", "cats", "go", "rain"],
      languages: [],
    },
  },
  "lobby-problem": { search: { phase: "idle", problem: "rate_limited" } },
  "offline": { session: { ...READY, link: "offline" }, lobby: { online: 12 } },
  "update-under-way": { session: { ...READY, link: "reconnecting", hold: { problem: "stale_client", retryAt: Date.now() + 7_000 } } },
  "address-full": { session: { ...READY, link: "reconnecting", hold: { problem: "address_full", retryAt: Date.now() + 9_000 } }, lobby: { online: 12 } },
  "messages-wait": talk({ waitsUntil: Date.now() + 40_000 }),
  "reconnecting": { session: { ...READY, link: "reconnecting" }, ...talk({}) },
  "searching-interests": { search: searching("interests") },
  "searching-language": { search: searching("language") },
  "searching-anyone": { search: searching("anyone") },
  "searching-paused": { search: searching("anyone", { paused: true }), session: { ...READY, link: "reconnecting" } },
  "alone": { search: searching("anyone", { alone: true }) },
  "conversation": talk({}),
  "conversation-new": talk({ messages: [] }),
  "conversation-typing": talk({ typing: true }),
  "conversation-away": talk({ presence: "away" }),
  "conversation-states": talk({
    messages: STATES.map((delivery, index) => said(true, `This one is ${delivery}.`, { delivery, at: NOW - (7 - index) * MINUTE })),
  }),
  "conversation-long": talk({
    why: { interests: [], languages: ["en", "es"] },
    messages: [
      said(false, "A long one. ".repeat(160)),
      said(true, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft".repeat(3)),
      said(false, `https://example.org/${"a-very-long-path/".repeat(12)}`),
      said(false, `z\u0351\u0352\u0353\u0354\u0355\u0356\u0357\u0358\u0359a\u0315\u031b\u0340\u0341\u0358\u0321\u0322\u0327\u0328l\u0334\u0335\u0336go and http://xn--80ak6aa92e.com/ and http://аррӏе.com`),
      said(true, "🎉"),
      said(false, "one\ntwo\n\n\n\n\n\n\nthree"),
    ],
  }),
  "conversation-rtl": talk({
    partner: { name: "مها الورد", hue: 330 },
    why: { interests: ["القهوة"], languages: ["ar", "en"] },
    messages: [
      said(false, "مرحبًا! كيف حالك اليوم؟"),
      said(true, "I am well, thank you. شكرًا جزيلًا!"),
      said(false, "\u202Etxet desrever\u202C هذا نص عادي"),
      said(false, null),
      said(true, null),
    ],
  }),
  "conversation-ended-left": talk({ presence: "left", ended: "left" }),
  "conversation-ended-lost": talk({ presence: "lost", ended: "lost" }),
  "conversation-ended-me": talk({ presence: "left", ended: "me" }),
  "conversation-blocked": talk({ presence: "left", ended: "me", blocked: true, reported: true }),
  "conversation-many": talk({
    unread: 2,
    messages: Array.from({ length: 60 }, (_, index) =>
      said(index % 3 === 1, `Message number ${index + 1}`, { at: NOW - (60 - index) * 6 * MINUTE }),
    ),
  }),
  "lobby-video": { lobby: { ...TALKING, mode: "video" }, recordings: { recordings: SAVED, fetching: null, problem: null } },
  "check-video": check({}),
  "check-voice": check({}, { mode: "voice" }),
  "check-opening": check({ opening: true }),
  "check-denied": check({ cameraProblem: "denied", microphoneProblem: "denied" }),
  "check-missing": check({ cameraProblem: "none", microphoneProblem: "busy", cameras: [], microphones: [] }),
  "check-no-relay": check({ cameraOn: false }, { relay: false }),
  "conversation-callable": { ...talk({}), lobby: TALKING },
  "call-invite": { ...talk({}), lobby: TALKING, press: ["call-video"] },
  "call-outgoing": calling(() => ({ phase: "calling" })),
  "call-incoming-voice": calling(() => ({ phase: "ringing", video: false })),
  "call-incoming-video": calling(() => ({ phase: "ringing", video: true })),
  "call-asking": calling(() => ({ phase: "asking", relay: false, liveSince: null, quality: null })),
  "call-asking-waiting": calling(() => ({ phase: "asking", relay: false, liveSince: null, quality: null, mine: side("voice", { direct: true }) })),
  "call-connecting": calling(() => ({ phase: "connecting", liveSince: null, quality: null })),
  "call-voice-live": calling(() => ({ video: false, theirs: side("voice", { speaking: true }) })),
  "call-voice-muted": calling(() => ({ theirs: side("voice", { media: { microphone: false } }) }), { devices: { microphoneOn: false } }),
  "call-video-invited": calling(() => ({ theirs: side("blurred") })),
  "call-video-asked": calling(() => ({ mine: side("blurred", { stream: picture("mine") }) })),
  "call-blurred": calling(() => seen("blurred")),
  "call-reveal-waiting": calling(() => ({ ...seen("blurred"), mine: side("clear", { stream: picture("mine") }) })),
  "call-reveal-invited": calling(() => ({ ...seen("blurred"), theirs: side("clear", { stream: picture("blurred") }) })),
  "call-clear": calling(() => seen("clear")),
  "call-camera-off": calling(
    () => seen("clear", { media: { microphone: false, camera: false } }, { stream: null, media: { microphone: false, camera: false } }),
    { devices: { cameraOn: false, microphoneOn: false } },
  ),
  "call-direct": calling(() => ({ ...seen("clear", { direct: true }, { direct: true }), direct: true, quality: "fair" })),
  "call-direct-invited": calling(() => seen("clear", {}, { direct: true })),
  "call-sharing": calling(() => seen("clear", { media: { microphone: true, camera: true, screen: true } })),
  "call-their-screen": calling(() => seen("clear", {}, { screen: picture("screen"), media: { microphone: true, camera: true, screen: true } })),
  "call-record-dialog": calling(() => seen("clear"), { press: ["record-ask"] }),
  "call-record-asked": calling(() => ({ ...seen("clear", { recording: true }), recording: "asked" })),
  "call-record-invited": calling(() => ({ ...seen("clear", {}, { recording: true }), recording: "asked" })),
  "call-recording": calling(() => ({ ...seen("clear", { recording: true }, { recording: true }), recording: "on" })),
  "call-weak": calling(() => ({ ...seen("clear"), quality: "poor", sending: "audio" }), { press: ["quality"] }),
  "call-settings": calling(() => seen("clear"), { press: ["call-more", "call-settings"] }),
  "call-muffled": calling(() => ({ muffled: true, problem: "recording_unavailable" })),
  "call-device-gone": calling(() => seen("clear"), { devices: { cameraProblem: "busy" } }),
  "call-reconnecting": calling(() => ({ ...seen("clear"), phase: "reconnecting", quality: "poor" })),
  "call-chat": calling(() => seen("clear"), { ...talk({ unread: 2 }), press: ["open-chat"] }),
  "call-unread": calling(() => seen("clear"), talk({ unread: 3 })),
  "call-lines": {
    ...talk({
      calls: LINES.map((what, index) => ({
        id: `l${index}`,
        at: NOW - (9 - index) * 0.8 * MINUTE,
        what,
        by: what === "missed" ? "partner" : what === "declined" ? "me" : what === "cancelled" ? "partner" : null,
        video: index % 2 === 1,
        seconds: what === "hung_up" || what === "recorded" ? 200 : null,
        recordingId: what === "recorded" ? "r1" : null,
      })),
    }),
    lobby: TALKING,
    recordings: { recordings: SAVED, fetching: { id: "r1", share: 0.42 }, problem: null },
  },
  "call-line-only": {
    ...talk({ messages: [], calls: [{ id: "l1", at: NOW - MINUTE, what: "missed", by: "partner", video: true, seconds: null, recordingId: null }] }),
    lobby: TALKING,
  },
  "recordings": {
    lobby: TALKING,
    recordings: { recordings: SAVED, fetching: { id: "r2", share: 0.7 }, problem: "not_found" },
    press: ["recordings-open"],
  },
  "files-off": { ...talk({}), files: { limits: null } },
  "files-tray": {
    ...talk({}),
    drop: () => [
      chosenFile("harbour.svg", "image/svg+xml", painted(800, 600, 210)),
      chosenFile("a name that goes on and on until nobody reads it any more.pdf", "application/pdf"),
      chosenFile("everything.iso", "application/x-iso", null, 48_000_000),
      chosenFile("empty.txt", "text/plain", ""),
    ],
  },
  "files-tray-one": { ...talk({}), drop: () => [chosenFile("harbour.svg", "image/svg+xml", painted(800, 600, 210))] },
  "files-tray-none": { ...talk({}), drop: () => [chosenFile("everything.iso", "application/x-iso", null, 48_000_000)] },
  "files-drop": { ...talk({}), drop: () => [chosenFile("a.txt", "text/plain")], hover: true },
  "files-drop-call": { ...calling(() => seen("clear")), drop: () => [chosenFile("a.txt", "text/plain")], hover: true },
  "uploads": {
    ...talk({ messages: TALK.slice(0, 2) }),
    uploads: [
      upload("u1", "uploading", { name: "harbour.jpg", kind: "picture", preview: painted(800, 600, 210), share: 0.42, text: "The harbour" }),
      upload("u2", "waiting"),
      upload("u3", "paused", { share: 0.61, name: "فيديو الرحلة.mp4", kind: "video" }),
      upload("u4", "checking", { share: 1, kind: "voice", seconds: 12, name: "voice.ogg" }),
    ],
  },
  "uploads-failed": {
    ...talk({ messages: [] }),
    uploads: [
      upload("u1", "failed", { problem: "file_infected" }),
      upload("u2", "failed", { problem: "picture_too_large", limit: 40_000_000, name: "poster.png", kind: "picture", preview: painted(800, 600, 60) }),
      upload("u3", "failed", { problem: "unreachable", retry: true, share: 0.7, text: "The plan" }),
    ],
  },
  "pictures-covered": talk({ messages: PICTURES }),
  "pictures-shown": { ...talk({ messages: PICTURES }), files: OPEN },
  "pictures-loading": { ...talk({ messages: PICTURES }), files: { ...OPEN, limits: { ...LIMITS, chunkBytes: 0 } } },
  "pictures-rtl": { ...talk({ partner: { name: "مها الورد", hue: 330 }, messages: PICTURES }), files: { shown: new Set([HARBOUR.id]) } },
  "lightbox": { ...talk({ messages: PICTURES }), files: OPEN, press: ["file-look"] },
  "lightbox-zoomed": { ...talk({ messages: PICTURES }), files: OPEN, press: ["file-look", "lightbox-zoom-in", "lightbox-zoom-in"] },
  "video-covered": talk({ messages: [sent(false, file("video", { width: 1280, height: 720 }), "The waves")] }),
  "video-shown": {
    ...talk({ messages: [sent(false, file("video", { width: 1280, height: 720 }), "The waves"), sent(true, file("video", { width: 720, height: 1280 }))] }),
    files: OPEN,
  },
  "sounds": talk({ messages: SOUNDS }),
  "sounds-playing": { ...talk({ messages: SOUNDS }), press: ["voice-play", "voice-speed"] },
  "documents": talk({ messages: PAPERS }),
  "files-gone": {
    ...talk({
      presence: "left",
      ended: "left",
      messages: [sent(false, TALL, "The tower"), sent(true, PAPER), sent(false, SPOKEN), sent(true, HARBOUR)],
    }),
    files: { gone: new Set([TALL.id, PAPER.id, SPOKEN.id]) },
  },
  "voice-asking": { ...talk({}), voice: { phase: "asking" } },
  "voice-recording": { ...talk({}), voice: { phase: "recording", seconds: 7, levels: Array.from({ length: 90 }, (_, at) => Math.abs(Math.sin(at * 0.5) * Math.sin(at * 0.13)) ** 2) } },
  "voice-ending": { ...talk({}), voice: { phase: "recording", seconds: 294, levels: Array.from({ length: 30 }, (_, at) => Math.abs(Math.sin(at)) / 3) } },
  "voice-preview": { ...talk({}), voice: { phase: "preview", seconds: 12.4, levels: Array.from({ length: 240 }, (_, at) => Math.abs(Math.sin(at * 0.11) * Math.sin(at * 0.031))), url: humming(12.4) } },
  "voice-denied": { ...talk({}), voice: { problem: "denied" } },
  "report-files": { ...talk({ messages: [...PICTURES.slice(1), ...SOUNDS] }), press: ["partner-menu", "report-open", "report-message"] },
  "settings": { press: ["settings-open"] },
  "failed-unreachable": { session: { phase: "failed", problem: "unreachable", retryAt: NOW + 12_000 } },
  "failed-busy": { session: { phase: "failed", problem: "busy", retryAt: NOW + 25_000 } },
  "replaced": { session: { phase: "replaced" } },
};

/** Answers like the program, in memory; enough to try every control. */
export function fakeVisavis(scene: Scene): Visavis {
  const session = store<SessionView>(scene.session ?? READY);
  const lobby = store<LobbyView>({ ...LOBBY, ...scene.lobby });
  const search = store<SearchView>(scene.search ?? { phase: "idle", problem: null });
  const conversation = store<ConversationView | null>(scene.conversation ?? null);
  const settings = store<SettingsView>({ theme: "system", sounds: true, locale: "en", coverPictures: true, ...scene.settings });
  const files = store<FilesView>({ limits: LIMITS, places: new Map(), gone: new Set(), shown: new Set(), always: false, ...scene.files });
  const uploads = store<readonly UploadView[]>(scene.uploads ?? []);
  const voice = store<VoiceView>({ phase: "idle", seconds: 0, maxSeconds: 300, levels: [], url: null, problem: null, ...scene.voice });
  const placeOf = ({ kind, width, height, id }: SharedFile): FilePlace => {
    const seen = kind === "picture" || kind === "video" ? painted(width ?? 800, height ?? 600, Number(id.slice(1)) * 47) : null;
    return { main: seen !== null && kind === "picture" ? seen : humming(17.4), thumb: seen, download: `/files/${id}` };
  };
  const devices = store<DevicesView>({ ...DEVICES, ...scene.devices });
  const level = store(0.55);
  const call = store<CallView | null>(scene.call?.() ?? null);
  const recordings = store<RecordingsView>(scene.recordings ?? { recordings: [], fetching: null, problem: null });
  const mirror = () => {
    const now = devices.get();
    const seen = now.cameraOn && now.cameraProblem === null && !now.opening;
    devices.set({ ...now, preview: seen ? (now.preview ?? picture("mine")) : null });
    return Promise.resolve();
  };
  const lower = (a: CallSide["rung"], b: CallSide["rung"]) => {
    const steps: readonly CallSide["rung"][] = ["text", "voice", "blurred", "clear"];
    return steps.indexOf(a) < steps.indexOf(b) ? a : b;
  };
  /** A partner who agrees to nothing further, and takes everything back as well. */
  const changeCall = (part: (now: CallView) => Partial<CallView>) => {
    const now = call.get();
    if (now === null) return Promise.resolve();
    const next = { ...now, ...part(now) };
    call.set({ ...next, rung: lower(next.mine.rung, next.theirs.rung), direct: next.mine.direct && next.theirs.direct });
    return Promise.resolve();
  };
  const nothing = () => Promise.resolve(null);

  const change = (part: Partial<ConversationView>) => {
    const now = conversation.get();
    if (now !== null) conversation.set({ ...now, ...part });
  };
  const changeMessage = (id: string, part: (message: MessageView) => Partial<MessageView>) =>
    change({
      messages: (conversation.get()?.messages ?? []).map((message) =>
        message.id === id ? { ...message, ...part(message) } : message,
      ),
    });
  const find = () => {
    conversation.set(null);
    search.set({ ...searching("interests", lobby.get()), since: Date.now() } as SearchView);
    return Promise.resolve();
  };

  return {
    session,
    lobby,
    search,
    conversation,
    settings,
    enter: () => {
      session.set(READY);
      return Promise.resolve();
    },
    takeBack: () => session.set(READY),
    setMode: (mode) => lobby.set({ ...lobby.get(), mode }),
    addInterest(text) {
      const interest = text.trim().toLowerCase();
      const { interests } = lobby.get();
      if (interest === "" || interests.includes(interest)) return null;
      lobby.set({ ...lobby.get(), interests: [...interests, interest] });
      return interest;
    },
    removeInterest: (interest) =>
      lobby.set({ ...lobby.get(), interests: lobby.get().interests.filter((other) => other !== interest) }),
    setLanguages: (languages) => lobby.set({ ...lobby.get(), languages }),
    find,
    cancel: () => {
      search.set({ phase: "idle", problem: null });
      return Promise.resolve();
    },
    skip: find,
    leave: () => {
      change({ ended: "me" });
      return Promise.resolve();
    },
    close: () => conversation.set(null),
    say(text, replyTo) {
      if (text.trim() === "") return false;
      const messages = conversation.get()?.messages ?? [];
      const quoted = messages.find(({ id }) => id === replyTo);
      const reply = quoted === undefined ? null : { id: quoted.id, mine: quoted.mine, text: quoted.text, file: quoted.file };
      change({ messages: [...messages, said(true, text.trim(), { at: Date.now(), delivery: "sent", replyTo: reply })], draft: "" });
      return true;
    },
    retry: (id) => changeMessage(id, () => ({ delivery: "sent" })),
    remove: (id) => changeMessage(id, () => ({ deleted: true, text: null, file: null })),
    react: (id, emoji) =>
      changeMessage(id, ({ reactions }) => ({
        reactions: [...reactions.filter(({ mine }) => !mine), ...(emoji === null ? [] : [{ mine: true, emoji }])],
      })),
    setDraft: (draft) => change({ draft }),
    setWatching: () => undefined,
    block: () => {
      change({ ended: "me", blocked: true });
      return nothing();
    },
    report: ({ block }) => {
      change({ reported: true, ...(block ? { ended: "me" as const, blocked: true } : {}) });
      return nothing();
    },
    devices,
    level,
    openDevices: mirror,
    closeDevices: () => devices.set({ ...devices.get(), preview: null }),
    chooseDevice(kind, id) {
      devices.set({ ...devices.get(), [kind]: id });
      return Promise.resolve();
    },
    setMicrophone(microphoneOn) {
      devices.set({ ...devices.get(), microphoneOn });
      return Promise.resolve();
    },
    setCamera(cameraOn) {
      devices.set({ ...devices.get(), cameraOn });
      return mirror();
    },
    call,
    invite(rung) {
      call.set({ ...CALL, phase: "calling", mine: side(rung) });
      return nothing();
    },
    accept(rung) {
      void changeCall(() => ({ phase: "live", mine: side(rung), theirs: side("blurred") }));
      return nothing();
    },
    endCall: () => {
      call.set(null);
      return Promise.resolve();
    },
    agree: (asked) =>
      changeCall((now) => ({
        mine: { ...now.mine, ...asked, stream: asked.rung === undefined || asked.rung === "voice" ? now.mine.stream : picture("mine") },
        ...(asked.recording === undefined
          ? {}
          : { recording: !asked.recording ? "off" : now.theirs.recording ? "on" : "asked", theirs: { ...now.theirs, recording: asked.recording && now.theirs.recording } }),
      })),
    shareScreen: () => changeCall((now) => ({ mine: { ...now.mine, media: { ...now.mine.media, screen: true } } })),
    stopScreen: () => void changeCall((now) => ({ mine: { ...now.mine, media: { ...now.mine.media, screen: false } } })),
    playSound: () => void changeCall(() => ({ muffled: false })),
    dismissProblem: () => void changeCall(() => ({ problem: null })),
    recordings,
    loadRecordings: () => Promise.resolve(),
    downloadRecording: () => Promise.resolve(),
    deleteRecording(id) {
      const now = recordings.get();
      recordings.set({ ...now, recordings: now.recordings.filter((one) => one.id !== id) });
      return Promise.resolve();
    },
    files,
    uploads,
    checkFile(one) {
      if (one.size === 0) return { problem: "file_empty", limit: null };
      return one.size > LIMITS.bytes ? { problem: "file_too_large", limit: LIMITS.bytes } : null;
    },
    share(chosen) {
      const more = chosen.map(({ file: one, text }, index) =>
        upload(`s${Date.now()}-${index}`, index === 0 ? "uploading" : "waiting", { name: one.name, bytes: one.size, text, share: 0.3 }),
      );
      uploads.set([...uploads.get(), ...more]);
    },
    cancelUpload: (id) => uploads.set(uploads.get().filter((one) => one.id !== id)),
    retryUpload: (id) => uploads.set(uploads.get().map((one) => (one.id === id ? { ...one, phase: "uploading", problem: null } : one))),
    openFile(id) {
      const found = conversation.get()?.messages.find((message) => message.file?.id === id)?.file ?? null;
      const now = files.get();
      if (found !== null && now.limits?.chunkBytes !== 0) files.set({ ...now, places: new Map([...now.places, [id, placeOf(found)]]) });
      return Promise.resolve();
    },
    fileFailed: () => Promise.resolve(),
    showFile(id, shown) {
      const now = files.get();
      files.set({ ...now, shown: new Set(shown ? [...now.shown, id] : [...now.shown].filter((other) => other !== id)) });
    },
    alwaysShow: (always) => files.set({ ...files.get(), always }),
    voice,
    startVoice: () => {
      voice.set({ ...voice.get(), phase: "recording", seconds: 0, levels: [0.1, 0.4, 0.2, 0.7, 0.3], problem: null });
      return Promise.resolve();
    },
    stopVoice: () => {
      voice.set({ ...voice.get(), phase: "preview", seconds: 5, url: humming(5) });
      return Promise.resolve();
    },
    cancelVoice: () => voice.set({ ...voice.get(), phase: "idle", problem: null }),
    sendVoice: () => {
      voice.set({ ...voice.get(), phase: "idle" });
      change({ messages: [...(conversation.get()?.messages ?? []), said(true, "", { file: file("voice"), at: Date.now(), delivery: "sent" })] });
      return Promise.resolve(true);
    },
    setSettings: (part) => settings.set({ ...settings.get(), ...part }),
  };
}

/** What the gallery shows, and a stand-in for the program that shows it. */
import type { Conversation } from "./contract.gen";
import type {
  ConversationView,
  Delivery,
  LobbyView,
  MessageView,
  SearchView,
  SessionView,
  SettingsView,
  Visavis,
} from "./model";
import { store } from "./store";

export interface Scene {
  readonly session?: SessionView;
  readonly lobby?: Partial<LobbyView>;
  readonly search?: SearchView;
  readonly conversation?: ConversationView;
  readonly settings?: SettingsView;
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
    replyTo: { id: "m5", mine: false, text: "It is the best evening of the week." },
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
  unread: 0,
  draft: "",
};

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
  "failed-unreachable": { session: { phase: "failed", problem: "unreachable", retryAt: NOW + 12_000 } },
  "failed-busy": { session: { phase: "failed", problem: "busy", retryAt: null } },
  "replaced": { session: { phase: "replaced" } },
};

/** Answers like the program, in memory; enough to try every control. */
export function fakeVisavis(scene: Scene): Visavis {
  const session = store<SessionView>(scene.session ?? READY);
  const lobby = store<LobbyView>({ ...LOBBY, ...scene.lobby });
  const search = store<SearchView>(scene.search ?? { phase: "idle", problem: null });
  const conversation = store<ConversationView | null>(scene.conversation ?? null);
  const settings = store<SettingsView>(scene.settings ?? { theme: "system", sounds: true, locale: "en" });
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
      const reply = quoted === undefined ? null : { id: quoted.id, mine: quoted.mine, text: quoted.text };
      change({ messages: [...messages, said(true, text.trim(), { at: Date.now(), delivery: "sent", replyTo: reply })], draft: "" });
      return true;
    },
    retry: (id) => changeMessage(id, () => ({ delivery: "sent" })),
    remove: (id) => changeMessage(id, () => ({ deleted: true, text: null })),
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
    setSettings: (part) => settings.set({ ...settings.get(), ...part }),
  };
}

/** Who is here, and what the guest has chosen to look for; the choices stay in this browser. */
import { MAX_INTERESTS, MAX_LANGUAGES, type LobbyState, type Mode, type ServerInfo } from "./contract.gen";
import type { Env } from "./env";
import { normaliseInterest } from "./interest";
import type { Keep } from "./keep";
import type { LobbyView, Store } from "./model";
import { isList, isRecord, isText } from "./shape";
import { store } from "./store";

export interface Lobby {
  readonly view: Store<LobbyView>;
  /** The server said who is here. */
  here(state: LobbyState): void;
  /** The server said what it can do. */
  offers(info: ServerInfo): void;
  setMode(mode: Mode): void;
  addInterest(text: string): string | null;
  removeInterest(interest: string): void;
  setLanguages(languages: readonly string[]): void;
}

const CHOICES = "choices.1";

export function createLobby(env: Env, local: Keep): Lobby {
  const kept = local.read(CHOICES, isRecord({ mode: isText, interests: isList(isText), languages: isList(isText) })) as Pick<
    LobbyView,
    "mode" | "interests" | "languages"
  > | null;
  const view = store<LobbyView>({
    online: 0,
    waiting: 0,
    popular: [],
    modes: ["text"],
    relay: false,
    recording: false,
    mode: kept?.mode ?? "text",
    interests: [...new Set(kept?.interests.map(normaliseInterest))].filter((interest) => interest !== "").slice(0, MAX_INTERESTS),
    languages: primaryLanguages(kept?.languages ?? env.languages),
  });

  function choose(change: Partial<LobbyView>): void {
    view.set({ ...view.get(), ...change });
    const { mode, interests, languages } = view.get();
    local.write(CHOICES, { mode, interests, languages });
  }

  return {
    view,
    here: ({ online, waiting, popular }) => view.set({ ...view.get(), online, waiting, popular }),
    offers(info) {
      const { mode } = view.get();
      const { modes, relay, recording } = info;
      view.set({ ...view.get(), modes, relay, recording, mode: modes.includes(mode) ? mode : (modes[0] ?? "text") });
    },
    setMode(mode) {
      if (view.get().modes.includes(mode)) choose({ mode });
    },
    addInterest(text) {
      const interest = normaliseInterest(text);
      const { interests } = view.get();
      if (interest === "" || interests.includes(interest) || interests.length >= MAX_INTERESTS) return null;
      choose({ interests: [...interests, interest] });
      return interest;
    },
    removeInterest: (interest) => choose({ interests: view.get().interests.filter((other) => other !== interest) }),
    setLanguages: (languages) => choose({ languages: primaryLanguages(languages) }),
  };
}

/** "pt-BR", "pt", "en-GB" -> "pt", "en". */
export function primaryLanguages(tags: readonly string[]): string[] {
  const primary = tags.map((tag) => (tag.split(/[-_]/)[0] ?? "").toLowerCase());
  return [...new Set(primary.filter((tag) => /^[a-z]{2,3}$/.test(tag)))].slice(0, MAX_LANGUAGES);
}

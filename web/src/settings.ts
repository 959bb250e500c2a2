/** How this browser likes it: theme, sounds, language. */
import type { Env } from "./env";
import type { Keep } from "./keep";
import { primaryLanguages } from "./lobby";
import type { Locale, SettingsView, Store } from "./model";
import { store } from "./store";

export interface Settings {
  readonly view: Store<SettingsView>;
  change(change: Partial<SettingsView>): void;
}

const SETTINGS = "settings.1";
const LOCALES: readonly Locale[] = ["en", "es", "ar"];

export function createSettings(env: Env, local: Keep): Settings {
  // Chosen once, kept for good: only what differs from the defaults, so that a default may change its mind.
  let chosen = (local.read(SETTINGS) ?? {}) as Partial<SettingsView>;
  const defaults: SettingsView = { theme: "system", sounds: true, locale: preferred(env.languages) };
  const view = store<SettingsView>({ ...defaults, ...chosen });
  return {
    view,
    change(change) {
      chosen = { ...chosen, ...change };
      view.set({ ...defaults, ...chosen });
      local.write(SETTINGS, chosen);
    },
  };
}

function preferred(languages: readonly string[]): Locale {
  for (const tag of primaryLanguages(languages)) {
    const locale = LOCALES.find((known) => known === tag);
    if (locale !== undefined) return locale;
  }
  return "en";
}

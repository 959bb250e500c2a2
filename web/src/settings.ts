/** How this browser likes it: theme, sounds, language. */
import type { Env } from "./env";
import type { Keep } from "./keep";
import { primaryLanguages } from "./lobby";
import type { Locale, SettingsView, Store } from "./model";
import { isFlag, isOneOf, isRecord } from "./shape";
import { store } from "./store";

export interface Settings {
  readonly view: Store<SettingsView>;
  change(change: Partial<SettingsView>): void;
}

const SETTINGS = "settings.1";
const LOCALES: readonly Locale[] = ["en", "es", "ar"];
const FITS = { theme: isOneOf("system", "light", "dark"), sounds: isFlag, locale: isOneOf(...LOCALES), coverPictures: isFlag };

export function createSettings(env: Env, local: Keep): Settings {
  // Chosen once, kept for good: only what differs from the defaults, so that a default may change its mind.
  const kept = Object.entries(local.read(SETTINGS, isRecord()) ?? {});
  const fitting = kept.filter(([name, value]) => name in FITS && FITS[name as keyof typeof FITS](value));
  let chosen = Object.fromEntries(fitting) as Partial<SettingsView>;
  const defaults: SettingsView = {
    theme: "system",
    sounds: true,
    locale: preferred(env.languages),
    coverPictures: true,
  };
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

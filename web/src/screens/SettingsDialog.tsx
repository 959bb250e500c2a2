import { useId } from "react";
import { OWN_NAMES } from "../i18n/load";
import type { PlainKey } from "../i18n/texts";
import { useSpeech } from "../i18n/useSpeech";
import type { Locale, Theme } from "../model";
import { Button } from "../ui/Button";
import { Dialog } from "../ui/Dialog";
import { Segmented } from "../ui/Segmented";
import { Switch } from "../ui/Switch";
import { useStore } from "../useStore";
import { useVisavis } from "./useVisavis";

const THEMES: readonly Theme[] = ["system", "light", "dark"];
const LOCALES = Object.keys(OWN_NAMES) as readonly Locale[];
const KEYS: readonly (readonly [readonly string[], PlainKey])[] = [
  [["Enter"], "settings.key.enter"],
  [["Shift", "Enter"], "settings.key.newline"],
  [["Esc"], "settings.key.esc"],
  [["↑"], "settings.key.up"],
  [["↑", "↓"], "settings.key.arrows"],
  [["R"], "settings.key.r"],
  [["Del"], "settings.key.delete"],
  [["M"], "settings.key.m"],
  [["V"], "settings.key.v"],
];

export function SettingsDialog({ onClose }: { readonly onClose: () => void }) {
  const { t } = useSpeech();
  const visavis = useVisavis();
  const settings = useStore(visavis.settings);
  const ids = useId();

  return (
    <Dialog title={t("settings.title")} closeLabel={t("app.close")} onClose={onClose}>
      <div className="mt-3 flex flex-col gap-7">
        <Segmented
          legend={t("settings.theme")}
          legendClass="mb-2 font-semibold"
          name={`${ids}-theme`}
          value={settings.theme}
          onChange={(theme) => visavis.setSettings({ theme })}
          options={THEMES.map((theme) => ({ value: theme, label: <span>{t(`settings.theme.${theme}`)}</span> }))}
        />
        <Segmented
          legend={t("settings.language")}
          legendClass="mb-2 font-semibold"
          name={`${ids}-locale`}
          value={settings.locale}
          onChange={(locale) => visavis.setSettings({ locale })}
          options={LOCALES.map((locale) => ({ value: locale, label: <span lang={locale}>{OWN_NAMES[locale]}</span> }))}
        />
        <Switch
          label={t("settings.sounds")}
          line={t("settings.soundsLine")}
          on={settings.sounds}
          onChange={(sounds) => visavis.setSettings({ sounds })}
        />
        <Switch
          testid="cover-pictures"
          label={t("settings.cover")}
          line={t("settings.coverLine")}
          on={settings.coverPictures}
          onChange={(coverPictures) => visavis.setSettings({ coverPictures })}
        />
        <section aria-labelledby={`${ids}-keys`} className="touch:hidden">
          <h3 id={`${ids}-keys`} className="mb-2 font-semibold">
            {t("settings.keys")}
          </h3>
          <dl className="flex flex-col gap-1.5 text-[0.95rem]">
            {KEYS.map(([keys, what]) => (
              <div key={what} className="flex flex-row-reverse items-baseline justify-between gap-4">
                
                <dt className="flex shrink-0 gap-1" dir="ltr">
                  {keys.map((key) => (
                    <kbd key={key} className="rounded-md border border-line bg-raised px-1.5 font-sans text-sm">
                      {key}
                    </kbd>
                  ))}
                </dt>
                <dd className="text-soft">{t(what)}</dd>
              </div>
            ))}
          </dl>
        </section>
        <Button look="main" onClick={onClose}>
          {t("settings.done")}
        </Button>
      </div>
    </Dialog>
  );
}

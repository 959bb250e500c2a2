import { useState } from "react";
import { useSpeech } from "../i18n/useSpeech";
import { IconButton } from "../ui/Button";
import { Logo } from "../ui/Face";
import { Icon } from "../ui/Icon";
import { SettingsDialog } from "./SettingsDialog";

export function TopBar() {
  const { t } = useSpeech();
  const [settings, setSettings] = useState(false);
  return (
    <header className="mx-auto flex h-16 w-full max-w-2xl shrink-0 lg:max-w-6xl items-center justify-between lg:h-20">
      <p className="flex items-center gap-3 font-display text-lg font-bold tracking-tight">
        <Logo />
        {t("app.name")}
      </p>
      <IconButton label={t("settings.title")} data-testid="settings-open" onClick={() => setSettings(true)} className="-me-2 size-11 rounded-xl">
        <Icon name="settings" className="size-6" />
      </IconButton>
      {settings && <SettingsDialog onClose={() => setSettings(false)} />}
    </header>
  );
}

import { useSpeech } from "../../i18n/useSpeech";
import type { DeviceProblem } from "../../model";
import { Button, IconButton } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { useVisavis } from "../useVisavis";

/** These stay as they are, however often one tries. */
const LASTING: ReadonlySet<DeviceProblem> = new Set(["insecure", "unsupported"]);

/** Why nothing can be recorded, above the message box. */
export function VoiceProblem({ problem }: { readonly problem: DeviceProblem }) {
  const { t } = useSpeech();
  const visavis = useVisavis();
  return (
    <div role="alert" data-testid="voice-problem" data-problem={problem} className="mb-2 flex animate-said gap-2.5 rounded-2xl bg-accent-wash p-1.5 ps-3.5 text-sm">
      <Icon name="voiceOff" className="mt-2 size-5 text-accent-strong" />
      <div className="min-w-0 flex-1 py-1.5">
        <p>{t(problem === "none" ? "voice.none" : `devices.microphone.${problem}`)}</p>
        {!LASTING.has(problem) && (
          <Button size="small" className="mt-2" onClick={() => void visavis.startVoice()}>
            <Icon name="retry" className="size-4" />
            {t("devices.again")}
          </Button>
        )}
      </div>
      <IconButton label={t("app.close")} onClick={() => visavis.cancelVoice()}>
        <Icon name="close" />
      </IconButton>
    </div>
  );
}

import { useSpeech } from "../../i18n/useSpeech";
import type { DeviceProblem } from "../../model";
import { Button } from "../../ui/Button";
import { Icon } from "../../ui/Icon";

interface Props {
  readonly kind: "microphone" | "camera";
  readonly problem: DeviceProblem;
  readonly onAgain: () => void;
  /** In a call one does not join any more. */
  readonly inCall?: boolean;
  readonly onWithout: () => void;
}

/** These stay as they are, however often one tries. */
const LASTING: ReadonlySet<DeviceProblem> = new Set(["insecure", "unsupported"]);

/** Why a device is not to be had, and both ways on. */
export function ProblemNote({ kind, problem, inCall = false, onAgain, onWithout }: Props) {
  const { t } = useSpeech();
  return (
    <div
      role="alert"
      data-testid={`device-problem-${kind}`}
      data-problem={problem}
      className="rounded-2xl bg-accent-wash p-3.5 text-sm text-ink"
    >
      <p className="flex gap-2.5">
        <Icon name={kind === "camera" ? "videoOff" : "voiceOff"} className="mt-px size-5 text-accent-strong" />
        {t(`devices.${kind}.${problem}`)}
      </p>
      <div className="mt-2.5 flex flex-wrap gap-2 ps-7.5">
        {!LASTING.has(problem) && (
          <Button size="small" onClick={onAgain}>
            <Icon name="retry" className="size-4" />
            {t("devices.again")}
          </Button>
        )}
        <Button size="small" onClick={onWithout}>
          {t(`devices.${inCall ? "goOn" : "without"}.${kind}`)}
        </Button>
      </div>
    </div>
  );
}

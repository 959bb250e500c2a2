import type { SessionView } from "../model";
import { useSpeech } from "../i18n/useSpeech";
import { Button } from "../ui/Button";
import { Face } from "../ui/Face";
import { Notice } from "./Notice";
import { problemWords } from "./problem";
import { useNow } from "./useNow";
import { useVisavis } from "./useVisavis";

type Props = Omit<Extract<SessionView, { phase: "failed" }>, "phase">;

export function Failed({ problem, retryAt }: Props) {
  const speech = useSpeech();
  const { t, tn } = speech;
  const visavis = useVisavis();
  const now = useNow();
  const unreachable = problem === "unreachable";
  const seconds = Math.max(0, Math.ceil((retryAt - now) / 1000));

  return (
    <Notice
      screen="failed"
      title={t(unreachable ? "failed.unreachableTitle" : "failed.title")}
      picture={<Face hue={45} gaze="closed" className="size-24" />}
    >
      <p className="text-lg text-soft">
        {unreachable ? t(navigator.onLine ? "failed.unreachableLine" : "failed.offlineLine") : problemWords(speech, problem)}
      </p>
      <Button look="main" size="large" className="mt-2" onClick={() => visavis.takeBack()}>
        {t("failed.retry")}
      </Button>
      <p className="text-soft tabular-nums">{seconds === 0 ? t("failed.retrying") : tn("failed.retryIn", seconds)}</p>
    </Notice>
  );
}

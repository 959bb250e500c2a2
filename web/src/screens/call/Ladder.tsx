import type { Profile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { CallView } from "../../model";
import { Button } from "../../ui/Button";
import { Face } from "../../ui/Face";
import { Icon } from "../../ui/Icon";
import { useMedia } from "../useMedia";
import { useVisavis } from "../useVisavis";
import { height, STEPS, standing, type Step } from "./ladder";
import { useStep } from "./useStep";

interface Props {
  readonly call: CallView;
  readonly me: Profile;
  readonly partner: Profile;
  /** The invitation to go up stands elsewhere, with its button. */
  readonly invited: boolean;
  readonly directInvited: boolean;
  /** It has a dialog to itself. */
  readonly alone?: boolean;
}

const IS = ["ladder.isVoice", "ladder.isBlurred", "ladder.isClear"] as const;

/** The steps as a line, with both faces where each of them stands. */
export function Track({ call, me, partner }: Pick<Props, "call" | "me" | "partner">) {
  const { t } = useSpeech();
  const [mine, theirs] = [height(call.mine.rung), height(call.theirs.rung)];
  const both = Math.min(mine, theirs);
  const names = [...STEPS, "direct" as const];
  const stands = (step: number, side: number, direct: boolean) => (step < STEPS.length ? side === step : direct);
  const reached = (step: number) => (step < STEPS.length ? step <= both : call.direct);

  return (
    <>
      <p className="sr-only">
        {t("ladder.stands", {
          mine: t(`ladder.${STEPS[mine] ?? "voice"}`),
          theirs: t(`ladder.${STEPS[theirs] ?? "voice"}`),
          name: partner.name,
        })}
      </p>
      <div aria-hidden="true" className="grid grid-cols-4">
        {names.map((name, step) => (
          <div key={name} className="flex flex-col items-center">
            <div className="flex h-6 items-end justify-center -space-x-1">
              {stands(step, mine, call.mine.direct) && <Face hue={me.hue} className="size-5.5" />}
              {stands(step, theirs, call.theirs.direct) && <Face hue={partner.hue} className="size-5.5" />}
            </div>
            <div className="relative mt-1.5 flex h-3 w-full items-center justify-center">
              {step > 0 && (
                <span
                  className={`absolute end-[calc(50%+0.5rem)] top-1/2 w-[calc(100%-1rem)] -translate-y-1/2 ${step < STEPS.length ? `h-0.5 ${reached(step) ? "bg-accent" : "bg-line"}` : "h-0 border-t-2 border-dotted border-line"}`}
                />
              )}
              <span
                className={`relative size-3 rounded-full border-2 ${reached(step) ? "border-accent bg-accent" : "border-edge bg-surface"}`}
              />
            </div>
            <span className={`mt-1 text-xs ${reached(step) ? "font-semibold text-ink" : "text-soft"}`}>{t(`ladder.${name}`)}</span>
          </div>
        ))}
      </div>
    </>
  );
}

export function StepButton({ step, look, compact = false }: { readonly step: Step; readonly look: "main" | "quiet"; readonly compact?: boolean }) {
  const { t } = useSpeech();
  const take = useStep();
  return (
    <Button look={look} size={compact ? "small" : "medium"} data-testid={step.testid} onClick={() => take(step)}>
      <Icon name={step.icon} className={compact ? "size-4.5" : "size-5"} />
      {t(step.label)}
    </Button>
  );
}

/** Everything the two can agree to, where both stand, and one's own next step: up by agreement, down at once. */
export function Ladder({ call, me, partner, invited, directInvited, alone = false }: Props) {
  const { t } = useSpeech();
  const visavis = useVisavis();
  const { up, down, waiting } = standing(call);
  const both = Math.min(height(call.mine.rung), height(call.theirs.rung));
  // In a low window the messages need the room; it is one press away.
  const tall = useMedia("(min-height: 50rem)");
  const direct = call.direct ? "on" : call.mine.direct ? "asked" : "off";

  return (
    <section
      aria-label={t("ladder.title")}
      data-testid="ladder"
      className={alone ? "" : "shrink-0 rounded-card border border-line bg-surface px-4 pt-3.5 pb-4 shadow-card"}
    >
      <Track call={call} me={me} partner={partner} />
      <p className="mt-3 text-center font-semibold">{t(waiting ?? IS[both] ?? IS[0], { name: partner.name })}</p>
      <p className="text-center text-sm text-soft">{t("ladder.rule")}</p>
      <div className="mt-3 flex flex-wrap justify-center gap-2 empty:hidden">
        {up !== null && !invited && <StepButton step={up} look="main" compact />}
        {down.map((step) => (
          <StepButton key={step.testid} step={step} look="quiet" compact />
        ))}
      </div>
      <details open={tall || alone} className="mt-3.5 border-t border-line pt-2.5 text-sm">
        <summary className="rounded-lg py-0.5 font-semibold">
          {direct === "on" ? t("direct.on") : direct === "asked" ? t("direct.waiting", { name: partner.name }) : t("direct.title")}
        </summary>
        {direct === "off" && (
          <p className="mt-1 text-soft">
            {t("direct.line")} {t("direct.note")}
          </p>
        )}
        <div className="mt-2 empty:hidden">
          {direct !== "off" ? (
            <Button size="small" data-testid="direct-withdraw" onClick={() => void visavis.agree({ direct: false })}>
              {t(direct === "on" && call.relay ? "direct.back" : "direct.takeBack")}
            </Button>
          ) : (
            !directInvited && (
              <Button size="small" data-testid="direct-agree" onClick={() => void visavis.agree({ direct: true })}>
                {t("direct.agree")}
              </Button>
            )
          )}
        </div>
      </details>
    </section>
  );
}

import { type SubmitEvent, type KeyboardEvent, useId, useRef, useState } from "react";
import { useSpeech } from "../i18n/useSpeech";
import type { SessionView } from "../model";
import { Button } from "../ui/Button";
import { EmptySeat, Face } from "../ui/Face";
import { Icon } from "../ui/Icon";
import { useArrival } from "./arrival";
import { birthDate, digits, order, type Part, type Parts } from "./birthDate";
import { problemWords } from "./problem";
import { TopBar } from "./TopBar";
import { useVisavis } from "./useVisavis";

type Props = Omit<Extract<SessionView, { phase: "welcome" }>, "phase" | "minimumAge">;

const RULES = ["welcome.rule1", "welcome.rule2", "welcome.rule3", "welcome.rule4", "welcome.rule5"] as const;
const AUTOCOMPLETE = { day: "bday-day", month: "bday-month", year: "bday-year" } as const;
const LENGTH: Readonly<Record<Part, number>> = { day: 2, month: 2, year: 4 };

/** The first visit. The age asked for is not mentioned: the question stays neutral. */
export function Welcome({ needs, busy, problem }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const [date, setDate] = useState<Parts>({ day: "", month: "", year: "" });
  const [accepted, setAccepted] = useState(false);
  const [wrong, setWrong] = useState<{ date: "missing" | "wrong" | null; rules: boolean }>({ date: null, rules: false });
  const heading = useRef<HTMLHeadingElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const ids = useId();
  useArrival(heading);

  function submit(event: SubmitEvent) {
    event.preventDefault();
    if (busy) return;
    const read = needs.birthDate ? birthDate(date, new Date()) : { iso: null };
    const now = { date: "wrong" in read ? read.wrong : null, rules: needs.rules && !accepted };
    setWrong(now);
    const first = now.date !== null ? "input[inputmode]" : now.rules ? "input[type=checkbox]" : null;
    if (first !== null) form.current?.querySelector<HTMLInputElement>(first)?.focus();
    else if ("iso" in read) void visavis.enter({ birthDate: read.iso, acceptRules: needs.rules && accepted });
  }

  /** Enter goes on to the next empty field, as the "next" key of a phone says. */
  function keyDown(event: KeyboardEvent<HTMLInputElement>) {
    if (event.key !== "Enter") return;
    const fields = Array.from(form.current?.querySelectorAll<HTMLInputElement>("input[inputmode]") ?? []);
    const next = fields.slice(fields.indexOf(event.currentTarget) + 1).find((field) => field.value === "");
    if (next === undefined) return;
    event.preventDefault();
    next.focus();
  }

  const error = (id: string, words: string) => (
    <p id={id} role="alert" className="mt-2 flex items-center gap-2 text-sm font-semibold text-accent-strong">
      <Icon name="alert" className="size-4.5" />
      {words}
    </p>
  );

  return (
    <div data-screen="welcome" className="screen flex flex-col">
      <TopBar />
      <main
        id="main"
        tabIndex={-1}
        className="mx-auto grid w-full grid-cols-[minmax(0,1fr)] max-w-2xl flex-1 lg:max-w-6xl content-start gap-8 pt-2 pb-8 lg:grid-cols-[minmax(0,1fr)_minmax(0,29rem)] lg:content-center lg:items-center lg:gap-20 lg:pb-20"
      >
        <div>
          <div className="mb-5 flex items-center gap-1.5 lg:mb-8 lg:gap-3" aria-hidden="true">
            <Face hue={40} gaze="end" className="size-14 lg:size-28" />
            <EmptySeat className="size-14 lg:size-28" />
          </div>
          <h1 ref={heading} tabIndex={-1} className="text-[2rem] leading-[1.12] font-bold tracking-tight lg:text-[3.5rem]">
            {t(needs.birthDate ? "welcome.title" : "welcome.again")}
          </h1>
          <p className="mt-3 max-w-[34ch] text-lg text-soft lg:mt-5 lg:text-xl">
            {t(needs.birthDate ? "welcome.line" : "welcome.againLine")}
          </p>
        </div>

        <form
          ref={form}
          noValidate
          onSubmit={submit}
          className="flex flex-col gap-7 lg:rounded-card lg:border lg:border-line lg:bg-surface lg:p-8 lg:shadow-card"
        >
          {needs.birthDate && (
            <fieldset aria-describedby={`${ids}-why${wrong.date === null ? "" : ` ${ids}-date`}`}>
              <legend className="mb-2.5 text-lg font-bold">{t("welcome.birthDate")}</legend>
              <div className="flex gap-3">
                {order(speech.tag).map((part) => (
                  <label key={part} className={`min-w-0 ${part === "year" ? "flex-[1.5]" : "flex-1"}`}>
                    <span className="mb-1 block text-sm text-soft">{t(`welcome.${part}`)}</span>
                    <input
                      type="text"
                      inputMode="numeric"
                      autoComplete={AUTOCOMPLETE[part]}
                      enterKeyHint="next"
                      value={date[part]}
                      aria-invalid={wrong.date !== null}
                      onKeyDown={keyDown}
                      onChange={(event) => {
                        setDate({ ...date, [part]: digits(event.target.value).slice(0, LENGTH[part]) });
                        setWrong({ ...wrong, date: null });
                      }}
                      className="h-13 w-full min-w-0 rounded-xl border border-edge bg-surface px-3.5 text-lg tabular-nums aria-invalid:border-accent-strong"
                    />
                  </label>
                ))}
              </div>
              {wrong.date !== null &&
                error(`${ids}-date`, t(wrong.date === "missing" ? "welcome.birthDateMissing" : "welcome.birthDateWrong"))}
              <p id={`${ids}-why`} className="mt-2 text-sm text-soft">
                {t("welcome.birthDateWhy")}
              </p>
            </fieldset>
          )}

          {needs.rules && (
            <section aria-labelledby={`${ids}-rules`}>
              <h2 id={`${ids}-rules`} className="mb-2.5 text-lg font-bold">
                {t("welcome.rules")}
              </h2>
              <ul className="flex flex-col gap-2 text-[0.95rem] leading-snug">
                {RULES.map((rule) => (
                  <li key={rule} className="flex gap-3">
                    <span aria-hidden="true" className="mt-[0.55em] size-1.5 shrink-0 rounded-full bg-accent" />
                    {t(rule)}
                  </li>
                ))}
              </ul>
              <label className="mt-4 flex min-h-11 items-center gap-3.5 font-semibold">
                <input
                  type="checkbox"
                  className="size-6 shrink-0"
                  checked={accepted}
                  aria-invalid={wrong.rules}
                  aria-describedby={wrong.rules ? `${ids}-accept` : undefined}
                  onChange={(event) => {
                    setAccepted(event.target.checked);
                    setWrong({ ...wrong, rules: false });
                  }}
                />
                {t("welcome.accept")}
              </label>
              {wrong.rules && error(`${ids}-accept`, t("welcome.acceptMissing"))}
            </section>
          )}

          <div>
            <Button type="submit" look="main" size="large" className="w-full" aria-disabled={busy} data-testid="enter">
              {t(busy ? "welcome.entering" : "welcome.enter")}
            </Button>
            {problem !== null && error(`${ids}-problem`, problemWords(speech, problem))}
          </div>
        </form>
      </main>
    </div>
  );
}

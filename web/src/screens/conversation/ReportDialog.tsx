import { type SubmitEvent, useId, useRef, useState } from "react";
import { type ErrorCode, MAX_REPORT_WORDS, MAX_REPORTED_FILES, MAX_REPORTED_MESSAGES, type ReportReason, type SharedFile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { ConversationView } from "../../model";
import { Button } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { useStore } from "../../useStore";
import { Quote } from "../files/Quote";
import { keptWords } from "../files/words";
import { problemWords } from "../problem";
import { useVisavis } from "../useVisavis";

interface Props {
  readonly conversation: ConversationView;
  readonly onClose: () => void;
}

const REASONS: readonly ReportReason[] = ["harassment", "sexual", "hate", "violence", "minor", "spam", "other"];
/** More than one can send, so that there is something to choose from. */
const OFFERED = 30;

/** Everything that leaves this device with a report is ticked or typed here, and nothing else. */
export function ReportDialog({ conversation, onClose }: Props) {
  const speech = useSpeech();
  const { t, tn } = speech;
  const visavis = useVisavis();
  const [reason, setReason] = useState<ReportReason | null>(null);
  const [words, setWords] = useState("");
  const [picked, setPicked] = useState<readonly string[]>([]);
  const [block, setBlock] = useState(!conversation.blocked);
  const [state, setState] = useState<"writing" | "missing" | "sending" | "done">("writing");
  const [problem, setProblem] = useState<ErrorCode | "unreachable" | null>(null);
  const form = useRef<HTMLFormElement>(null);
  const ids = useId();
  const { name } = conversation.partner;
  const { gone, limits } = useStore(visavis.files);
  /** Files that stay here although their message is told of. */
  const [without, setWithout] = useState<readonly string[]>([]);
  const isGone = ({ id }: SharedFile) => gone.has(id);
  const offered = conversation.messages.filter(({ mine, text }) => !mine && text !== null).slice(-OFFERED);
  const attached = offered
    .flatMap(({ id, file }) => (file !== null && picked.includes(id) && !isGone(file) && !without.includes(file.id) ? [file.id] : []))
    .slice(0, MAX_REPORTED_FILES);
  const withFile = offered.some(({ id, file }) => file !== null && picked.includes(id) && !isGone(file));
  const full = picked.length >= MAX_REPORTED_MESSAGES;

  async function submit(event: SubmitEvent) {
    event.preventDefault();
    if (state === "sending") return;
    if (reason === null) {
      setState("missing");
      form.current?.querySelector<HTMLInputElement>("input[type=radio]")?.focus();
      return;
    }
    setState("sending");
    const wrong = await visavis.report({ reason, words: words.trim(), messageIds: picked, fileIds: attached, block });
    setProblem(wrong);
    setState(wrong === null ? "done" : "writing");
  }

  if (state === "done")
    return (
      <Dialog title={t("report.doneTitle")} closeLabel={t("app.close")} onClose={onClose}>
        <p role="status" className="mt-1 text-soft" data-testid="report-done">
          {t("report.doneLine")} {block && t("report.doneBlocked", { name })}
        </p>
        <Button look="main" className="mt-6 w-full" onClick={onClose}>
          {t("settings.done")}
        </Button>
      </Dialog>
    );

  return (
    <Dialog wide title={t("report.title", { name })} closeLabel={t("app.close")} onClose={onClose}>
      <form ref={form} onSubmit={(event) => void submit(event)} className="mt-2 flex flex-col gap-6" noValidate>
        <fieldset className="min-w-0" aria-describedby={state === "missing" ? `${ids}-missing` : undefined}>
          <legend className="font-semibold">{t("report.reason")}</legend>
          <div className="mt-1.5 grid gap-x-4 sm:grid-cols-2">
            {REASONS.map((one) => (
              <label key={one} className="flex min-h-11 items-center gap-3 py-1">
                <input
                  type="radio"
                  name={`${ids}-reason`}
                  className="size-5 shrink-0"
                  checked={reason === one}
                  onChange={() => {
                    setReason(one);
                    setState("writing");
                  }}
                />
                {t(`report.${one}`)}
              </label>
            ))}
          </div>
          {state === "missing" && (
            <p id={`${ids}-missing`} role="alert" className="mt-1 text-sm font-semibold text-accent-strong">
              {t("report.reasonMissing")}
            </p>
          )}
        </fieldset>

        <fieldset className="min-w-0">
          <legend className="font-semibold">{t("report.messages")}</legend>
          {offered.length === 0 ? (
            <p className="mt-1 text-sm text-soft">{t("report.messagesNone", { name })}</p>
          ) : (
            <>
              <p className="mt-0.5 text-sm text-soft">
                {picked.length > 0
                  ? tn("report.chosen", picked.length)
                  : t("report.messagesHint", { max: MAX_REPORTED_MESSAGES })}
              </p>
              <ul className="mt-2 max-h-52 overflow-y-auto overscroll-contain rounded-xl border border-line bg-paper p-1">
                {offered.map((message) => {
                  const { id, file, at } = message;
                  const on = picked.includes(id);
                  return (
                    <li key={id}>
                      <label className="flex min-h-11 items-center gap-3 rounded-lg px-3 py-1.5 hover:bg-raised">
                        <input
                          type="checkbox"
                          data-testid="report-message"
                          className="size-5 shrink-0"
                          checked={on}
                          disabled={full && !on}
                          onChange={() => setPicked(on ? picked.filter((other) => other !== id) : [...picked, id])}
                        />
                        <span dir="auto" className="min-w-0 flex-1 truncate">
                          <Quote message={message} />
                        </span>
                        <time className="shrink-0 text-xs text-soft" dateTime={new Date(at).toISOString()}>
                          {speech.time(at)}
                        </time>
                      </label>
                      {on && file !== null && (
                        <p className="ps-11 pe-3 pb-1.5 text-sm">
                          {isGone(file) ? (
                            <span className="text-soft">{t("report.attachGone")}</span>
                          ) : (
                            <label className="inline-flex min-h-9 items-center gap-2.5">
                              <input
                                type="checkbox"
                                data-testid="report-attach"
                                className="size-4.5 shrink-0"
                                checked={attached.includes(file.id)}
                                disabled={attached.length >= MAX_REPORTED_FILES && !attached.includes(file.id)}
                                onChange={({ target }) =>
                                  setWithout(target.checked ? without.filter((other) => other !== file.id) : [...without, file.id])
                                }
                              />
                              {t("report.attach")}
                              <span className="sr-only">
                                <Quote message={message} />
                              </span>
                            </label>
                          )}
                        </p>
                      )}
                    </li>
                  );
                })}
              </ul>
              {withFile && limits !== null && (
                <p className="mt-2 text-sm text-soft">{t("report.attachLine", { time: keptWords(speech, limits.seconds) })}</p>
              )}
            </>
          )}
        </fieldset>

        <label className="block">
          <span className="font-semibold">{t("report.words")}</span>
          <textarea
            rows={3}
            dir={words === "" ? undefined : "auto"}
            maxLength={MAX_REPORT_WORDS}
            value={words}
            onChange={(event) => setWords(event.target.value)}
            className="mt-2 w-full resize-y rounded-xl border border-edge bg-surface px-3.5 py-2.5"
          />
        </label>

        {!conversation.blocked && (
          <label className="flex min-h-11 items-center gap-3">
            <input
              type="checkbox"
              className="size-5 shrink-0"
              checked={block}
              onChange={(event) => setBlock(event.target.checked)}
            />
            {t("report.alsoBlock", { name })}
          </label>
        )}

        <p className="rounded-xl bg-accent-wash px-4 py-3 text-sm">{t("report.what", { name })}</p>
        {problem !== null && (
          <p role="alert" className="text-sm font-semibold text-accent-strong">
            {problemWords(speech, problem)}
          </p>
        )}
        <div className="flex flex-wrap justify-end gap-3">
          <Button onClick={onClose}>{t("app.cancel")}</Button>
          <Button type="submit" look="main" data-testid="report-send" aria-disabled={state === "sending"}>
            {t(state === "sending" ? "report.sending" : "report.send")}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

import { type SubmitEvent, useEffect, useRef, useState } from "react";
import { type FileLimits, MAX_TEXT } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import { Button, IconButton } from "../../ui/Button";
import { Dialog } from "../../ui/Dialog";
import { Icon } from "../../ui/Icon";
import { plainLine } from "../../ui/plain";
import { useAnnounce } from "../announce";
import { useVisavis } from "../useVisavis";
import type { Chosen, Tray } from "./useTray";
import { fileIcon, keptWords, kindOf, refusalWords, sizeWords, typeWords } from "./words";

interface Props {
  readonly tray: Tray;
  readonly limits: FileLimits;
  readonly partnerName: string;
  /** Files are being dragged over the page. */
  readonly dragging: boolean;
  /** The message that the first of them answers. */
  readonly replyTo: string | null;
  /** They are on their way, and the draft with them or not. */
  readonly onSent: (draft: boolean) => void;
  readonly onClose: () => void;
}

/** A player for each of very many would be more than a phone can hold. */
const STILLS = 6;

interface PreviewProps {
  readonly chosen: Chosen;
  readonly large: boolean;
  readonly still: boolean;
}

function Preview({ chosen, large, still }: PreviewProps) {
  const [broken, setBroken] = useState(false);
  const { file, preview } = chosen;
  const kind = kindOf(file.type);
  const size = large ? "h-[min(15rem,30dvh)] w-full" : "size-16";
  if (preview === null || broken || (kind === "video" && !still))
    return (
      <span className="inline-flex size-16 shrink-0 items-center justify-center rounded-xl bg-raised text-soft">
        <Icon name={fileIcon({ kind, name: file.name })} className="size-7" />
      </span>
    );
  return (
    <span className={`block shrink-0 overflow-clip rounded-xl bg-raised ${size}`}>
      {kind === "video" ? (
        // One's own, still and silent.
        <video src={preview} muted playsInline preload="metadata" aria-hidden="true" tabIndex={-1} className="size-full object-contain" onError={() => setBroken(true)} />
      ) : (
        <img src={preview} alt="" loading="lazy" decoding="async" className={`size-full ${large ? "object-contain" : "object-cover"}`} onError={() => setBroken(true)} />
      )}
    </span>
  );
}

/** What was chosen, once more before it goes: what it is, why something cannot go, and words to go with it. */
export function TrayDialog({ tray, limits, partnerName, dragging, replyTo, onSent, onClose }: Props) {
  const speech = useSpeech();
  const { t, tn } = speech;
  const visavis = useVisavis();
  const announce = useAnnounce();
  const more = useRef<HTMLInputElement>(null);
  const list = useRef<HTMLUListElement>(null);
  const form = useRef<HTMLFormElement>(null);
  const { chosen } = tray;
  const good = chosen.filter(({ refused }) => refused === null);
  const bad = chosen.length - good.length;
  const alone = chosen.length === 1;

  // Ready to write at a desk; a phone's keyboard would cover what one came to look at.
  useEffect(() => {
    const touches = window.matchMedia("(hover: none)").matches;
    form.current?.querySelector<HTMLElement>(touches ? "[type=submit]" : "[data-testid=tray-caption]")?.focus({ preventScroll: true });
  }, []);

  function submit(event: SubmitEvent) {
    event.preventDefault();
    if (good.length === 0) return;
    visavis.share(good.map(({ file, text }, index) => ({ file, text: text.trim(), replyTo: index === 0 ? replyTo : null })));
    onSent(good.some(({ draft }) => draft));
  }

  function remove({ key, file }: Chosen) {
    if (alone) {
      onClose();
      return;
    }
    const index = chosen.findIndex((one) => one.key === key);
    tray.remove(key);
    announce(t("files.removed", { file: plainLine(file.name, 80) }));
    // The button goes with its file; the next one is the one to press now.
    requestAnimationFrame(() => {
      const buttons = list.current?.querySelectorAll<HTMLElement>("[data-testid=tray-remove]") ?? [];
      buttons[Math.min(index, buttons.length - 1)]?.focus();
    });
  }

  return (
    <Dialog title={t("files.trayTitle", { name: partnerName })} closeLabel={t("app.close")} onClose={onClose} wide>
      <form ref={form} data-testid="tray" onSubmit={submit} noValidate>
        <p className="text-sm text-soft">
          {t("files.trayLine", { name: partnerName, time: keptWords(speech, limits.seconds) })}
        </p>
        <ul
          ref={list}
          className={`mt-3 flex flex-col gap-2 rounded-2xl ${dragging ? "outline-3 outline-offset-4 outline-accent outline-dashed" : ""}`}
        >
          {chosen.map((one, index) => {
            const name = plainLine(one.file.name, 120);
            const large = alone && one.preview !== null && one.refused === null;
            return (
              <li
                key={one.key}
                data-testid="tray-item"
                data-refused={one.refused?.problem}
                className={`flex animate-said gap-x-3 gap-y-2 rounded-2xl border p-2 ${large ? "flex-col" : ""} ${one.refused === null ? "border-line" : "border-dashed border-edge"}`}
              >
                <Preview chosen={one} large={large} still={index < STILLS} />
                <div className="min-w-0 flex-1">
                  <div className="flex items-start gap-1">
                    <p className="min-w-0 flex-1 ps-1">
                      <span className="flex font-semibold">
                        <bdi className="min-w-0 truncate">{name}</bdi>
                      </span>
                      <span className="block text-sm text-soft">
                        {typeWords(speech, kindOf(one.file.type), one.file.name)} · {sizeWords(speech, one.file.size)}
                      </span>
                    </p>
                    <IconButton label={t("files.remove", { file: name })} data-testid="tray-remove" className="-me-0.5 size-11 rounded-xl" onClick={() => remove(one)}>
                      <Icon name="trash" />
                    </IconButton>
                  </div>
                  {one.refused === null ? (
                    <textarea
                      rows={1}
                      data-testid="tray-caption"
                      dir={one.text === "" ? undefined : "auto"}
                      value={one.text}
                      maxLength={MAX_TEXT}
                      autoComplete="off"
                      enterKeyHint="send"
                      placeholder={t("files.caption")}
                      aria-label={t("files.captionOf", { file: name })}
                      onChange={(event) => tray.write(one.key, event.target.value)}
                      onKeyDown={(event) => {
                        if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
                        event.preventDefault();
                        form.current?.requestSubmit();
                      }}
                      className="mt-1 block field-sizing-content max-h-32 min-h-11 w-full resize-none rounded-xl border border-edge bg-surface px-3 py-2.5"
                    />
                  ) : (
                    <p className="flex gap-1.5 ps-1 text-sm font-semibold text-accent-strong">
                      <Icon name="alert" className="mt-0.5 size-4" />
                      {refusalWords(speech, one.refused.problem, one.refused.limit)}
                    </p>
                  )}
                </div>
              </li>
            );
          })}
        </ul>
        <div className="sticky -bottom-px -mx-6 mt-4 -mb-6 border-t border-line bg-surface px-6 pt-3 pb-[max(1.25rem,env(safe-area-inset-bottom))]">
          <p role="status" className={bad > 0 ? "mb-2 text-sm text-soft" : "sr-only"}>
            {bad > 0 && tn("files.cannot", bad)}
          </p>
          <div className="flex flex-wrap gap-3">
            <Button className="flex-auto" onClick={() => more.current?.click()}>
              <Icon name="plus" />
              {t("files.addMore")}
            </Button>
            <Button type="submit" look="main" data-testid="tray-send" disabled={good.length === 0} className="flex-auto sm:min-w-52">
              <Icon name="send" className="size-5" />
              {good.length === 0 ? t("files.sendNone") : tn("files.send", good.length)}
            </Button>
          </div>
          <input
            ref={more}
            type="file"
            multiple
            hidden
            data-testid="tray-more"
            aria-label={t("files.addMore")}
            onChange={(event) => {
              tray.add(Array.from(event.target.files ?? []));
              event.target.value = "";
            }}
          />
        </div>
      </form>
    </Dialog>
  );
}

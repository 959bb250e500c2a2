import { type KeyboardEvent, lazy, type RefObject, Suspense, useEffect, useLayoutEffect, useRef, useState } from "react";
import { MAX_TEXT, type Profile } from "../../contract.gen";
import { useSpeech } from "../../i18n/useSpeech";
import type { MessageView } from "../../model";
import { IconButton } from "../../ui/Button";
import { Icon } from "../../ui/Icon";
import { Pop } from "../../ui/Pop";
import { useStore } from "../../useStore";
import { isVisible } from "../../visible";
import { Attach } from "../files/Attach";
import { Quote } from "../files/Quote";
import { VoiceButton } from "../files/VoiceButton";
import { useVisavis } from "../useVisavis";
import { EmojiPicker } from "./EmojiPicker";

const loadFiles = () => import("../files/parts");
const VoiceBar = lazy(async () => ({ default: (await loadFiles()).VoiceBar }));
const VoiceProblem = lazy(async () => ({ default: (await loadFiles()).VoiceProblem }));

interface Props {
  readonly fieldRef: RefObject<HTMLTextAreaElement | null>;
  readonly partner: Profile;
  readonly draft: string;
  readonly reply: MessageView | null;
  readonly onReplyCancel: () => void;
  readonly onDraft: (text: string) => void;
  /** Whether it was taken. */
  readonly onSay: (text: string) => boolean;
  readonly onFiles: (files: readonly File[]) => void;
  /** Sends what is recorded. */
  readonly onVoice: () => void;
  /** Up, in the empty box. */
  readonly onUp: () => void;
}

const NEAR_LIMIT = 200;
/** A whole book pasted by mistake would stop the page at every key. */
const MOST_TYPED = 5 * MAX_TEXT;
const TALLEST_PX = 176;

/** On a touch screen Enter is a new line: there is a button under the thumb. */
const touches = () => window.matchMedia("(hover: none) and (pointer: coarse)").matches;

export function Composer({ fieldRef, partner, draft, reply, onReplyCancel, onDraft, onSay, onFiles, onVoice, onUp }: Props) {
  const { t, tn } = useSpeech();
  const [text, setText] = useState(draft);
  // It may have gone with a file.
  const [lastDraft, setLastDraft] = useState(draft);
  if (draft !== lastDraft) {
    setLastDraft(draft);
    setText(draft);
  }
  const [picking, setPicking] = useState(false);
  const visavis = useVisavis();
  const { limits } = useStore(visavis.files);
  const voice = useStore(visavis.voice);
  const [held, setHeld] = useState<number | null>(null);
  const round = useRef<HTMLDivElement>(null);
  // The server counts characters, not UTF-16 units; counting them all matters only near the end.
  const left = text.length > MAX_TEXT - NEAR_LIMIT ? MAX_TEXT - Array.from(text).length : MAX_TEXT;
  const sendable = isVisible(text) && left >= 0;

  const speaks = limits?.kinds.includes("voice") === true;
  const recording = voice.phase !== "idle";
  const empty = !isVisible(text);

  // Out of sight, nothing is recorded.
  useEffect(() => () => void visavis.stopVoice(), [visavis]);

  // What had the focus is gone with the recording.
  useEffect(() => {
    const buttons = round.current;
    if (!recording) return;
    return () => {
      requestAnimationFrame(() => {
        if (document.activeElement === document.body) buttons?.querySelector("button")?.focus({ preventScroll: true });
      });
    };
  }, [recording]);

  useLayoutEffect(() => {
    const element = fieldRef.current;
    if (element === null) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, TALLEST_PX)}px`;
  }, [fieldRef, text]);

  function change(value: string) {
    setText(value);
    onDraft(value);
  }

  function send() {
    if (sendable && onSay(text)) setText("");
    fieldRef.current?.focus();
  }

  function insert(emoji: string) {
    const element = fieldRef.current;
    const from = element?.selectionStart ?? text.length;
    const to = element?.selectionEnd ?? text.length;
    change(text.slice(0, from) + emoji + text.slice(to));
    setPicking(false);
    requestAnimationFrame(() => {
      element?.focus();
      element?.setSelectionRange(from + emoji.length, from + emoji.length);
    });
  }

  function keyDown(event: KeyboardEvent<HTMLTextAreaElement>) {
    if (event.nativeEvent.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey && !touches()) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && text === "") {
      event.preventDefault();
      onUp();
    } else if (event.key === "Escape" && reply !== null) {
      event.preventDefault();
      onReplyCancel();
    }
  }

  return (
    <form
      className="shrink-0 border-t border-line px-3 pt-2.5 pb-[max(0.75rem,env(safe-area-inset-bottom))] sm:px-4 lg:pb-4"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {reply !== null && (
        <div className="mb-2 flex animate-said items-center gap-2 rounded-xl bg-raised py-1 ps-3.5">
          <p className="min-w-0 flex-1 text-sm">
            <span className="block font-semibold">{reply.mine ? t("chat.replyToYou") : t("chat.replyTo", { name: partner.name })}</span>
            <span dir="auto" className="block truncate text-soft">
              <Quote message={reply} />
            </span>
          </p>
          <IconButton label={t("chat.replyCancel")} onClick={onReplyCancel}>
            <Icon name="close" />
          </IconButton>
        </div>
      )}
      {voice.problem !== null && !recording && (
        <Suspense fallback={null}>
          <VoiceProblem problem={voice.problem} />
        </Suspense>
      )}
      <div className="flex items-end gap-1.5">
        {recording && (
          <Suspense fallback={<div className="min-h-12.5 flex-1 rounded-3xl border border-edge bg-surface" />}>
            <VoiceBar voice={voice} held={held} />
          </Suspense>
        )}
        <div className={`min-w-0 flex-1 items-end rounded-3xl ${recording ? "hidden" : "flex"} border border-edge bg-surface focus-within:outline-2.5 focus-within:outline-offset-1 focus-within:outline-accent-strong`}>
          {limits !== null && <Attach onFiles={onFiles} />}
          <textarea
            ref={fieldRef}
            data-testid="composer"
            rows={1}
            dir={text === "" ? undefined : "auto"}
            value={text}
            aria-label={t("chat.compose")}
            placeholder={t("chat.composeTo", { name: partner.name })}
            aria-invalid={left < 0}
            enterKeyHint="enter"
            maxLength={MOST_TYPED}
            onChange={(event) => change(event.target.value)}
            onKeyDown={keyDown}
            className={`min-h-12 min-w-0 flex-1 resize-none bg-transparent py-[0.7rem] leading-[1.6rem] outline-none ${limits === null ? "ps-4.5" : "ps-1"}`}
          />
          <Pop
            open={picking}
            onOpenChange={setPicking}
            label={t("chat.emoji")}
            trigger={(props) => (
              <IconButton label={t("chat.emoji")} className="m-0.5 size-11 rounded-full" {...props}>
                <Icon name="smile" className="size-6" />
              </IconButton>
            )}
          >
            <EmojiPicker onPick={insert} itemLabel={(emoji) => emoji} />
          </Pop>
        </div>
        <div ref={round} className="flex shrink-0 gap-1.5">
          {voice.phase !== "preview" && speaks && (recording || empty) && <VoiceButton phase={voice.phase} onHeld={setHeld} />}
          {recording && voice.phase !== "asking" && held === null && (
            <button
              key={voice.phase}
              type="button"
              data-testid="voice-send"
              aria-label={t("voice.send")}
              title={t("voice.send")}
              className="inline-flex size-12 shrink-0 items-center justify-center rounded-full bg-accent text-on-accent transition-colors duration-150 hover:bg-accent-strong"
              onClick={onVoice}
            >
              <Icon name="send" className="size-6" />
            </button>
          )}
          {!recording && !(speaks && empty) && (
            <button
              type="submit"
              data-testid="send"
              aria-label={t("chat.send")}
              title={t("chat.send")}
              aria-disabled={!sendable}
              className="inline-flex size-12 shrink-0 items-center justify-center rounded-full bg-accent text-on-accent transition-colors duration-150 hover:bg-accent-strong aria-disabled:bg-raised aria-disabled:text-soft"
            >
              <Icon name="send" className="size-6" />
            </button>
          )}
        </div>
      </div>
      {left <= NEAR_LIMIT && (
        <p role="status" className={`mt-1.5 ps-4 text-sm ${left < 0 ? "font-semibold text-accent-strong" : "text-soft"}`}>
          {left < 0 ? tn("chat.over", -left) : tn("chat.left", left)}
        </p>
      )}
    </form>
  );
}

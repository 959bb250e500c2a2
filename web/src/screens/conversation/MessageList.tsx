import { Fragment, type KeyboardEvent, useEffect, useLayoutEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { ConversationView, MessageView } from "../../model";
import { Icon } from "../../ui/Icon";
import { Uploads } from "../files/Uploads";
import { useNow } from "../useNow";
import { useVisavis } from "../useVisavis";
import { CallLineItem } from "./CallLineItem";
import { type ItemActions, MessageItem } from "./MessageItem";
import { callsAfter, rows } from "./rows";

interface Props {
  readonly conversation: ConversationView;
  readonly myHue: number;
  readonly onReply: (message: MessageView) => void;
  readonly onRemove: (message: MessageView) => void;
  readonly onRetry: (message: MessageView) => void;
  readonly onReact: (message: MessageView, emoji: string | null) => void;
  /** Whether the newest message is in view. */
  readonly onBottom: (atBottom: boolean) => void;
  /** Leaves the list for the message box. */
  readonly onEscape: () => void;
}

const NEAR_BOTTOM_PX = 72;

/** Scrolling by script does not ask for less motion by itself. */
const glide = (): ScrollBehavior =>
  window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "instant" : "smooth";

export function MessageList({ conversation, myHue, onReply, onRemove, onRetry, onReact, onBottom, onEscape }: Props) {
  const { t, tn, time, day } = useSpeech();
  const { messages, calls, partner, unread } = conversation;
  const over = conversation.ended !== null;
  const now = useNow(60_000);
  const scroller = useRef<HTMLDivElement>(null);
  const pinned = useRef(true);
  const held = useRef(false);
  const [atBottom, setAtBottom] = useState(true);
  const [chosen, setChosen] = useState<string | null>(null);
  const list = useMemo(() => rows(messages, calls), [messages, calls]);
  const { uploads } = useVisavis();
  const sending = useSyncExternalStore(uploads.subscribe, () => uploads.get().length);
  const phases = useSyncExternalStore(uploads.subscribe, () => uploads.get().map(({ phase }) => phase).join());

  // Where the unseen ones began; it stays until one has answered, so that the eye finds the place.
  const newestMine = messages.findLast((message) => message.mine)?.id ?? null;
  const [unseen, setUnseen] = useState({ count: 0, from: null as string | null, answered: newestMine });
  if (unseen.count !== unread || unseen.answered !== newestMine) {
    const theirs = messages.filter((message) => !message.mine);
    const from = unread > 0 && unseen.count === 0 ? (theirs.at(-unread)?.id ?? null) : unseen.from;
    setUnseen({ count: unread, from: unseen.answered === newestMine ? from : null, answered: newestMine });
  }

  function settle(bottom: boolean) {
    pinned.current = bottom;
    if (bottom === atBottom) return;
    setAtBottom(bottom);
    onBottom(bottom);
  }

  function toNewest(smooth: boolean) {
    const element = scroller.current;
    element?.scrollTo({ top: element.scrollHeight, behavior: smooth ? glide() : "instant" });
  }

  // One's own new message is always shown; a partner's only if one was reading at the end.
  useLayoutEffect(() => {
    if (pinned.current) toNewest(false);
  }, [messages, calls, conversation.typing, phases]);
  useLayoutEffect(() => {
    pinned.current = true;
    toNewest(false);
  }, [newestMine, sending]);

  // A keyboard that opens, or a composer that grows, must not push the newest out of sight.
  useEffect(() => {
    const element = scroller.current;
    if (element === null || !("ResizeObserver" in window)) return;
    const observer = new ResizeObserver(() => {
      if (pinned.current) toNewest(false);
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);

  function focusMessage(id: string | undefined) {
    if (id === undefined) return;
    setChosen(id);
    document.getElementById(`message-${id}`)?.focus();
  }

  const actions = useStable<ItemActions>({
    react: onReact,
    retry: onRetry,
    remove: onRemove,
    reply(message) {
      setChosen(null);
      onReply(message);
    },
    hold(now) {
      held.current = now;
    },
    choose(id, by) {
      if (held.current) return;
      setChosen((last) => (by === "tap" && last === id ? null : id));
    },
    jump(id) {
      const element = document.getElementById(`message-${id}`);
      element?.scrollIntoView({ block: "center", behavior: glide() });
      element?.focus({ preventScroll: true });
    },
    keyDown(event: KeyboardEvent<HTMLElement>, message) {
      const index = messages.indexOf(message);
      const to = { ArrowUp: index - 1, ArrowDown: index + 1, Home: 0, End: messages.length - 1 }[event.key];
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (to !== undefined && to >= 0) {
        event.preventDefault();
        if (to >= messages.length) onEscape();
        else focusMessage(messages[to]?.id);
      } else if (event.target !== event.currentTarget) return;
      else if (event.key === "Escape") {
        event.preventDefault();
        onEscape();
      } else if (event.key.toLowerCase() === "r" && !over && !message.deleted) {
        event.preventDefault();
        onReply(message);
      } else if (event.key === "Delete" && message.mine && !over && !message.deleted) {
        event.preventDefault();
        onRemove(message);
      }
    },
  });

  const stop = messages.some((message) => message.id === chosen) ? chosen : (messages.at(-1)?.id ?? null);

  return (
    <div className="relative flex min-h-0 flex-1 flex-col">
      <div
        ref={scroller}
        role="log"
        aria-label={t("chat.messages")}
        aria-live="polite"
        aria-relevant="additions"
        className="flex-1 overflow-x-clip overflow-y-auto overscroll-contain px-4 sm:px-6"
        onScroll={(event) => {
          const { scrollHeight, scrollTop, clientHeight } = event.currentTarget;
          settle(scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX);
        }}
        onPointerLeave={(event) => {
          if (event.pointerType === "mouse" && !held.current && !scroller.current?.contains(document.activeElement))
            setChosen(null);
        }}
      >
        {/* Few messages sit at the bottom, where one writes. */}
        <ol className="flex min-h-full flex-col justify-end pt-12 pb-3">
          {list.map(({ calls: between, message, stamp, first, last }) => (
            <Fragment key={message.id}>
              {between.map((line) => (
                <CallLineItem key={line.id} line={line} partnerName={partner.name} />
              ))}
              {stamp !== null && (
                <li className="mt-6 mb-1 self-center text-xs font-medium text-soft first:mt-0">
                  {stamp === "day" || day(message.at, now) !== t("chat.today") ? `${day(message.at, now)} · ` : ""}
                  <time dateTime={new Date(message.at).toISOString()}>{time(message.at)}</time>
                </li>
              )}
              {message.id === unseen.from && (
                <li data-testid="divider" className="mt-5 mb-1 flex items-center gap-3 text-xs font-semibold text-accent-strong before:h-px before:flex-1 before:bg-current after:h-px after:flex-1 after:bg-current">
                  {t("chat.new")}
                </li>
              )}
              <MessageItem
                message={message}
                partnerName={partner.name}
                hue={message.mine ? myHue : partner.hue}
                first={first}
                last={last}
                stop={message.id === stop}
                chosen={message.id === chosen}
                newestMine={message.id === newestMine}
                over={over}
                actions={actions}
              />
            </Fragment>
          ))}
          {callsAfter(messages, calls).map((line) => (
            <CallLineItem key={line.id} line={line} partnerName={partner.name} />
          ))}
          <Uploads hue={myHue} />
        </ol>
      </div>
      {!atBottom && (
        <button
          type="button"
          data-testid="newest"
          onClick={() => toNewest(true)}
          className="absolute inset-x-0 bottom-3 z-20 mx-auto inline-flex min-h-11 w-fit animate-arrive items-center gap-2 rounded-full border border-line bg-surface px-4.5 text-sm font-semibold shadow-float"
        >
          <Icon name="down" className="size-4.5" />
          {unread > 0 ? tn("chat.unread", unread) : t("chat.newest")}
        </button>
      )}
    </div>
  );
}

/** Functions that always do the newest thing but never change themselves, so that messages need not render again. */
function useStable<T extends object>(functions: T): T {
  const newest = useRef(functions);
  useLayoutEffect(() => {
    newest.current = functions;
  });
  const [stable] = useState(() => {
    const wrap = (name: keyof T) => (...given: unknown[]) => (newest.current[name] as (...given: unknown[]) => unknown)(...given);
    return Object.fromEntries(Object.keys(functions).map((name) => [name, wrap(name as keyof T)])) as T;
  });
  return stable;
}

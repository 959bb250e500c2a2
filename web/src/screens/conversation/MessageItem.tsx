import { type KeyboardEvent, memo, type PointerEvent } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { MessageView } from "../../model";
import { Icon } from "../../ui/Icon";
import { MessageText } from "../../ui/MessageText";
import { plainLine } from "../../ui/plain";
import { Expiry, FileBody, isWide } from "../files/FileBody";
import { Quote } from "../files/Quote";
import { DELIVERY_ICONS, DELIVERY_WORDS } from "./delivery";
import { type MessageActions, MessageTools } from "./MessageTools";

export interface ItemActions extends MessageActions {
  readonly choose: (id: string, by: "hover" | "focus" | "tap") => void;
  readonly jump: (id: string) => void;
  readonly retry: (message: MessageView) => void;
  readonly keyDown: (event: KeyboardEvent<HTMLElement>, message: MessageView) => void;
}

interface Props {
  readonly message: MessageView;
  readonly partnerName: string;
  /** Of who said it. */
  readonly hue: number;
  readonly first: boolean;
  readonly last: boolean;
  /** The one message that Tab reaches. */
  readonly stop: boolean;
  readonly chosen: boolean;
  /** The newest of one's own: its state is shown in words without asking. */
  readonly newestMine: boolean;
  /** The conversation is over. */
  readonly over: boolean;
  readonly actions: ItemActions;
}

export const MessageItem = memo(function MessageItem(props: Props) {
  const { message, partnerName, hue, first, last, stop, chosen, newestMine, over, actions } = props;
  const { t, time, dateTime } = useSpeech();
  const { mine, delivery } = message;
  const trouble = delivery === "failed" || delivery === "lost";
  const showsState = mine && delivery !== null && !message.deleted && (newestMine || chosen || trouble);
  const corner = last ? (mine ? "rounded-ee-md" : "rounded-es-md") : "";

  return (
    // One stop for Tab, then the arrows: a hundred messages must not be a hundred stops. What can be done with
    // a message are the buttons inside it.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions
    <li
      id={`message-${message.id}`}
      data-testid="message"
      data-message-id={message.id}
      data-mine={mine}
      data-delivery={delivery ?? undefined}
      data-ring
      // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
      tabIndex={stop ? 0 : -1}
      onFocus={() => actions.choose(message.id, "focus")}
      onKeyDown={(event) => actions.keyDown(event, message)}
      // Not by entering: it may have come to lie under a pointer that rests.
      onPointerMove={(event: PointerEvent) => event.pointerType === "mouse" && !chosen && actions.choose(message.id, "hover")}
      className={`group flex animate-said flex-col rounded-2xl ${mine ? "items-end" : "items-start"} ${first ? "mt-4" : "mt-1"}`}
    >
      <span className="sr-only">{mine ? t("chat.youSaid") : t("chat.theySaid", { name: partnerName })}: </span>
      <div className={`relative flex max-w-[86%] flex-col sm:max-w-[78%] ${mine ? "items-end" : "items-start"}`}>
        {chosen && !message.deleted && <MessageTools message={message} over={over} actions={actions} />}
        {/* A tap on a touch screen chooses the message; with a keyboard the focus does. */}
        {/* eslint-disable-next-line jsx-a11y/click-events-have-key-events, jsx-a11y/no-static-element-interactions */}
        <div
          style={{ "--hue": hue }}
          onClick={(event) => {
            const touched = event.nativeEvent instanceof window.PointerEvent && event.nativeEvent.pointerType !== "mouse";
            if (!touched || !(event.target instanceof Element)) return;
            // What has a use of its own never puts the tools away.
            const used = event.target.closest("a, button, video, [role=slider]") !== null;
            actions.choose(message.id, used ? "focus" : "tap");
          }}
          className={
            message.deleted
              ? "max-w-full rounded-2xl border border-dashed border-edge px-4 py-2 text-soft italic"
              : `max-w-full min-w-0 rounded-[1.25rem] ${isWide(message.file) ? "p-1" : "px-4 py-2.5"} ${corner} ${mine ? "hue-deep" : "hue-tint"}`
          }
        >
          {message.replyTo !== null && !message.deleted && (
            <button
              type="button"
              title={t("chat.jump")}
              onClick={() => message.replyTo !== null && actions.jump(message.replyTo.id)}
              className="mb-2 block w-full min-w-24 rounded-xl border-s-3 border-current bg-[color-mix(in_oklab,currentColor_10%,transparent)] px-3 py-1.5 text-start text-sm"
            >
              <span className="block font-semibold">
                {message.replyTo.mine ? t("chat.you") : <bdi>{partnerName}</bdi>}
              </span>
              <span dir="auto" className="line-clamp-2 [overflow-wrap:anywhere]">
                <Quote message={message.replyTo} />
              </span>
            </button>
          )}
          {message.deleted || message.text === null ? (
            <p>{t(mine ? "chat.deletedMine" : "chat.deletedTheirs")}</p>
          ) : (
            <>
              {message.file !== null && <FileBody file={message.file} mine={mine} partnerName={partnerName} />}
              {(message.text !== "" || message.file === null) && (
                // As wide as what it goes with, not wider.
                <div className={message.file === null ? "" : `w-0 min-w-full ${isWide(message.file) ? "px-3 pt-1.5 pb-1" : "pt-2"}`}>
                  <MessageText text={message.text} opensNew={t("chat.opensNew")} more={t("chat.more")} less={t("chat.less")} />
                </div>
              )}
            </>
          )}
        </div>
        {message.reactions.length > 0 && !message.deleted && (
          <ul className={`-mt-1.5 flex gap-1 px-2 ${mine ? "justify-end" : ""}`}>
            {message.reactions.map((reaction) => (
              <li key={String(reaction.mine)} className="flex animate-said rounded-full border border-line bg-surface text-base leading-none shadow-card">
                {reaction.mine && !over ? (
                  <button
                    type="button"
                    tabIndex={chosen ? 0 : -1}
                    className="min-h-7 rounded-full px-2"
                    aria-label={t("chat.unreact", { emoji: reaction.emoji })}
                    onClick={() => actions.react(message, null)}
                  >
                    {plainLine(reaction.emoji, 8)}
                  </button>
                ) : (
                  <span className="px-2 py-1.5">
                    <span className="sr-only">
                      {reaction.mine
                        ? t("chat.reactedYou", { emoji: "" })
                        : t("chat.reactedThem", { name: partnerName, emoji: "" })}
                    </span>
                    {plainLine(reaction.emoji, 8)}
                  </span>
                )}
              </li>
            ))}
          </ul>
        )}
      </div>
      <p className={`flex items-center gap-1.5 px-1 text-xs text-soft ${showsState || chosen ? "mt-1" : "sr-only"}`}>
        {/* Changing states are for the eye and for whoever asks, not to be read out each time. */}
        {mine && delivery !== null && !message.deleted && (
          <span aria-live="off" className={`flex items-center gap-1 ${trouble ? "font-semibold text-accent-strong" : ""}`}>
            <Icon name={DELIVERY_ICONS[delivery]} className={`size-4 ${delivery === "read" ? "text-accent-strong" : ""}`} />
            {t(DELIVERY_WORDS[delivery])}
          </span>
        )}
        {mine && delivery === "failed" && !over && (
          <button
            type="button"
            onClick={() => actions.retry(message)}
            className="inline-flex min-h-7 items-center gap-1 rounded-md px-1.5 font-semibold text-accent-strong underline underline-offset-3"
          >
            <Icon name="retry" className="size-3.5" />
            {t("chat.retry")}
          </button>
        )}
        <time dateTime={new Date(message.at).toISOString()} title={dateTime(message.at)} className={chosen || !mine ? "" : "sr-only"}>
          {time(message.at)}
        </time>
        {chosen && message.file !== null && message.file.kind !== "document" && !message.deleted && <Expiry file={message.file} />}
      </p>
    </li>
  );
});

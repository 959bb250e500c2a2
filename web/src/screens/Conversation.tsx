import { use, useEffect, useRef, useState } from "react";
import type { Profile } from "../contract.gen";
import { useSpeech } from "../i18n/useSpeech";
import type { ConversationView } from "../model";
import { Face } from "../ui/Face";
import { useStore } from "../useStore";
import { useAnnounce } from "./announce";
import { ArrivalContext } from "./arrival";
import { BlockDialog } from "./conversation/BlockDialog";
import { Composer } from "./conversation/Composer";
import { DeleteDialog } from "./conversation/DeleteDialog";
import { Ended } from "./conversation/Ended";
import { MessageList } from "./conversation/MessageList";
import { PartnerCard, SideLogo, whyWords } from "./conversation/PartnerCard";
import { ReportDialog } from "./conversation/ReportDialog";
import { Skip } from "./conversation/Skip";
import { useVisavis } from "./useVisavis";
import { useWatching } from "./useWatching";

type Open = { readonly what: "block" | "report" } | { readonly what: "delete"; readonly id: string };

interface Props {
  readonly conversation: ConversationView;
  readonly me: Profile;
}

export default function Conversation({ conversation, me }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const visavis = useVisavis();
  const search = useStore(visavis.search);
  const announce = useAnnounce();
  const arrive = use(ArrivalContext);
  const [atBottom, setAtBottom] = useState(true);
  const [replyId, setReplyId] = useState<string | null>(null);
  const [open, setOpen] = useState<Open | null>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const { partner, messages, ended } = conversation;
  const reply = messages.find(({ id, deleted }) => id === replyId && !deleted) ?? null;
  const meeting = `${t("chat.matched", { name: partner.name })} ${whyWords(speech, conversation.why)}.`;

  useWatching(atBottom);

  // Ready to write at a desk; on a phone the keyboard must not jump up by itself. The end has a focus of its own.
  const writable = useRef(ended === null);
  useEffect(() => {
    const arrived = arrive();
    if (!writable.current) return;
    const target = window.matchMedia("(hover: none)").matches ? heading : field;
    if (arrived || target === field) target.current?.focus({ preventScroll: true });
  }, [arrive]);
  useEffect(() => announce(meeting), [announce, meeting]);

  function toComposer() {
    (field.current ?? heading.current)?.focus();
  }

  function closeDialog() {
    setOpen(null);
    // The dialog gives the focus back to what opened it, which may be gone or no longer the thing to do.
    requestAnimationFrame(() => {
      const another = document.querySelector<HTMLElement>("[data-after-dialog]");
      if (another !== null) another.focus();
      else if (document.activeElement === document.body) toComposer();
    });
  }

  return (
    <div
      data-screen="conversation"
      data-conversation-id={conversation.id}
      className="screen-fixed flex flex-col lg:grid lg:grid-cols-[19rem_minmax(0,46rem)] lg:grid-rows-[auto_minmax(0,1fr)] lg:justify-center lg:gap-x-8 lg:gap-y-5 lg:p-6"
      style={{ "--hue": partner.hue }}
    >
      <SideLogo />
      <PartnerCard
        conversation={conversation}
        me={me}
        heading={heading}
        onBlock={() => setOpen({ what: "block" })}
        onReport={() => setOpen({ what: "report" })}
      >
        {ended === null && <Skip onSkip={() => void visavis.skip()} />}
      </PartnerCard>
      <main
        id="main"
        tabIndex={-1}
        className="flex min-h-0 flex-1 flex-col lg:col-start-2 lg:row-span-2 lg:row-start-1 lg:overflow-clip lg:rounded-card lg:border lg:border-line lg:bg-surface lg:shadow-card"
      >
        <h2 className="sr-only">{t("chat.title", { name: partner.name })}</h2>
        {messages.length === 0 && (
          <div className="flex min-h-0 flex-1 flex-col items-center justify-center gap-3 p-6 text-center">
            <div className="flex items-center gap-1.5" aria-hidden="true">
              <Face hue={me.hue} gaze="end" className="size-16" />
              <Face hue={partner.hue} gaze="start" className="size-16" />
            </div>
            <p className="text-xl font-bold">{t("chat.hello", { name: partner.name })}</p>
            <p className="max-w-[38ch] text-soft">{t("chat.helloLine")}</p>
          </div>
        )}
        <div className={messages.length === 0 ? "hidden" : "contents"}>
          <MessageList
            key={conversation.id}
            conversation={conversation}
            myHue={me.hue}
            onReply={(message) => {
              setReplyId(message.id);
              field.current?.focus();
            }}
            onRemove={(message) => setOpen({ what: "delete", id: message.id })}
            onRetry={(message) => visavis.retry(message.id)}
            onReact={(message, emoji) => visavis.react(message.id, emoji)}
            onBottom={setAtBottom}
            onEscape={toComposer}
          />
        </div>
        {ended === null && (
          <div className="flex min-h-6 shrink-0 items-center px-5 text-sm text-soft sm:px-7">
            {conversation.presence === "away" ? (
              <p>{t("chat.awayLine", { name: partner.name })}</p>
            ) : (
              conversation.typing && (
                <p className="flex items-center gap-2" aria-hidden="true">
                  <span className="flex gap-1">
                    <span className="size-1.5 animate-dot rounded-full bg-current" />
                    <span className="size-1.5 animate-dot rounded-full bg-current [animation-delay:0.18s]" />
                    <span className="size-1.5 animate-dot rounded-full bg-current [animation-delay:0.36s]" />
                  </span>
                  <bdi>{partner.name}</bdi>
                </p>
              )
            )}
          </div>
        )}
        {ended === null ? (
          <Composer
            key={`composer-${conversation.id}`}
            fieldRef={field}
            partner={partner}
            draft={conversation.draft}
            reply={reply}
            onReplyCancel={() => setReplyId(null)}
            onDraft={(text) => visavis.setDraft(text)}
            onSay={(text) => {
              const taken = visavis.say(text, reply?.id ?? null);
              if (taken) setReplyId(null);
              return taken;
            }}
            onUp={() => {
              const last = messages.at(-1);
              if (last !== undefined) document.getElementById(`message-${last.id}`)?.focus();
            }}
          />
        ) : (
          <Ended
            conversation={conversation}
            problem={search.phase === "idle" ? search.problem : null}
            onAnother={() => void visavis.skip()}
            onLobby={() => visavis.close()}
          />
        )}
      </main>
      {open?.what === "block" && <BlockDialog conversation={conversation} onClose={closeDialog} />}
      {open?.what === "report" && <ReportDialog conversation={conversation} onClose={closeDialog} />}
      {open?.what === "delete" && (
        <DeleteDialog partnerName={partner.name} onDelete={() => visavis.remove(open.id)} onClose={closeDialog} />
      )}
    </div>
  );
}

import { lazy, Suspense, use, useCallback, useEffect, useEffectEvent, useMemo, useRef, useState, useSyncExternalStore } from "react";
import type { Profile } from "../contract.gen";
import { useSpeech } from "../i18n/useSpeech";
import type { ConversationView } from "../model";
import { Button, IconButton } from "../ui/Button";
import { Face } from "../ui/Face";
import { Icon } from "../ui/Icon";
import { useStore } from "../useStore";
import { CountDown } from "./CountDown";
import { useAnnounce } from "./announce";
import { ArrivalContext } from "./arrival";
import { useInvitations } from "./call/useInvitations";
import { useNews } from "./call/useNews";
import { BlockDialog } from "./conversation/BlockDialog";
import { Composer } from "./conversation/Composer";
import { DeleteDialog } from "./conversation/DeleteDialog";
import { Ended } from "./conversation/Ended";
import { MessageList } from "./conversation/MessageList";
import { PartnerCard, SideLogo, whyWords } from "./conversation/PartnerCard";
import { ReportDialog } from "./conversation/ReportDialog";
import { Skip } from "./conversation/Skip";
import { type Shelf, ShelfContext } from "./files/useFiles";
import { useIncoming } from "./files/useIncoming";
import { useOneAtATime } from "./files/useSound";
import { useTray } from "./files/useTray";
import { keptWords } from "./files/words";
import { useMedia } from "./useMedia";
import { useVisavis } from "./useVisavis";
import { useWatching } from "./useWatching";

const loadCall = () => import("./call/parts");
const DeviceDialog = lazy(async () => ({ default: (await loadCall()).DeviceDialog }));
const Incoming = lazy(async () => ({ default: (await loadCall()).Incoming }));
const Ladder = lazy(async () => ({ default: (await loadCall()).Ladder }));
const Outgoing = lazy(async () => ({ default: (await loadCall()).Outgoing }));
const Stage = lazy(async () => ({ default: (await loadCall()).Stage }));

const loadFiles = () => import("./files/parts");
const DropArea = lazy(async () => ({ default: (await loadFiles()).DropArea }));
const Lightbox = lazy(async () => ({ default: (await loadFiles()).Lightbox }));
const TrayDialog = lazy(async () => ({ default: (await loadFiles()).TrayDialog }));

/** A call to be asked for or answered, once the devices are as they should be. */
interface Check {
  readonly answers: boolean;
  readonly what: "voice" | "video";
}

type Open = { readonly what: "block" | "report" } | { readonly what: "delete"; readonly id: string };

interface Props {
  readonly conversation: ConversationView;
  readonly me: Profile;
}

export default function Conversation({ conversation, me }: Props) {
  const speech = useSpeech();
  const { t, tn } = speech;
  const visavis = useVisavis();
  const search = useStore(visavis.search);
  const { modes } = useStore(visavis.lobby);
  const call = useStore(visavis.call);
  const announce = useAnnounce();
  const arrive = use(ArrivalContext);
  const [atBottom, setAtBottom] = useState(true);
  const [replyId, setReplyId] = useState<string | null>(null);
  const [open, setOpen] = useState<Open | null>(null);
  const [check, setCheck] = useState<Check | null>(null);
  const opener = useRef<Element | null>(null);
  const [chatOpen, setChatOpen] = useState(false);
  const wide = useMedia("(min-width: 64rem)");
  const field = useRef<HTMLTextAreaElement>(null);
  const heading = useRef<HTMLHeadingElement>(null);
  const { partner, messages, calls, unread, ended } = conversation;
  const waitsUntil = conversation.waitsUntil ?? null;
  const inCall = call !== null && ended === null && call.phase !== "calling" && call.phase !== "ringing";
  const ringing = call?.phase === "ringing" && ended === null;
  const calling = call?.phase === "calling" && ended === null;
  const readable = !inCall || wide || chatOpen;
  const invitations = useInvitations(inCall ? call : null);
  const talks = modes.includes("voice") || modes.includes("video");
  const reply = messages.find(({ id, deleted }) => id === replyId && !deleted) ?? null;
  const meeting = `${t("chat.matched", { name: partner.name })} ${whyWords(speech, conversation.why)}.`;

  const { limits } = useStore(visavis.files);
  const uploading = useSyncExternalStore(visavis.uploads.subscribe, () => visavis.uploads.get().length > 0);
  const tray = useTray();
  const takes = limits !== null && ended === null;
  const dragging = useIncoming(takes, addFiles);
  const [looking, setLooking] = useState<string | null>(null);
  const shelf = useShelfOf(setLooking);
  useOneAtATime();

  // A call has the microphone for itself, and nobody records in a place that is put away.
  useEffect(() => {
    if (inCall) void visavis.stopVoice();
  }, [visavis, inCall, readable]);

  useWatching(atBottom && readable);
  useNews(ended === null ? call : null, partner.name);

  // Whoever presses something that has to do with files should not wait for it.
  useEffect(() => {
    const timer = setTimeout(() => void loadFiles().catch(() => undefined), 1500);
    return () => clearTimeout(timer);
  }, []);

  // Once somebody calls it should be there.
  useEffect(() => {
    if (talks) void loadCall().catch(() => undefined);
  }, [talks]);

  // How long a new recording can be had is for the list of them to say.
  const recorded = calls.filter(({ recordingId }) => recordingId !== null).length;
  useEffect(() => {
    if (recorded > 0) void visavis.loadRecordings();
  }, [visavis, recorded]);

  // A new call begins with the picture, and an old one gives the place back to the words.
  const [wasInCall, setWasInCall] = useState(inCall);
  if (wasInCall !== inCall) {
    setWasInCall(inCall);
    setChatOpen(false);
    if (inCall) setCheck(null);
  }
  if (check !== null && (ended !== null || (check.answers && !ringing && !inCall))) setCheck(null);
  /** What had the focus is gone with the call; if there is one again, its screen takes it. */
  function afterCall() {
    requestAnimationFrame(() => {
      if (visavis.call.get() !== null && visavis.call.get()?.phase !== "calling") return;
      if (document.activeElement !== null && document.activeElement !== document.body) return;
      if (window.matchMedia("(hover: none)").matches) heading.current?.focus();
      else toComposer();
    });
  }
  const leftCall = useEffectEvent(afterCall);
  useEffect(() => {
    if (inCall || calling) return () => leftCall();
    return undefined;
  }, [inCall, calling]);

  // The log says new messages itself, where it is on the screen.
  const lastUnread = useRef(unread);
  useEffect(() => {
    if (unread > lastUnread.current && !readable) announce(t("said.message", { name: partner.name }));
    lastUnread.current = unread;
  }, [unread, readable, announce, t, partner.name]);

  // Ready to write at a desk; on a phone the keyboard must not jump up by itself. The end has a focus of its own.
  const writable = useRef(ended === null);
  useEffect(() => {
    const arrived = arrive();
    // A call has a focus of its own, too.
    if (!writable.current || visavis.call.get() !== null) return;
    const target = window.matchMedia("(hover: none)").matches ? heading : field;
    if (arrived || target === field) target.current?.focus({ preventScroll: true });
  }, [arrive, visavis]);
  useEffect(() => announce(meeting), [announce, meeting]);

  function toComposer() {
    (field.current ?? heading.current)?.focus();
  }

  function addFiles(files: readonly File[]) {
    if (files.length === 0) return;
    opener.current = document.activeElement;
    tray.add(files, conversation.draft);
  }

  /** What answers a message is sent: the reply is no longer being written, unless it is to another one by now. */
  function answered(id: string | null) {
    setReplyId((now) => (now === id ? null : now));
  }

  async function sendVoice() {
    const replyTo = reply?.id ?? null;
    if (await visavis.sendVoice(replyTo)) answered(replyTo);
  }

  function closeTray() {
    tray.clear();
    keepFocus();
  }

  /** What had the focus before may be gone. */
  function keepFocus() {
    requestAnimationFrame(() => {
      if (document.activeElement === document.body) toComposer();
    });
  }

  function openCheck(next: Check) {
    opener.current = document.activeElement;
    setCheck(next);
  }

  function closeCheck() {
    setCheck(null);
    requestAnimationFrame(() => {
      if (document.activeElement === document.body && opener.current instanceof HTMLElement) opener.current.focus();
      afterCall();
    });
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

  const empty = messages.length === 0 && calls.length === 0 && !uploading;

  return (
    <ShelfContext value={shelf}>
    <div
      data-screen="conversation"
      data-conversation-id={conversation.id}
      className={`screen-fixed flex flex-col ${inCall ? "lg:gap-3 lg:p-4" : "lg:grid lg:grid-cols-[19rem_minmax(0,46rem)] lg:grid-rows-[auto_minmax(0,1fr)] lg:justify-center lg:gap-x-8 lg:gap-y-5 lg:p-6"}`}
      style={{ "--hue": partner.hue }}
    >
      {!inCall && <SideLogo />}
      <PartnerCard
        key="partner"
        conversation={conversation}
        me={me}
        heading={heading}
        compact={inCall}
        onBlock={() => setOpen({ what: "block" })}
        onReport={() => setOpen({ what: "report" })}
        calls={
          ended === null &&
          call === null &&
          (["voice", "video"] as const).map(
            (what) =>
              modes.includes(what) && (
                <Button
                  key={what}
                  data-testid={`call-${what}`}
                  title={t(`call.${what}`)}
                  className="px-3 whitespace-nowrap max-lg:min-h-10 max-lg:rounded-full lg:flex-auto lg:gap-1.5 lg:px-2"
                  onClick={() => openCheck({ answers: false, what })}
                >
                  <Icon name={what === "voice" ? "phone" : "video"} />
                  <span className="max-lg:sr-only">{t(`call.${what}`)}</span>
                </Button>
              ),
          )
        }
      >
        {ended === null && <Skip onSkip={() => void visavis.skip()} />}
      </PartnerCard>
      <main
        key="main"
        id="main"
        tabIndex={-1}
        className={`flex min-h-0 flex-1 flex-col ${inCall ? "flat:flex-row lg:flex-row lg:gap-4" : "lg:col-start-2 lg:row-span-2 lg:row-start-1"}`}
      >
        <h2 className="sr-only">{t("chat.title", { name: partner.name })}</h2>
        {inCall && (
          <Suspense fallback={<div className="stage min-h-0 flex-1 lg:rounded-card" />}>
            <Stage
              call={call}
              me={me}
              partner={partner}
              invitations={invitations}
              wide={wide}
              strip={!wide && chatOpen}
              unread={unread}
              onChat={() => {
                setChatOpen(true);
                requestAnimationFrame(() => document.querySelector<HTMLElement>("[data-testid=close-chat]")?.focus());
              }}
            />
          </Suspense>
        )}
        <div
          className={`min-h-0 flex-col ${readable ? "flex" : "hidden"} ${inCall ? "flex-1 flat:w-88 flat:flex-none lg:w-96 lg:flex-none lg:gap-4 xl:w-104" : "flex-1"}`}
        >
          {inCall && wide && call.phase !== "asking" && call.phase !== "connecting" && (
            <Suspense fallback={null}>
              <Ladder
                call={call}
                me={me}
                partner={partner}
                invited={invitations.rung !== null}
                directInvited={invitations.direct}
              />
            </Suspense>
          )}
          <div
            className={`flex min-h-0 flex-1 flex-col lg:overflow-clip lg:rounded-card lg:border lg:border-line lg:bg-surface lg:shadow-card ${inCall ? "flat:border-s flat:border-line" : ""}`}
          >
            {inCall && !wide && (
              <div className="flex shrink-0 items-center justify-between border-b border-line ps-5 pe-2">
                <p className="font-semibold">{t("call.chat")}</p>
                <IconButton
                  label={t("call.chatClose")}
                  data-testid="close-chat"
                  onClick={() => {
                    setChatOpen(false);
                    requestAnimationFrame(() => document.querySelector<HTMLElement>("[data-testid=open-chat]")?.focus());
                  }}
                >
                  <Icon name="close" />
                </IconButton>
              </div>
            )}
            {empty && (
              <div className="flex min-h-0 flex-1 flex-col items-center justify-center gap-3 p-6 text-center">
                <div className="flex items-center gap-1.5" aria-hidden="true">
                  <Face hue={me.hue} gaze="end" className="size-16" />
                  <Face hue={partner.hue} gaze="start" className="size-16" />
                </div>
                <p className="text-xl font-bold">{t("chat.hello", { name: partner.name })}</p>
                <p className="max-w-[38ch] text-soft">
                  {limits === null ? t("chat.helloLine") : t("chat.helloFiles", { time: keptWords(speech, limits.seconds) })}
                </p>
              </div>
            )}
            <div className={empty ? "hidden" : "contents"}>
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
                <div role="status" data-testid="waits">
                  {waitsUntil !== null && (
                    <p>
                      {t("chat.waits")}{" "}
                      <CountDown key={waitsUntil} until={waitsUntil} words={(seconds) => tn("chat.goesOnIn", seconds)} />
                    </p>
                  )}
                </div>
                {waitsUntil !== null ? null : conversation.presence === "away" ? (
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
                onFiles={addFiles}
                onVoice={() => void sendVoice()}
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
          </div>
        </div>
      </main>
      {call !== null && ended === null && (
        <Suspense fallback={null}>
          {ringing && (
            <Incoming
              partner={partner}
              video={call.video}
              onAccept={(what) => openCheck({ answers: true, what })}
              onDecline={() => void visavis.endCall()}
              onGone={afterCall}
            />
          )}
          {calling && <Outgoing partner={partner} onCancel={() => void visavis.endCall()} />}
        </Suspense>
      )}
      {check !== null && (
        <Suspense fallback={null}>
          <DeviceDialog
            what={check.what}
            me={me}
            title={t(`devices.${check.what}Title`, { name: partner.name })}
            go={check.answers ? t("devices.accept") : t("devices.invite", { name: partner.name })}
            keeps
            onGo={async () => {
              const rung = check.what === "voice" ? "voice" : "blurred";
              const problem = await (check.answers ? visavis.accept(rung) : visavis.invite(rung));
              if (problem === null) closeCheck();
              return problem;
            }}
            onClose={closeCheck}
          />
        </Suspense>
      )}
      <Suspense fallback={null}>
        {dragging && <DropArea partnerName={partner.name} />}
        {takes && tray.chosen.length > 0 && (
          <TrayDialog
            tray={tray}
            limits={limits}
            partnerName={partner.name}
            replyTo={reply?.id ?? null}
            dragging={dragging}
            onSent={(draft) => {
              if (draft) visavis.setDraft("");
              setReplyId(null);
              closeTray();
            }}
            onClose={closeTray}
          />
        )}
        {looking !== null && (
          <Lightbox
            messages={messages}
            id={looking}
            partnerName={partner.name}
            onLook={setLooking}
            onClose={() => {
              setLooking(null);
              keepFocus();
            }}
          />
        )}
      </Suspense>
      {open?.what === "block" && <BlockDialog conversation={conversation} onClose={closeDialog} />}
      {open?.what === "report" && <ReportDialog conversation={conversation} onClose={closeDialog} />}
      {open?.what === "delete" && (
        <DeleteDialog partnerName={partner.name} onDelete={() => visavis.remove(open.id)} onClose={closeDialog} />
      )}
    </div>
    </ShelfContext>
  );
}

function useShelfOf(look: (id: string) => void): Shelf {
  const [covered, setCovered] = useState<ReadonlySet<string>>(new Set());
  const [speed, setSpeed] = useState(1);
  const cover = useCallback(
    (id: string, now: boolean) =>
      setCovered((last) => (now ? new Set([...last, id]) : new Set([...last].filter((other) => other !== id)))),
    [],
  );
  return useMemo(() => ({ covered, cover, speed, setSpeed, look }), [covered, cover, speed, look]);
}

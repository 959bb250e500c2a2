import { type ReactNode, type RefObject, useState } from "react";
import type { Profile } from "../../contract.gen";
import type { Speech } from "../../i18n/speak";
import type { PlainKey } from "../../i18n/texts";
import { useSpeech } from "../../i18n/useSpeech";
import type { ConversationView } from "../../model";
import { IconButton } from "../../ui/Button";
import { EmptySeat, Face, type Gaze, Logo } from "../../ui/Face";
import { Icon } from "../../ui/Icon";
import { Menu } from "../../ui/Menu";
import { SettingsDialog } from "../SettingsDialog";

interface Props {
  readonly conversation: ConversationView;
  readonly me: Profile;
  readonly heading: RefObject<HTMLHeadingElement | null>;
  readonly onBlock: () => void;
  readonly onReport: () => void;
  /** During a call it is a bar at a desk too. */
  readonly compact: boolean;
  /** Buttons that invite to a call, while one may. */
  readonly calls: ReactNode;
  /** The skip button, while there is somebody to skip. */
  readonly children: ReactNode;
}

type Presence = "here" | "typing" | "away" | "left" | "lost";

const PRESENCE: Readonly<Record<Presence, PlainKey>> = {
  here: "chat.here",
  typing: "chat.typing",
  away: "chat.away",
  left: "chat.gone",
  lost: "chat.goneLost",
};

function presenceOf({ presence, typing, ended }: ConversationView): Presence {
  if (ended === "me") return "left";
  if (ended === "missed") return "lost";
  if (ended !== null) return ended;
  return presence === "here" && typing ? "typing" : presence;
}

/** What brought the two together. */
export function whyWords(speech: Speech, { interests, languages }: ConversationView["why"]): string {
  if (interests.length > 0) return speech.t("chat.why.both", { interests: speech.all(interests) });
  if (languages.length > 0)
    return speech.t("chat.why.language", { languages: speech.all(languages.map(speech.language)) });
  return speech.t("chat.why.none");
}

/** Who it is: a bar on a phone, a card at the side of a desk. */
export function PartnerCard({ conversation, me, heading, compact, calls, onBlock, onReport, children }: Props) {
  const speech = useSpeech();
  const { t } = speech;
  const [settings, setSettings] = useState(false);
  const { partner } = conversation;
  const presence = presenceOf(conversation);
  const gone = conversation.ended !== null;
  const gaze: Gaze = presence === "away" ? "closed" : "start";

  return (
    <section
      aria-label={t("chat.details")}
      className={`grid shrink-0 grid-cols-[auto_minmax(0,1fr)_auto] items-center gap-x-3 border-b border-line px-4 sm:px-6 lg:rounded-card lg:border lg:bg-surface lg:shadow-card ${compact ? "py-1.5 lg:py-2" : "py-2 lg:flex lg:flex-col lg:items-stretch lg:gap-5 lg:self-start lg:p-7 lg:text-center"}`}
    >
      <div className={`relative flex items-center justify-center gap-2 ${compact ? "" : "lg:mt-2"}`}>
        {!compact && <Face hue={me.hue} gaze="end" className="size-20 max-lg:hidden" />}
        {gone ? (
          <EmptySeat className={compact ? "size-10" : "size-11 lg:size-20"} />
        ) : (
          <Face hue={partner.hue} gaze={gaze} className={compact ? "size-10" : "size-11 lg:size-20"} />
        )}
      </div>
      <div className="min-w-0">
        <h1
          ref={heading}
          tabIndex={-1}
          data-testid="partner-name"
          className={`hue-words line-clamp-2 text-lg leading-tight font-bold ${compact ? "" : "lg:text-2xl"}`}
          style={{ "--hue": partner.hue }}
        >
          <bdi>{partner.name}</bdi>
        </h1>
        <p
          data-testid="presence"
          data-presence={presence}
          className={`flex items-center gap-1.5 text-sm text-soft ${compact ? "" : "lg:mt-1 lg:justify-center lg:text-base"}`}
        >
          <span
            aria-hidden="true"
            className={`size-2 shrink-0 rounded-full ${presence === "here" || presence === "typing" ? "hue-dot" : "border-2 border-edge"} ${presence === "typing" || presence === "away" ? "animate-dot" : ""}`}
          />
          {t(PRESENCE[presence])}
        </p>
      </div>
      <div className={`flex items-center gap-1 lg:gap-2 ${compact ? "" : "lg:order-last lg:flex-row-reverse"}`}>
        <Menu
          label={t("chat.menu")}
          trigger={(props) => (
            <IconButton
              label={t("chat.menu")}
              data-testid="partner-menu"
              className="size-11 rounded-xl max-lg:order-last lg:border lg:border-edge"
              {...props}
            >
              <Icon name="more" className="size-6" />
            </IconButton>
          )}
          entries={[
            {
              label: t(conversation.reported ? "chat.reported" : "chat.report"),
              icon: "flag",
              disabled: conversation.reported,
              testid: "report-open",
              onSelect: onReport,
            },
            {
              label: t(conversation.blocked ? "chat.blocked" : "chat.block"),
              icon: "block",
              disabled: conversation.blocked,
              onSelect: onBlock,
            },
            { label: t("chat.settings"), icon: "settings", onSelect: () => setSettings(true) },
          ]}
        />
        {children}
      </div>
      {!compact && (
        <>
          <div className="col-span-full flex items-center gap-3 max-lg:mt-1 lg:contents">
            <p
              data-testid="why"
              className="min-w-0 flex-1 truncate text-sm text-soft lg:[overflow-wrap:anywhere] lg:rounded-2xl lg:bg-accent-wash lg:px-4 lg:py-3 lg:text-base lg:whitespace-normal lg:text-ink"
            >
              {whyWords(speech, conversation.why)}
            </p>
            <div className="flex shrink-0 flex-wrap gap-2 empty:hidden">{calls}</div>
          </div>
          <p className="text-sm text-soft max-lg:hidden">{t("chat.yourName", { name: me.name })}</p>
        </>
      )}
      {settings && <SettingsDialog onClose={() => setSettings(false)} />}
    </section>
  );
}

export function SideLogo() {
  const { t } = useSpeech();
  return (
    <header className="max-lg:hidden">
      <p className="flex items-center gap-3 font-display text-lg font-bold tracking-tight">
        <Logo />
        {t("app.name")}
      </p>
    </header>
  );
}

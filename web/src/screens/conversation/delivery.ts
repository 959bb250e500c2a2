import type { PlainKey } from "../../i18n/texts";
import type { Delivery } from "../../model";
import type { IconName } from "../../ui/Icon";

export const DELIVERY_WORDS: Readonly<Record<Delivery, PlainKey>> = {
  sending: "chat.sending",
  sent: "chat.sent",
  delivered: "chat.delivered",
  read: "chat.read",
  failed: "chat.failed",
  lost: "chat.lost",
};

export const DELIVERY_ICONS: Readonly<Record<Delivery, IconName>> = {
  sending: "clock",
  sent: "check",
  delivered: "checks",
  read: "checks",
  failed: "alert",
  lost: "alert",
};

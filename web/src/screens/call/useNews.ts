import { useEffect, useRef } from "react";
import { useSpeech } from "../../i18n/useSpeech";
import type { PlainKey } from "../../i18n/texts";
import type { CallView } from "../../model";
import { useAnnounce } from "../announce";
import { height } from "./ladder";

/** What changed from one moment of a call to the next, in the order it is best heard. */
export function news(before: CallView | null, now: CallView | null): PlainKey[] {
  if (now === null) return before === null ? [] : before.phase === "ringing" ? ["said.answered"] : ["said.over"];
  const said: PlainKey[] = [];
  if (before?.phase !== now.phase) {
    if (now.phase === "live") said.push("said.live");
    else if (now.phase === "reconnecting") said.push("call.reconnecting");
    else if (now.phase === "connecting") said.push("call.connecting");
    else if (now.phase === "calling") said.push("call.calling");
  }
  if (before === null) return said;

  const [was, is] = [height(before.rung), height(now.rung)];
  if (is > was) said.push(is === 2 ? "ladder.isClear" : "ladder.isBlurred");
  else if (is < was) {
    const theirs = height(now.theirs.rung) < height(before.theirs.rung);
    if (theirs) said.push(is === 0 ? "said.steppedBackVoice" : "said.steppedBackBlurred");
    else said.push(is === 0 ? "said.voice" : "ladder.isBlurred");
  }
  if (height(now.theirs.rung) > height(before.theirs.rung) && height(now.theirs.rung) > height(now.mine.rung))
    said.push(height(now.mine.rung) === 0 ? "ladder.inviteVideo" : "ladder.inviteReveal");
  if (height(now.mine.rung) > height(before.mine.rung) && height(now.mine.rung) > height(now.theirs.rung))
    said.push(height(now.theirs.rung) === 0 ? "ladder.waitVideo" : "ladder.waitReveal");
  if (now.direct !== before.direct) said.push(now.direct ? "said.directOn" : "said.directOff");
  else if (now.theirs.direct && !before.theirs.direct && !now.mine.direct) said.push("direct.invite");

  const [off, on] = [before.theirs.media, now.theirs.media];
  if (off.microphone !== on.microphone) said.push(on.microphone === true ? "said.unmuted" : "said.muted");
  if (off.camera !== on.camera && is > 0) said.push(on.camera === true ? "said.cameraOn" : "said.cameraOff");
  if (off.screen !== on.screen) said.push(on.screen === true ? "said.screenOn" : "said.screenOff");
  if (now.mine.media.screen === true && before.mine.media.screen !== true) said.push("call.sharing");
  if (now.sending === "audio" && before.sending !== "audio" && is > 0) said.push("call.sending.audio");

  if (now.recording !== before.recording) {
    if (now.recording === "on") said.push("said.recordingOn");
    else if (before.recording === "on") said.push("said.recordingOff");
    else if (now.recording === "asked" && now.theirs.recording) said.push("record.invite");
    else if (now.recording === "off" && before.recording === "asked" && before.mine.recording)
      said.push("said.recordingDeclined");
  }
  return said;
}

/** Says to screen readers what the eye sees change. */
export function useNews(call: CallView | null, name: string): void {
  const { t } = useSpeech();
  const announce = useAnnounce();
  const last = useRef<CallView | null>(null);
  useEffect(() => {
    const said = news(last.current, call);
    last.current = call;
    if (said.length > 0) announce(said.map((key) => t(key, { name })).join(" "));
  }, [call, name, t, announce]);
}

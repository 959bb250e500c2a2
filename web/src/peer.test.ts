import { expect, it } from "vitest";
import { wished } from "./peer";

it("wishes for repaired and silent sound of Opus, whatever the browser had said, and leaves the rest alone", () => {
  const sdp = [
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 63",
    "a=rtpmap:111 opus/48000/2",
    "a=fmtp:111 minptime=10;useinbandfec=0",
    "a=rtpmap:63 red/48000/2",
    "a=fmtp:63 111/111",
    "",
  ].join("\r\n");
  expect(wished(sdp)).toBe(sdp.replace("minptime=10;useinbandfec=0", "minptime=10;useinbandfec=1;usedtx=1"));
});

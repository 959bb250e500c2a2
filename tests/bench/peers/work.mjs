/** What both of Node's relays check alike: who a client is, and that a message is one. */
import { createHmac, timingSafeEqual } from "node:crypto";

const ID = /^[A-Za-z0-9_-]{22}$/;
const MOST_TEXT = 4000;

export function known(token) {
  const [name, proof] = String(token ?? "").split(".");
  const right = createHmac("sha256", "bench").update(name).digest();
  const given = Buffer.from(proof ?? "", "hex");
  return given.length === right.length && timingSafeEqual(given, right);
}

export function valid(said) {
  return (
    typeof said === "object" &&
    said !== null &&
    typeof said.id === "string" &&
    ID.test(said.id) &&
    Number.isSafeInteger(said.seq) &&
    said.seq > 0 &&
    said.body?.kind === "text" &&
    typeof said.body.text === "string" &&
    said.body.text.length > 0 &&
    said.body.text.length <= MOST_TEXT
  );
}

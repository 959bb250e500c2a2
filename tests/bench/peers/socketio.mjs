/**
 * Node's socket.io doing the same work: a validated message with an ack, forwarded to the partner.
 *
 * Environment: PORT (0 takes a free one), REDIS_URL (its sharded Redis adapter between processes; empty: none),
 * HELPERS=no leaves out the native helpers of ws. Prints the port once it listens.
 */
import { createServer } from "node:http";
import { known, valid } from "./work.mjs";

if (process.env.HELPERS === "no") {
  process.env.WS_NO_BUFFER_UTIL = "1";
  process.env.WS_NO_UTF_8_VALIDATE = "1";
}
const { Server } = await import("socket.io");

const http = createServer();
const io = new Server(http, { serveClient: false });
if (process.env.REDIS_URL) {
  const { createClient } = await import("redis");
  const { createShardedAdapter } = await import("@socket.io/redis-adapter");
  const url = process.env.REDIS_URL;
  const where = url.startsWith("unix://") ? { socket: { path: url.slice(7) } } : { url };
  // Its time limit for a command, on by default, would make an AbortSignal for each message.
  const made = () => createClient({ ...where, commandOptions: { timeout: 0 } });
  const [speak, listen] = [made(), made()];
  await Promise.all([speak.connect(), listen.connect()]);
  io.adapter(createShardedAdapter(speak, listen));
}

io.use((socket, next) => {
  if (known(socket.handshake.auth?.token)) next();
  else next(new Error("token_invalid"));
});

/** Those on this process by pair, so that a partner here is spoken to directly. */
const here = new Map();

io.on("connection", (socket) => {
  let pair = null;
  let partners = null;
  socket.on("match:find", (asked, ack) => {
    pair = asked.pair;
    here.set(pair, [...(here.get(pair) ?? []), socket]);
    if (process.env.REDIS_URL) {
      // A room for each side, so that a message goes to the partner's process only, and does not come back to this.
      socket.join(`${pair}:${asked.side}`);
      partners = `${pair}:${1 - asked.side}`;
    }
    socket.emit("match:found", { conversation: { id: pair } });
    ack({ ok: {} });
  });
  socket.on("chat:message", (said, ack) => {
    if (typeof ack !== "function") return;
    if (!valid(said)) return ack({ error: { code: "bad_request" } });
    if (pair === null || said.conversationId !== pair) return ack({ error: { code: "not_in_conversation" } });
    const at = Date.now();
    const message = { ...said, seat: 0, at };
    const partner = here.get(pair).find((other) => other !== socket);
    if (partner) partner.emit("chat:message", message);
    else socket.to(partners).emit("chat:message", message);
    ack({ ok: { at } });
  });
  socket.on("disconnect", () => {
    if (pair === null) return;
    const left = here.get(pair).filter((other) => other !== socket);
    if (left.length) here.set(pair, left);
    else here.delete(pair);
  });
});

// So that the memory of idle connections is theirs alone.
process.on("SIGUSR2", () => globalThis.gc?.());

http.listen({ port: Number(process.env.PORT ?? 0), host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(http.address().port);
});

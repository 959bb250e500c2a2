/**
 * The same work without socket.io: a validated message with an ack, forwarded to the partner, over `ws` alone.
 *
 * It knows just the frames that the load generator says and hears, so it is a reference and no server for clients: no
 * polling, no other namespaces, no binary. Environment and output are those of socketio.mjs, without Redis.
 */
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { known, valid } from "./work.mjs";

/** Those here by pair. */
const here = new Map();

class Client {
  known = false;
  pair = null;
  alive = true;

  constructor(socket) {
    this.socket = socket;
    this.id = randomBytes(15).toString("base64url");
    socket.on("message", (frame) => this.hear(frame.toString()));
    socket.on("close", () => this.leave());
    socket.on("error", () => {});
    this.send(
      `0${JSON.stringify({ sid: this.id, upgrades: [], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1e6 })}`,
    );
  }

  send(text) {
    this.socket.send(text);
  }

  hear(text) {
    if (text === "3") {
      this.alive = true;
    } else if (text.startsWith("42") && this.known) {
      const begins = text.indexOf("[");
      const [event, said] = JSON.parse(text.slice(begins));
      const answer = this.answer(event, said);
      if (answer) this.send(`43${text.slice(2, begins)}[${JSON.stringify(answer)}]`);
    } else if (text.startsWith("40") && !this.known) {
      this.known = known(JSON.parse(text.slice(2)).token);
      this.send(this.known ? `40${JSON.stringify({ sid: this.id })}` : '44{"message":"token_invalid"}');
    }
  }

  answer(event, said) {
    if (event === "chat:message") return this.say(said);
    if (event !== "match:find") return null;
    this.pair = said.pair;
    here.set(this.pair, [...(here.get(this.pair) ?? []), this]);
    this.send(`42${JSON.stringify(["match:found", { conversation: { id: this.pair } }])}`);
    return { ok: {} };
  }

  say(said) {
    if (!valid(said)) return { error: { code: "bad_request" } };
    if (this.pair === null || said.conversationId !== this.pair) return { error: { code: "not_in_conversation" } };
    const at = Date.now();
    const partner = here.get(this.pair).find((other) => other !== this);
    partner?.send(`42${JSON.stringify(["chat:message", { ...said, seat: 0, at }])}`);
    return { ok: { at } };
  }

  leave() {
    if (this.pair === null) return;
    const left = here.get(this.pair).filter((other) => other !== this);
    if (left.length) here.set(this.pair, left);
    else here.delete(this.pair);
  }
}

const http = createServer();
const sockets = new WebSocketServer({ server: http, maxPayload: 1e6 });
const clients = new Set();
sockets.on("connection", (socket) => {
  const client = new Client(socket);
  clients.add(client);
  socket.on("close", () => clients.delete(client));
});
setInterval(() => {
  for (const client of clients) {
    if (client.alive) client.send("2");
    else client.socket.terminate();
    client.alive = false;
  }
}, 25_000);

// So that the memory of idle connections is theirs alone.
process.on("SIGUSR2", () => globalThis.gc?.());

http.listen({ port: Number(process.env.PORT ?? 0), host: "127.0.0.1", backlog: 4096 }, () => {
  console.log(http.address().port);
});

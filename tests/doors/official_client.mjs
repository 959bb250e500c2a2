// The official Socket.IO client without a browser: takes commands as JSON lines, tells what happens as JSON lines.
//
// {"do": "connect", "url", "auth", "transports"} · {"do": "ask", "id", "event", "request" or "binary"} · {"do": "break"}
// {"do": "disconnect"}; tells {"what": "connect" | "connect_error" | "disconnect" | "push" | "answer" | "transport", ...}
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { io } = createRequire(process.argv[2])("socket.io-client");
let socket = null;

function tell(what, more = {}) {
  process.stdout.write(`${JSON.stringify({ what, ...more })}\n`);
}

const commands = {
  connect({ url, auth, transports }) {
    socket = io(url, { auth, transports, reconnectionDelay: 50, reconnectionDelayMax: 200, timeout: 3000 });
    socket.on("connect", () => {
      tell("connect", { transport: socket.io.engine.transport.name });
      socket.io.engine.on("upgrade", (transport) => tell("transport", { name: transport.name }));
    });
    socket.on("connect_error", (error) => tell("connect_error", { message: error.message, data: error.data ?? null }));
    socket.on("disconnect", (reason) => tell("disconnect", { reason, comesBack: socket.active }));
    socket.onAny((event, push) => tell("push", { event, push }));
  },
  ask({ id, event, request, binary }) {
    const sent = binary ? { body: Buffer.from("binary") } : request;
    socket.timeout(5000).emit(event, sent, (error, answer) => tell("answer", { id, error: error?.message, answer }));
  },
  break() {
    socket.io.engine.close();
  },
  disconnect() {
    socket.disconnect();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command);
}
socket?.disconnect();

import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { carry } from "./transfer";

/** A server that takes one file by the tus protocol, on a real socket. */
class Uploads {
  bytes: Buffer = Buffer.alloc(0);
  size = 0;
  readonly seen: string[] = [];
  readonly tokens: (string | undefined)[] = [];
  /** What the next chunks come to: cut off in the middle, or refused. */
  readonly stumbles: ("cut" | number | null)[] = [];
  readonly #server: Server = createServer((request, answer) => {
    const { method = "", headers } = request;
    this.seen.push(`${method} ${String(headers["upload-offset"] ?? "")}`.trim());
    this.tokens.push(headers.authorization);
    const reply = (status: number, body?: object) => {
      answer.writeHead(status, { "Tus-Resumable": "1.0.0", "Upload-Offset": this.bytes.length, "Upload-Length": this.size });
      answer.end(body === undefined ? undefined : JSON.stringify(body));
    };
    if (method !== "PATCH") {
      reply(200);
      return;
    }
    const stumble = this.stumbles.shift() ?? null;
    request.on("data", (part: Buffer) => {
      if (stumble === null) this.bytes = Buffer.concat([this.bytes, part]);
      else if (stumble === "cut") cut(request, () => (this.bytes = Buffer.concat([this.bytes, part.subarray(0, 10)])));
    });
    request.on("end", () => {
      if (typeof stumble === "number") reply(stumble, { error: { code: "storage_full" } });
      else if (stumble === null) reply(204);
    });
  });

  async open(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/api/files/one`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

function cut(request: IncomingMessage, before: () => void): void {
  if (request.socket.destroyed) return;
  before();
  request.socket.destroy();
}

describe("a transfer", () => {
  const server = new Uploads();
  afterEach(() => server.close());

  it("brings every byte in chunks, each with the token of that moment, and goes on after it was cut off", async () => {
    const url = await server.open();
    const bytes = Buffer.from(Array.from({ length: 250 }, (_, index) => index));
    server.size = bytes.length;
    server.stumbles.push(null, "cut", 507);
    let token = 0;
    const progress: number[] = [];
    const attempt = () =>
      new Promise<readonly [number | null, unknown] | "done">((resolve) => {
        // Node's part of the library takes its own kind of bytes.
        carry(bytes as unknown as Blob, {
          url,
          chunkBytes: 100,
          token: () => `token-${(token += 1)}`,
          progress: (sent) => progress.push(sent),
          taken: () => undefined,
          done: () => resolve("done"),
          failed: (status, answer) => resolve([status, answer]),
        });
      });
    expect(await attempt()).toEqual([null, null]);
    expect(server.bytes.length).toBe(110);
    expect(await attempt()).toEqual([507, { error: { code: "storage_full" } }]);
    expect(await attempt()).toBe("done");
    expect(server.bytes.equals(bytes)).toBe(true);
    expect(server.seen).toEqual(["HEAD", "PATCH 0", "PATCH 100", "HEAD", "PATCH 110", "HEAD", "PATCH 110", "PATCH 210"]);
    expect(new Set(server.tokens).size).toBe(server.seen.length);
    expect(server.tokens.at(-1)).toBe("Bearer token-8");
    expect(progress.at(-1)).toBe(250);
  });
});

/** The server's part in files, for tests: uploads, what became of them, who may see them. */
import type { BeginUpload, FileLimits, SharedFile, UploadState } from "./contract.gen";
import type { Transfer } from "./transfer";

interface Clock {
  readonly now: number;
  after(ms: number, run: () => void): () => void;
}

interface Answer {
  readonly status: number;
  readonly json: unknown;
}

export interface FakeUpload {
  readonly id: string;
  readonly owner: string;
  readonly asked: BeginUpload;
  readonly file: SharedFile;
  offset: number;
  phase: UploadState["phase"];
  problem: string | null;
  limit: number | null;
  gone: boolean;
  /** Offsets at which somebody began to send. */
  readonly resumed: number[];
}

export const LIMITS: FileLimits = {
  bytes: 10_000,
  perMinute: 100,
  bytesTogether: 100_000,
  seconds: 86_400,
  kinds: ["picture", "video", "audio", "voice", "document"],
  chunkBytes: 1_000,
};

const refuse = (status: number, code: string, data: object = {}): Answer => ({ status, json: { error: { code, ...data } } });
const sealOf = (id: string) => `seal-${id}`;

export class FakeFiles {
  limits: FileLimits | null = LIMITS;
  readonly uploads = new Map<string, FakeUpload>();
  /** What the next requests to begin are answered, first in first out. */
  readonly refusals: Answer[] = [];
  /** What the scanner says of the next ones: a code, or that it never answers. */
  readonly findings: string[] = [];
  /** What becomes of the next chunks: they get nowhere, or are refused with a status. */
  readonly stumbles: (number | "lost" | "stuck" | "fine")[] = [];
  addressMs = 600_000;
  bytesPerMs = 1;
  checkMs = 500;
  readonly clock: Clock;
  #addresses = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Every upload, in the order in which it was begun. */
  get all(): FakeUpload[] {
    return [...this.uploads.values()];
  }

  begin(owner: string, asked: BeginUpload): Answer {
    const refusal = this.refusals.shift();
    if (refusal !== undefined) return refusal;
    const id = `file-${this.uploads.size + 1}`.padEnd(22, "-");
    const kind = asked.voice === true ? "voice" : asked.name.endsWith(".png") ? "picture" : "document";
    const file: SharedFile = {
      id,
      kind,
      name: asked.name,
      type: kind === "picture" ? "image/webp" : "application/octet-stream",
      bytes: asked.bytes,
      expiresAt: this.clock.now + LIMITS.seconds * 1_000,
      width: kind === "picture" ? 640 : null,
      height: kind === "picture" ? 480 : null,
      seconds: kind === "voice" ? 2 : null,
      waveform: null,
      blur: null,
      thumb: kind === "picture",
    };
    this.uploads.set(id, { id, owner, asked, file, offset: 0, phase: "uploading", problem: null, limit: null, gone: false, resumed: [] });
    return { status: 201, json: { fileId: id, url: `/api/files/${id}` } };
  }

  async state(owner: string, id: string): Promise<Answer> {
    const upload = this.#of(owner, id);
    if (upload === null) return refuse(404, "no_such_file");
    // The answer waits for news, but not for long.
    if (upload.phase === "checking") await new Promise<void>((resolve) => void this.clock.after(2_000, resolve));
    const { phase, offset, problem, limit, file } = upload;
    const ready = phase === "ready";
    return { status: 200, json: { phase, offset, problem, limit, seal: ready ? sealOf(id) : null, file: ready ? file : null } };
  }

  remove(owner: string, id: string): Answer {
    const upload = this.#of(owner, id);
    if (upload === null) return refuse(404, "no_such_file");
    upload.gone = true;
    return { status: 204, json: null };
  }

  #of(owner: string, id: string): FakeUpload | null {
    const upload = this.uploads.get(id);
    return upload === undefined || upload.gone || upload.owner !== owner ? null : upload;
  }

  bySeal(seal: string): SharedFile | null {
    return this.all.find(({ id, phase, gone }) => sealOf(id) === seal && phase === "ready" && !gone)?.file ?? null;
  }

  open(conversationId: string, id: string): { readonly ok: unknown } | { readonly error: { readonly code: string } } {
    const upload = this.uploads.get(id);
    const there = upload !== undefined && !upload.gone && upload.asked.conversationId === conversationId;
    if (!there || upload.file.expiresAt <= this.clock.now) return { error: { code: "no_such_file" } };
    return { ok: { base: `/files/pass-${(this.#addresses += 1)}`, expiresInMs: this.addressMs } };
  }

  /** The bytes of one file on their way, chunk by chunk. */
  carry(file: Blob, { url, chunkBytes, token, progress, taken, done, failed }: Transfer, reachable: () => boolean): () => void {
    const id = url.split("/").at(-1) ?? "";
    let over = false;
    let timer = this.clock.after(20, () => {
      const upload = this.#of(token(), id);
      if (!reachable()) end(() => failed(null, null));
      else if (upload === null) end(() => failed(404, null));
      else {
        upload.resumed.push(upload.offset);
        next(upload);
      }
    });
    const end = (how: () => void) => {
      if (over) return;
      over = true;
      how();
    };
    const next = (upload: FakeUpload) => {
      if (over) return;
      progress(upload.offset);
      if (upload.offset >= file.size) {
        end(done);
        return;
      }
      const stumble = this.stumbles.shift();
      if (stumble === "stuck") return;
      const bytes = Math.min(chunkBytes, file.size - upload.offset);
      timer = this.clock.after(bytes / this.bytesPerMs, () => {
        if (over) return;
        if (stumble === "lost" || !reachable()) end(() => failed(null, null));
        else if (typeof stumble === "number") end(() => failed(stumble, null));
        else if (upload.gone) end(() => failed(404, { error: { code: "no_such_file" } }));
        else {
          upload.offset += bytes;
          taken();
          if (upload.offset >= file.size) this.#look(upload);
          next(upload);
        }
      });
    };
    return () => {
      over = true;
      timer();
    };
  }

  #look(upload: FakeUpload): void {
    upload.phase = "checking";
    const finding = this.findings.shift();
    if (finding === "never") return;
    this.clock.after(this.checkMs, () => {
      upload.phase = finding === undefined ? "ready" : "refused";
      upload.problem = finding ?? null;
      upload.limit = finding === "picture_too_large" ? 40_000_000 : null;
    });
  }
}

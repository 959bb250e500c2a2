/** Carries the bytes of one file to the address of its upload, by the tus protocol. Part of what is loaded to share files. */
import { DetailedError, Upload } from "tus-js-client";
import type { Cancel } from "./env";

export interface Transfer {
  readonly url: string;
  readonly chunkBytes: number;
  /** The guest's token at this moment. */
  token(): string;
  /** So many bytes of it are sent. */
  progress(bytes: number): void;
  /** Some of it has arrived. */
  taken(): void;
  done(): void;
  /** It stopped: with the status and what the server said, or both null if there was no answer. */
  failed(status: number | null, answer: unknown): void;
}

/** Begins where the server says that it stands. Returns what stops it; then nothing is heard of it any more. */
export type Carry = (file: Blob, transfer: Transfer) => Cancel;

export const carry: Carry = (file, { url, chunkBytes, token, progress, taken, done, failed }) => {
  let stopped = false;
  const upload = new Upload(file, {
    uploadUrl: url,
    chunkSize: chunkBytes,
    // When to try again depends on more than is known here.
    retryDelays: null,
    storeFingerprintForResuming: false,
    onBeforeRequest: (request) => request.setHeader("Authorization", `Bearer ${token()}`),
    onProgress: (bytes) => {
      if (!stopped) progress(bytes);
    },
    onChunkComplete: () => {
      if (!stopped) taken();
    },
    onSuccess: () => {
      if (!stopped) done();
    },
    onError: (error) => {
      if (stopped) return;
      stopped = true;
      const response = error instanceof DetailedError ? error.originalResponse : null;
      failed(response?.getStatus() || null, read(response?.getBody()));
    },
  });
  upload.start();
  return () => {
    stopped = true;
    void upload.abort().catch(() => undefined);
  };
};

function read(body: string | undefined): unknown {
  try {
    return JSON.parse(body ?? "");
  } catch {
    return null;
  }
}

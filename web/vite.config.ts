import { readdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const COMPRESSIBLE = /\.(js|css|html|svg|json|webmanifest|txt)$/;
/** Below this, the headers outweigh what compression saves. */
const WORTH_IT = 512;

/** Writes `.br` and `.gz` beside each file of the build, so that the server never compresses while serving. */
function precompressed(): Plugin {
  let folder = "";
  return {
    name: "precompressed",
    apply: "build",
    configResolved(config) {
      folder = resolve(config.root, config.build.outDir);
    },
    async closeBundle() {
      const entries = await readdir(folder, { recursive: true, withFileTypes: true });
      await Promise.all(
        entries
          .filter((entry) => entry.isFile() && COMPRESSIBLE.test(entry.name))
          .map(async (entry) => {
            const path = join(entry.parentPath, entry.name);
            const plain = await readFile(path);
            if (plain.length < WORTH_IT) return;
            const params = {
              [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
              [constants.BROTLI_PARAM_SIZE_HINT]: plain.length,
            };
            await Promise.all([
              promisify(brotliCompress)(plain, { params }).then((small) => writeFile(`${path}.br`, small)),
              promisify(gzip)(plain, { level: 9 }).then((small) => writeFile(`${path}.gz`, small)),
            ]);
          }),
      );
    },
  };
}

export default defineConfig(({ mode }) => ({
  plugins: [react(), tailwindcss(), precompressed()],
  build: {
    // `--mode gallery` builds the page that shows every screen in every state, for the accessibility tests.
    rollupOptions: { input: mode === "gallery" ? "gallery.html" : "index.html" },
    target: ["chrome120", "edge120", "firefox128", "safari17"],
    // The content security policy refuses `data:` scripts and styles; inlined images are not worth an exception.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      "/api": "http://127.0.0.1:3000",
      "/socket.io": { target: "http://127.0.0.1:3000", ws: true },
    },
  },
  test: {
    // View-models need no browser; a screen's test names jsdom in its first line.
    environment: "node",
    include: ["src/**/*.test.{ts,tsx}"],
  },
}));

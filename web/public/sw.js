/*
 * Keeps the shell of the page for when the network is away. It never touches conversations: /api and /socket.io
 * are not its business, and nothing but files of the build is kept.
 *
 * A page always comes from the network when there is one, and the build's files carry their hash in the name. So a
 * newer worker may take over at once: it cannot serve an old page to a new one or the other way round.
 */
const SHELL = "visavis-shell-1";
const PARTS = "visavis-parts-1";
const SHELL_FILES = [
  "/",
  "/offline.html",
  "/offline.css",
  "/offline.js",
  "/first-paint.js",
  "/icon.svg",
  "/icon-192.png",
  "/manifest.webmanifest",
];
/** Parts of older builds stay a while for pages that are still open. */
const MOST_PARTS = 80;

async function keepShell() {
  const cache = await caches.open(SHELL);
  // Past the HTTP cache: a stale page would ask for parts that no longer exist.
  await cache.addAll(SHELL_FILES.map((file) => new Request(file, { cache: "reload" })));
  const html = await (await cache.match("/")).text();
  const parts = await caches.open(PARTS);
  await parts.addAll([...html.matchAll(/"(\/assets\/[^"]+)"/g)].map((match) => match[1]));
  await self.skipWaiting();
}

self.addEventListener("install", (event) => event.waitUntil(keepShell()));

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((name) => name !== SHELL && name !== PARTS).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

/** Whoever is there has no page for us just now: too many ask, or the server behind is away. */
function refused(answer) {
  return answer.status === 429 || answer.status >= 500;
}

async function page(request) {
  const cache = await caches.open(SHELL);
  try {
    const fresh = await fetch(request);
    if (new URL(request.url).pathname !== "/") return fresh;
    if (fresh.ok) await cache.put("/", fresh.clone());
    return (refused(fresh) && (await shellWithParts(cache))) || fresh;
  } catch {
    // The shell says by itself that the server is away and comes back by itself; the plain page is the last resort.
    return (await shellWithParts(cache)) ?? (await cache.match("/offline.html")) ?? Response.error();
  }
}

/** The kept page, if the script it starts with is kept too. */
async function shellWithParts(cache) {
  const shell = await cache.match("/");
  if (!shell) return undefined;
  const script = /src="(\/assets\/[^"]+\.js)"/.exec(await shell.clone().text());
  if (!script) return undefined;
  const parts = await caches.open(PARTS);
  return (await parts.match(script[1])) ? shell : undefined;
}

async function part(request) {
  const cache = await caches.open(PARTS);
  const kept = await cache.match(request);
  if (kept) return kept;
  const fresh = await fetch(request);
  if (fresh.ok) {
    await cache.put(request, fresh.clone());
    const keys = await cache.keys();
    await Promise.all(keys.slice(0, Math.max(0, keys.length - MOST_PARTS)).map((key) => cache.delete(key)));
  }
  return fresh;
}

async function shellFile(request) {
  const kept = () => caches.match(request, { ignoreSearch: true });
  try {
    const fresh = await fetch(request);
    return (refused(fresh) && (await kept())) || fresh;
  } catch {
    return (await kept()) ?? Response.error();
  }
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || url.origin !== self.location.origin) return;
  if (url.pathname.startsWith("/api") || url.pathname.startsWith("/socket.io")) return;
  if (request.mode === "navigate") event.respondWith(page(request));
  else if (url.pathname.startsWith("/assets/")) event.respondWith(part(request));
  else if (SHELL_FILES.includes(url.pathname)) event.respondWith(shellFile(request));
});

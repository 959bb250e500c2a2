import { describe, expect, test } from "vitest";
import { pieces } from "./links";

const links = (text: string) => pieces(text).flatMap((piece) => (piece.kind === "link" ? [piece] : []));
const shown = (text: string) =>
  pieces(text)
    .map((piece) => (piece.kind === "link" ? `[${piece.host}${piece.rest}]` : piece.text))
    .join("");

describe("pieces", () => {
  test("http and https addresses become links, with the words around them kept", () => {
    expect(shown("see https://example.org/a?b=c#d now")).toBe("see [example.org/a?b=c#d] now");
    expect(shown("HTTP://EXAMPLE.ORG")).toBe("[example.org]");
  });

  test("nothing else becomes a link", () => {
    for (const text of ["javascript:alert(1)", "data:text/html,x", "ftp://example.org", "file:///etc/passwd", "www.example.org", "https://", "xhttps://a"])
      expect(links(text)).toEqual([]);
  });

  test("the punctuation of the sentence stays outside, a bracket of the address inside", () => {
    expect(shown("(see https://example.org/x).")).toBe("(see [example.org/x]).");
    expect(shown("https://example.org/a_(b) and")).toBe("[example.org/a_(b)] and");
    expect(shown("هل رأيت https://example.org/؟")).toBe("هل رأيت [example.org]؟");
  });

  test("the host shown is the one that opens", () => {
    expect(links("https://paypal.com@evil.example/login")[0]).toMatchObject({ host: "evil.example", href: "https://evil.example/login" });
    expect(links("https://good.example\\@evil.example")[0]?.host).toBe("good.example");
    expect(links("http://example.org:8080/")[0]?.host).toBe("example.org:8080");
  });

  test("a host in another script shows as its ASCII form", () => {
    expect(links("https://аррӏе.com/")[0]?.host).toBe("xn--80ak6aa92e.com");
    expect(links("https://exаmple.org/")[0]?.host).toMatch(/^xn--/);
  });

  test("a long address is shown short and opened whole", () => {
    const [link] = links(`https://example.org/${"a".repeat(500)}`);
    expect(link?.rest.length).toBeLessThan(60);
    expect(link?.href.length).toBeGreaterThan(500);
  });

  test("no text is lost", () => {
    const text = "a https://x.example, b http://[bad c https://y.example/d.";
    const whole = pieces(text).map((piece) => (piece.kind === "link" ? "L" : piece.text)).join("");
    expect(whole).toBe("a L, b http://[bad c L.");
  });

  test.each([
    ["schemes", "https://".repeat(12_500)],
    ["slashes", `https://a${"/".repeat(100_000)}`],
    ["closing brackets", `https://a.example/${")".repeat(100_000)}`],
    ["opening brackets", `https://a.example/${"(".repeat(100_000)}`],
    ["dots", `https://${".".repeat(100_000)}`],
    ["almost schemes", "http:/".repeat(16_000)],
    ["many small links", "http://a.b ".repeat(9_000)],
    ["many bad links", "http://[ ".repeat(11_000)],
  ])("100 KB of %s take linear time", (_name, text) => {
    pieces("https://warm.example");
    const start = performance.now();
    for (let run = 0; run < 3; run += 1) pieces(text);
    expect((performance.now() - start) / 3).toBeLessThan(50);
  });
});

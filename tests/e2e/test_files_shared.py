"""Files, pictures and voice messages between two people in browsers: sent, covered, opened, saved, gone."""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import av
import pytest
import pytest_asyncio
from PIL import Image
from playwright.async_api import FilePayload, Locator, Request, expect

import corpus
from callers import BLUE, RED, until
from calling import Callers
from faults import Link
from people import DESK, PHONE, Arrive, Person, meet
from rig import Service, free_port

MEGABYTE = 1_000_000


def payload(name: str, content: bytes, type: str = "application/octet-stream") -> FilePayload:
    """A file as a browser's chooser gives it."""
    return {"name": name, "mimeType": type, "buffer": content}


async def choose(person: Person, *files: FilePayload) -> None:
    await person.by("attach-input").set_input_files(list(files))
    await expect(person.by("tray-item")).to_have_count(len(files))


async def send(person: Person, *files: FilePayload) -> None:
    await choose(person, *files)
    await person.by("tray-send").click()


async def saved(person: Person, link: Locator) -> tuple[str, bytes]:
    """The name and the bytes of what the browser saved."""
    async with person.page.expect_download() as started:
        await link.click()
    download = await started.value
    return download.suggested_filename, (await download.path()).read_bytes()


async def is_drawn(picture: Locator) -> bool:
    """Whether an <img> shows something."""
    drawn: bool = await picture.evaluate("image => image.complete && image.naturalWidth > 0")
    return drawn


async def in_conversation(
    somebody: Arrive, interest: str, size: dict[str, int] = DESK, url: str | None = None
) -> tuple[Person, Person]:
    a, b = await somebody(url, viewport=size), await somebody(url, viewport=size)
    for person in (a, b):
        await person.enter(interest)
    await meet(a, b)
    return a, b


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_a_picture_is_covered_until_touched_and_tells_nothing_of_where(
    somebody: Arrive, size: dict[str, int]
) -> None:
    """The partner touches it to see it, opens it large, saves it under its name; where it was taken is gone."""
    a, b = await in_conversation(somebody, f"pictures{size['width']}", size)
    asked: list[Request] = []

    def heard(request: Request) -> None:
        asked.append(request)

    for person in (a, b):
        person.page.on("request", heard)
    photo = corpus.jpeg_with_gps()
    assert Image.open(io.BytesIO(photo)).getexif()
    await choose(a, payload("beach.jpg", photo, "image/jpeg"))
    await a.by("tray-send").click()
    await expect(a.by("file-picture")).to_be_visible()
    await expect(a.by("upload")).to_have_count(0)
    await expect(a.page.locator('[data-testid="message"][data-mine="true"]')).to_have_attribute(
        "data-delivery", re.compile("delivered|read")
    )
    await expect(a.by("file-cover")).to_have_count(0)

    await expect(b.by("file-cover")).to_be_visible()
    assert not [r for r in asked if r.frame.page == b.page and "/files/" in r.url and r.url.endswith("/main")]
    await b.by("file-cover").click()
    await expect(b.by("file-cover")).to_have_count(0)
    picture = b.by("file-picture").locator("img").last
    await until(lambda: is_drawn(picture), 10, "the picture is drawn")
    await b.by("file-picture").click()
    large = b.by("lightbox")
    await expect(large).to_be_visible()
    name, content = await saved(b, large.get_by_test_id("file-download"))
    assert name == "beach.webp"
    image = Image.open(io.BytesIO(content))
    assert image.format == "WEBP"
    assert not image.getexif()
    assert not {"exif", "xmp", "icc_profile"} & set(image.info)
    await b.page.keyboard.press("Escape")
    await expect(large).to_have_count(0)

    session = await b.page.evaluate("() => JSON.stringify({ ...localStorage, ...sessionStorage })")
    addresses = [r.url for r in asked if "/files/" in r.url]
    assert addresses
    tokens = set(re.findall(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", session))
    assert tokens
    assert not [url for url in addresses if any(token in url for token in tokens)]
    assert not await b.context.cookies()


async def test_each_kind_is_shown_as_what_it_is(somebody: Arrive) -> None:
    """Several at once: a video plays in place, words and pages are cards to save, a script never runs."""
    a, b = await in_conversation(somebody, "everything")
    script = b"<html><script>document.title = 'ran'</script></html>"
    await send(
        a,
        payload("film.mp4", corpus.mp4_from_phone(), "video/mp4"),
        payload("song.wav", corpus.wav(), "audio/wav"),
        payload("Größe \N{RIGHT-TO-LEFT OVERRIDE}fdp.txt", "Grüße\n".encode(), "text/plain"),
        payload("page.html", script, "text/html"),
    )
    for testid, count in (("file-video", 1), ("file-audio", 1), ("file-document", 2)):
        await expect(a.by(testid)).to_have_count(count, timeout=20_000)
        await expect(b.by(testid)).to_have_count(count)
    await b.by("file-cover").click()
    film = b.by("file-video").locator("video")
    await film.evaluate("video => video.play()")

    async def plays() -> bool:
        running: bool = await film.evaluate("video => video.currentTime > 0.2 && video.videoWidth > 0")
        return running

    await until(plays, 10, "the video plays")
    await film.evaluate("video => { video.pause(); video.currentTime = video.duration * 0.8; }")

    async def sought() -> bool:
        there: bool = await film.evaluate("video => !video.seeking && video.currentTime > video.duration / 2")
        return there

    await until(sought, 10, "the video was sought in")
    documents = b.by("file-document")
    for name, content in (("Größe fdp.txt", "Grüße\n".encode()), ("page.html", script)):
        link = documents.filter(has_text=name).get_by_test_id("file-download")
        assert await saved(b, link) == (name, content)
    address = await documents.filter(has_text="page.html").get_by_test_id("file-download").get_attribute("href")
    assert address is not None
    answer = await b.page.request.get(b.url + address)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_what_is_not_taken_is_said_in_words_and_nothing_reaches_the_partner(somebody: Arrive) -> None:
    """A program by the name of a picture, a broken picture, an empty file: each says why; no half message appears."""
    a, b = await in_conversation(somebody, "refusals")
    await choose(
        a, payload("nothing.txt", b"", "text/plain"), payload("holiday.jpg", corpus.linux_program(), "image/jpeg")
    )
    await expect(a.by("tray-item").first).to_contain_text("empty")
    await a.by("tray-send").click()
    await expect(a.by("upload")).to_have_attribute("data-phase", "failed", timeout=20_000)
    await expect(a.by("upload")).to_contain_text("can’t be sent")
    await expect(a.by("upload-retry")).to_have_count(0)
    await a.by("upload-cancel").click()
    await expect(a.by("upload")).to_have_count(0)
    await send(a, payload("cut.jpg", corpus.jpeg_truncated(), "image/jpeg"))
    await expect(a.by("upload")).to_contain_text("broken", timeout=20_000)
    await a.say("Did anything come?")
    await b.hears("Did anything come?")
    await expect(b.by("message")).to_have_count(1)


async def test_paste_and_drop(somebody: Arrive) -> None:
    """A picture from the clipboard and a file dropped on the conversation wait in the tray until they are sent."""
    a, b = await in_conversation(somebody, "dropping")
    for kind, name in (("paste", "shot.png"), ("drop", "dropped.png")):
        await a.page.evaluate(
            """([kind, name, bytes]) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
              if (kind === "paste") {
                const at = document.querySelector('[data-testid="composer"]');
                at.focus();
                at.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
              } else {
                const at = document.querySelector('[data-screen="conversation"]');
                for (const type of ["dragenter", "dragover", "drop"])
                  at.dispatchEvent(new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
              }
            }""",
            [kind, name, list(corpus.png_with_text())],
        )
        await expect(a.by("tray-item")).to_have_count(1)
        await a.by("tray-send").click()
        await expect(a.by("tray")).to_have_count(0)
    await expect(b.by("file-picture")).to_have_count(2, timeout=20_000)


@pytest_asyncio.fixture(loop_scope="session")
async def cut_link(tmp_path: Path) -> AsyncIterator[Link]:
    """A worker that browsers reach by a link that can be cut."""
    port = free_port()
    link = await Link(port).start()
    address = f"http://127.0.0.1:{link.port}"
    service = await Service(tmp_path, VISAVIS_ORIGINS=address, VISAVIS_PORT=str(port)).start(1)
    yield link
    await link.stop()
    await service.stop()


async def test_a_large_file_outlives_a_cut_network(somebody: Arrive, cut_link: Link) -> None:
    """25 MB over a network that is cut twice arrive whole, without starting over."""
    a, b = await in_conversation(somebody, "patience", url=f"http://127.0.0.1:{cut_link.port}")
    content = b"%PDF-1.7\n" + bytes(range(256)) * (25 * MEGABYTE // 256)
    content = content[: 25 * MEGABYTE - 6] + b"%%EOF\n"
    before = cut_link.carried
    cut_link.cut_after(9 * MEGABYTE)
    await send(a, payload("thick.pdf", content, "application/pdf"))
    for more in (8 * MEGABYTE, None):

        async def is_cut() -> bool:
            return cut_link.is_cut

        await until(is_cut, 30, "the network is cut")
        await expect(a.by("upload")).to_have_attribute("data-phase", "paused")
        if more is not None:
            cut_link.cut_after(more)
        cut_link.mend()
    await expect(b.by("file-document")).to_be_visible(timeout=60_000)
    name, arrived = await saved(b, b.by("file-document").get_by_test_id("file-download"))
    assert name == "thick.pdf"
    assert arrived == content
    again = cut_link.carried - before - len(content)
    assert again < 9 * MEGABYTE, f"{again} bytes went twice"


async def test_an_upload_can_be_cancelled(somebody: Arrive, cut_link: Link) -> None:
    """While it is under way it shows how far it is, and one press gives it up."""
    a, b = await in_conversation(somebody, "cancelling", url=f"http://127.0.0.1:{cut_link.port}")
    cut_link.cut_after(5 * MEGABYTE)
    await send(a, payload("thick.pdf", corpus.pdf() + bytes(20 * MEGABYTE), "application/pdf"))
    await expect(a.by("upload")).to_have_attribute("data-phase", "paused", timeout=30_000)
    share = await a.by("upload").get_by_role("progressbar").get_attribute("aria-valuenow")
    assert share is not None
    assert 5 < float(share) < 60
    await a.by("upload-cancel").click()
    await expect(a.by("upload")).to_have_count(0)
    cut_link.mend()
    await a.say("Never mind")
    await b.hears("Never mind")
    await expect(b.by("message")).to_have_count(1)


async def test_it_is_gone_when_its_time_is_over(somebody: Arrive, tmp_path: Path) -> None:
    """What has expired says so on both sides, and its address opens nothing."""
    service = await Service(tmp_path, VISAVIS_FILE_SECONDS="8").start(1)
    try:
        a, b = await in_conversation(somebody, "moments", url=service.workers[0].url)
        await send(a, payload("note.txt", b"words", "text/plain"))
        await expect(b.by("file-document")).to_be_visible()
        address = await b.by("file-download").get_attribute("href")
        assert address is not None
        assert (await b.page.request.get(b.url + address)).status == 200
        for person in (a, b):
            await expect(person.by("file-gone")).to_be_visible(timeout=15_000)
            await expect(person.by("file-download")).to_have_count(0)
        assert (await b.page.request.get(b.url + address)).status == 404
    finally:
        await service.stop()


async def test_taking_back_and_blocking_work_at_once(somebody: Arrive) -> None:
    """A deleted picture is gone for the other; after a block nothing of the conversation opens any more."""
    a, b = await in_conversation(somebody, "regret")
    await send(a, payload("one.txt", b"one", "text/plain"), payload("two.txt", b"two", "text/plain"))
    await expect(b.by("file-document")).to_have_count(2)
    addresses = {}
    for name in ("one", "two"):
        card = b.by("file-document").filter(has_text=f"{name}.txt")
        addresses[name] = b.url + str(await card.get_by_test_id("file-download").get_attribute("href"))
        assert (await b.page.request.get(addresses[name])).status == 200
    await a.message("one.txt").get_by_test_id("file-document").hover()
    await a.page.get_by_role("button", name="Delete").click()
    await a.by("delete-yes").click()
    await expect(b.by("file-document")).to_have_count(1)

    async def gone() -> bool:
        return (await b.page.request.get(addresses["one"])).status == 404

    await until(gone, 5, "the deleted file is gone")
    assert (await b.page.request.get(addresses["two"])).status == 200
    await a.page.get_by_role("button", name="More").click()
    await a.page.get_by_role("menuitem", name="Block").click()
    await a.by("block-yes").click()
    await expect(b.by("ended")).to_be_visible()
    assert (await b.page.request.get(addresses["two"])).status == 404


@pytest_asyncio.fixture(loop_scope="session")
async def speakers(callers_with: Callable[..., Awaitable[Callers]]) -> Callers:
    """People with microphones."""
    return await callers_with()


async def test_a_voice_message_is_recorded_listened_to_sent_and_played(speakers: Callers) -> None:
    """Tapped to record, heard before it is sent; the partner plays it, seeks in it, and hears it faster."""
    a, b = await speakers.pair("voices")
    await a.by("voice-record").click()
    await expect(a.by("voice-stop")).to_be_visible()
    await asyncio.sleep(2.5)
    await a.by("voice-stop").click()
    await expect(a.by("voice-preview")).to_be_visible()
    await a.by("voice-send").click()
    for person in (a, b):
        await expect(person.by("file-audio")).to_be_visible(timeout=20_000)
    await b.by("voice-play").click()
    seek = b.by("voice-seek")

    async def at() -> float:
        return float(await seek.get_attribute("aria-valuenow") or 0)

    most = float(await seek.get_attribute("aria-valuemax") or 0)

    async def moved() -> bool:
        return await at() > most / 10

    await until(moved, 10, "it plays")
    await b.by("voice-speed").click()
    await expect(b.by("voice-speed")).to_contain_text("1.5")
    await seek.focus()
    await b.page.keyboard.press("Home")

    async def back() -> bool:
        return await at() < most / 2

    await until(back, 5, "it was sought in")
    base = await b.page.evaluate("() => performance.getEntriesByType('resource').map(e => e.name)")
    address = next(name for name in reversed(base) if re.search(r"/files/.*/main$", name))
    sound = await (await b.page.request.get(address)).body()
    with av.open(io.BytesIO(sound)) as container:
        assert container.duration is not None
        assert 1.5 < container.duration / 1_000_000 < 5
        assert not {key.lower() for key in container.metadata} & {"location", "title", "comment"}


async def test_recording_can_be_given_up(speakers: Callers) -> None:
    """Cancelled, nothing is sent and the microphone is let go."""
    a = await speakers.arrive(RED)
    b = await speakers.arrive(BLUE)
    for person in (a, b):
        await person.enter("silence")
    await meet(a, b)
    await a.by("voice-record").click()
    await expect(a.by("voice-cancel")).to_be_visible()
    await a.by("voice-cancel").click()
    await expect(a.by("voice-record")).to_be_visible()
    await a.say("Nothing")
    await b.hears("Nothing")
    await expect(b.by("message")).to_have_count(1)


async def test_without_a_microphone_it_says_why(speakers: Callers) -> None:
    """Refused by the browser's question: words, and a way on."""
    a = await speakers.arrive(RED, permissions=())
    b = await speakers.arrive(BLUE)
    for person in (a, b):
        await person.enter("mute")
    await meet(a, b)
    with contextlib.suppress(Exception):
        await a.context.clear_permissions()
    await a.by("voice-record").click()
    await expect(a.page.get_by_text("microphone", exact=False).first).to_be_visible()
    await a.say("I will write instead")
    await b.hears("I will write instead")

/**
 * Peer connections and devices for tests: what a browser promises, without sound or pictures. Two connections meet if
 * each knows the other's description of this generation and a candidate of it; whoever sends is written down with how
 * much of the picture could be seen.
 */
import type { Env, MediaEnv } from "./env";

interface Clock {
  readonly now: number;
  after(ms: number, run: () => void): () => void;
}

type Listener = (event: never) => void;

class Target {
  #listeners = new Map<string, Listener[]>();
  addEventListener(name: string, listener: Listener): void {
    this.#listeners.set(name, [...(this.#listeners.get(name) ?? []), listener]);
  }
  dispatch(name: string, event: object = {}): void {
    for (const listener of this.#listeners.get(name) ?? []) listener(event as never);
  }
}

class FakeTrack extends Target {
  enabled = true;
  muted = true;
  readyState: "live" | "ended" = "live";
  readonly kind: "audio" | "video";
  readonly deviceId: string;
  constructor(kind: "audio" | "video", deviceId = "") {
    super();
    this.kind = kind;
    this.deviceId = deviceId;
  }
  getSettings() {
    return { deviceId: this.deviceId, ...(this.kind === "video" ? { width: 640, height: 480 } : {}) };
  }
  /** Further lights of the same device, which go out by themselves. */
  readonly clones: FakeTrack[] = [];
  clone(): FakeTrack {
    const copy = new FakeTrack(this.kind, this.deviceId);
    this.clones.push(copy);
    return copy;
  }
  stop(): void {
    this.readyState = "ended";
  }
  /** Somebody pulls the plug. */
  unplug(): void {
    this.readyState = "ended";
    this.dispatch("ended");
  }
}

class FakeStream {
  readonly #tracks: readonly FakeTrack[];
  constructor(tracks: readonly FakeTrack[]) {
    this.#tracks = tracks;
  }
  getTracks = () => [...this.#tracks];
  getAudioTracks = () => this.#tracks.filter(({ kind }) => kind === "audio");
  getVideoTracks = () => this.#tracks.filter(({ kind }) => kind === "video");
}

type Encoding = Record<string, unknown>;

class FakeSender {
  track: FakeTrack | null = null;
  encodings: Encoding[];
  readonly #owner: FakePeer;
  constructor(owner: FakePeer, encodings: Encoding[]) {
    this.#owner = owner;
    this.encodings = encodings;
  }
  getParameters = () => ({ encodings: this.encodings.map((encoding) => ({ ...encoding })) });
  async setParameters({ encodings }: { encodings: Encoding[] }): Promise<void> {
    await Promise.resolve();
    if (this.#owner.world.refusesParameters) throw new Error("InvalidModificationError");
    this.encodings = encodings;
    this.#owner.witness();
  }
  async replaceTrack(track: FakeTrack | null): Promise<void> {
    await Promise.resolve();
    this.track = track;
    this.#owner.witness();
  }
}

class FakeTransceiver {
  mid: string | null = null;
  currentDirection: string | null = null;
  direction: string;
  readonly kind: "audio" | "video";
  readonly sender: FakeSender;
  readonly receiver: { readonly track: FakeTrack; getSynchronizationSources(): readonly object[] };
  constructor(owner: FakePeer, kind: "audio" | "video", direction: string, encodings: Encoding[]) {
    this.kind = kind;
    this.direction = direction;
    this.sender = new FakeSender(owner, encodings);
    this.receiver = { track: new FakeTrack(kind), getSynchronizationSources: () => [] };
  }
}

interface Described {
  readonly type: string;
  readonly sdp: string;
}

const sends = (direction: string | null) => direction === "sendrecv" || direction === "sendonly";
const takes = (direction: string | null) => direction === "sendrecv" || direction === "recvonly";
const valueOf = (sdp: string, name: string) => new RegExp(`^a=${name}:(\\S+)`, "m").exec(sdp)?.[1] ?? "";
const directionsOf = (sdp: string) => Array.from(sdp.matchAll(/^a=(sendrecv|sendonly|recvonly|inactive)/gm), ([, word]) => word ?? "");
const kindsOf = (sdp: string) => Array.from(sdp.matchAll(/^m=(audio|video)/gm), ([, word]) => word as "audio" | "video");

/** One frame of a camera or a screen, or its first one after something changed. */
interface Frame {
  readonly at: number;
  readonly part: number;
  readonly scale: number;
}

export class FakePeer extends Target {
  signalingState = "stable";
  connectionState = "new";
  iceGatheringState = "new";
  readonly transceivers: FakeTransceiver[] = [];
  readonly world: FakeMedia;
  configuration: RTCConfiguration;
  #current: { local: Described | null; remote: Described | null } = { local: null, remote: null };
  #pending: { local: Described | null; remote: Described | null } = { local: null, remote: null };
  #made: FakeTransceiver[] = [];
  #ufrag = "";
  #restart = false;
  #version = 0;
  #gathered = "";
  #type = "";
  readonly #heard = new Set<string>();
  packets = 0;
  countedAt = 0;

  constructor(world: FakeMedia, configuration: RTCConfiguration) {
    super();
    this.world = world;
    this.configuration = configuration;
  }

  get localDescription(): Described | null {
    const description = this.#pending.local ?? this.#current.local;
    if (description === null) return null;
    // As in a browser: what was gathered meanwhile stands in it.
    const candidates = this.#gathered === valueOf(description.sdp, "ice-ufrag") ? `a=candidate:${this.#gathered} typ ${this.#type}\r\n` : "";
    return { type: description.type, sdp: description.sdp + candidates };
  }
  get currentLocalDescription(): Described | null {
    return this.#current.local;
  }
  get remoteDescription(): Described | null {
    return this.#pending.remote ?? this.#current.remote;
  }
  getTransceivers = () => [...this.transceivers];
  getReceivers = () => this.transceivers.map(({ receiver }) => receiver);
  setConfiguration(configuration: RTCConfiguration): void {
    this.configuration = configuration;
  }
  addTransceiver(kind: "audio" | "video", { direction, sendEncodings }: { direction: string; sendEncodings?: Encoding[] }): FakeTransceiver {
    const transceiver = new FakeTransceiver(this, kind, direction, sendEncodings ?? [{}]);
    this.transceivers.push(transceiver);
    return transceiver;
  }

  async createOffer({ iceRestart = false } = {}): Promise<Described> {
    await Promise.resolve();
    if (iceRestart) this.#restart = true;
    return { type: "offer", sdp: this.#write(this.transceivers.map(({ direction }) => direction), "0") };
  }

  async createAnswer(): Promise<Described> {
    await Promise.resolve();
    return { type: "answer", sdp: "" };
  }

  #write(directions: readonly string[], answers: string): string {
    if (this.#ufrag === "" || this.#restart) this.#ufrag = this.world.newUfrag();
    this.#restart = false;
    this.#version += 1;
    const parts = directions.map(
      (direction, index) =>
        `m=${this.transceivers[index]?.kind} 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:${index}\r\na=${direction}\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n`,
    );
    return `v=0\r\no=- 1 ${this.#version} IN IP4 127.0.0.1\r\na=ice-ufrag:${this.#ufrag}\r\na=answers:${answers}\r\n${parts.join("")}`;
  }

  async setLocalDescription(description?: { type: string; sdp?: string }): Promise<void> {
    await Promise.resolve();
    if (this.signalingState === "closed") throw new Error("InvalidStateError");
    if (description?.type === "rollback") {
      this.#rollBack();
      return;
    }
    if (description?.type === "pranswer") throw new Error("NotSupportedError");
    if (this.signalingState === "have-remote-offer") {
      const remote = this.#pending.remote?.sdp ?? "";
      const offered = directionsOf(remote);
      const directions = this.transceivers.map(({ direction }, index) => {
        const send = sends(direction) && takes(offered[index] ?? null);
        const take = takes(direction) && sends(offered[index] ?? null);
        return send && take ? "sendrecv" : send ? "sendonly" : take ? "recvonly" : "inactive";
      });
      if (this.#current.remote !== null && valueOf(this.#current.remote.sdp, "ice-ufrag") !== valueOf(remote, "ice-ufrag")) this.#restart = true;
      const sdp = this.#write(directions, valueOf(remote, "ice-ufrag"));
      this.#settle({ type: "answer", sdp }, { type: "offer", sdp: remote }, directions);
    } else {
      const offer = description ?? (await this.createOffer());
      if (this.signalingState !== "stable") throw new Error("InvalidStateError");
      this.signalingState = "have-local-offer";
      for (const [index, transceiver] of this.transceivers.entries()) transceiver.mid = String(index);
      this.#pending = { local: { type: "offer", sdp: offer.sdp ?? "" }, remote: null };
    }
    this.#gather();
  }

  async setRemoteDescription({ type, sdp }: Described): Promise<void> {
    await Promise.resolve();
    if (type === "offer") {
      if (this.signalingState !== "stable") throw new Error("InvalidStateError: roll back first");
      this.signalingState = "have-remote-offer";
      this.#pending = { local: null, remote: { type, sdp } };
      for (const [index, kind] of kindsOf(sdp).entries()) {
        if (this.transceivers[index] !== undefined) continue;
        const made = this.addTransceiver(kind, { direction: "recvonly" });
        made.mid = String(index);
        this.#made.push(made);
      }
    } else {
      if (this.signalingState !== "have-local-offer") throw new Error("InvalidStateError");
      const flip: Record<string, string> = { sendonly: "recvonly", recvonly: "sendonly" };
      const local = this.#pending.local;
      if (local === null) throw new Error("InvalidStateError");
      this.#settle(local, { type, sdp }, directionsOf(sdp).map((word) => flip[word] ?? word));
    }
    for (const { receiver } of this.transceivers) this.dispatch("track", { track: receiver.track });
    this.#hear(sdp);
  }

  #settle(local: Described, remote: Described, directions: readonly string[]): void {
    this.#current = { local, remote };
    this.#pending = { local: null, remote: null };
    this.#made = [];
    for (const [index, transceiver] of this.transceivers.entries()) transceiver.currentDirection = directions[index] ?? null;
    this.signalingState = "stable";
    this.witness();
    this.world.connect();
  }

  #rollBack(): void {
    this.signalingState = "stable";
    this.#pending = { local: null, remote: null };
    this.#ufrag = this.#current.local === null ? "" : valueOf(this.#current.local.sdp, "ice-ufrag");
    this.#made = [];
  }

  #gather(): void {
    const ufrag = this.#ufrag;
    if (this.#gathered === ufrag) return;
    this.iceGatheringState = "gathering";
    this.world.clock.after(30, () => {
      if (this.signalingState === "closed" || this.#ufrag !== ufrag) return;
      this.#gathered = ufrag;
      this.iceGatheringState = "complete";
      this.#type = this.configuration.iceTransportPolicy === "relay" ? "relay" : "host";
      this.dispatch("icecandidate", {
        candidate: { candidate: `candidate:${ufrag} typ ${this.#type}`, sdpMid: "0", sdpMLineIndex: 0, usernameFragment: ufrag },
      });
      this.dispatch("icegatheringstatechange");
    });
  }

  async addIceCandidate({ candidate }: { candidate: string }): Promise<void> {
    await Promise.resolve();
    if (this.remoteDescription === null) throw new Error("InvalidStateError");
    this.#hear(candidate);
    this.world.connect();
  }

  #hear(text: string): void {
    for (const [, ufrag] of text.matchAll(/candidate:(\S+)/g)) this.#heard.add(ufrag ?? "");
    this.world.connect();
  }

  /** The generation that both its descriptions name and of which a candidate is known; null if not yet. */
  get meeting(): { readonly mine: string; readonly theirs: string } | null {
    if (this.signalingState !== "stable" || this.#current.local === null || this.#current.remote === null) return null;
    const mine = valueOf(this.#current.local.sdp, "ice-ufrag");
    const theirs = valueOf(this.#current.remote.sdp, "ice-ufrag");
    return this.#heard.has(theirs) ? { mine, theirs } : null;
  }

  become(state: string): void {
    if (this.connectionState === state || this.connectionState === "closed") return;
    this.connectionState = state;
    this.countedAt = this.world.clock.now;
    this.dispatch("connectionstatechange");
    this.witness();
    if (state !== "connected") return;
    for (const [index, { receiver }] of this.transceivers.entries()) {
      if (this.world.partnerOf(this)?.sending(index) === true && receiver.track.muted) {
        receiver.track.muted = false;
        receiver.track.dispatch("unmute");
      }
    }
  }

  sending(part: number): boolean {
    const transceiver = this.transceivers[part];
    return transceiver !== undefined && transceiver.sender.track?.readyState === "live" && sends(transceiver.currentDirection);
  }

  /** Writes down what leaves right now. */
  witness(): void {
    if (this.connectionState !== "connected") return;
    for (const [part, { kind, sender }] of this.transceivers.entries()) {
      const [encoding] = sender.encodings;
      if (kind !== "video" || !this.sending(part) || encoding?.active === false) continue;
      this.world.frames.push({ at: this.world.clock.now, part, scale: Number(encoding?.scaleResolutionDownBy ?? 1) });
    }
  }

  async getStats(): Promise<Map<string, object>> {
    await Promise.resolve();
    const { now } = this.world.clock;
    const partner = this.world.partnerOf(this);
    if (this.connectionState === "connected" && partner !== null && this.world.carries(this)) {
      this.packets += partner.sending(0) ? Math.round((now - this.countedAt) / 20) : 0;
    }
    this.countedAt = now;
    return new Map<string, object>([
      ["I", { id: "I", type: "inbound-rtp", kind: "audio", packetsReceived: this.packets, packetsLost: 0, bytesReceived: this.packets * 80, jitter: 0.002 }],
      ["T", { id: "T", type: "transport", selectedCandidatePairId: "P" }],
      ["P", { id: "P", type: "candidate-pair", localCandidateId: "L", currentRoundTripTime: 0.04 }],
      ["L", { id: "L", type: "local-candidate", candidateType: "relay", protocol: "udp" }],
    ]);
  }

  close(): void {
    this.signalingState = "closed";
    this.connectionState = "closed";
  }
}

/** The air between all peer connections of a test. */
export class FakeMedia {
  readonly clock: Clock;
  readonly peers: FakePeer[] = [];
  readonly frames: Frame[] = [];
  refusesParameters = false;
  /** No new path comes about. */
  dark = false;
  /** Generations that have found a path, and those whose path was cut. */
  readonly #up = new Set<string>();
  readonly #cut = new Set<string>();
  #ufrags = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  newUfrag(): string {
    return `ufrag${(this.#ufrags += 1)}`;
  }

  partnerOf(peer: FakePeer): FakePeer | null {
    const { meeting } = peer;
    if (meeting === null) return null;
    const met = (other: FakePeer) => other !== peer && other.meeting?.mine === meeting.theirs && other.meeting.theirs === meeting.mine;
    return this.peers.find(met) ?? null;
  }

  carries(peer: FakePeer): boolean {
    return peer.meeting !== null && this.#up.has(peer.meeting.mine) && !this.#cut.has(peer.meeting.mine) && this.partnerOf(peer)?.connectionState !== "closed";
  }

  connect(): void {
    this.clock.after(20, () => {
      if (this.dark) return;
      for (const peer of this.peers) {
        if (peer.meeting === null || this.partnerOf(peer) === null || this.#cut.has(peer.meeting.mine)) continue;
        this.#up.add(peer.meeting.mine);
        peer.become("connected");
      }
    });
  }

  /** Every path there is now goes dead; nobody is told. */
  cut(): void {
    for (const { meeting } of this.peers) {
      if (meeting === null) continue;
      this.#cut.add(meeting.mine);
      this.#cut.add(meeting.theirs);
    }
  }
}

/** The devices of one browser. */
export class FakeDevices {
  readonly all = [
    { kind: "audioinput", deviceId: "mic-1", label: "First microphone" },
    { kind: "audioinput", deviceId: "mic-2", label: "Second microphone" },
    { kind: "videoinput", deviceId: "cam-1", label: "Camera" },
  ];
  /** Names of the errors that opening each kind ends in. */
  readonly errors: { microphone?: string; camera?: string; screen?: string } = {};
  permission: PermissionState | null = "granted";
  missing: MediaEnv["missing"] = null;
  readonly opened: FakeTrack[] = [];
  readonly asked: MediaStreamConstraints[] = [];
  readonly peers: FakePeer[] = [];
  readonly listeners: (() => void)[] = [];
  /** Everything that was recorded, with what was asked for; `canRecord` false is a browser that cannot. */
  readonly recorded: { readonly track: FakeTrack; readonly types: readonly string[]; stopped: boolean }[] = [];
  canRecord = true;
  /** How long the browser takes, or the guest to answer it. */
  patience = 20;

  /** The lights that are on. */
  get live(): string[] {
    return this.opened.filter(({ readyState }) => readyState === "live").map(({ deviceId }) => deviceId);
  }

  change(): void {
    for (const listener of this.listeners) listener();
  }

  env(world: FakeMedia, alive: () => boolean): Env["media"] {
    const fail = (name: string) => Object.assign(new Error(name), { name });
    const open = (kind: "audio" | "video", id: string) => {
      const track = new FakeTrack(kind, id);
      this.opened.push(track);
      return track;
    };
    const wait = () => new Promise<void>((resolve) => void world.clock.after(this.patience, resolve));
    const idOf = (constraints: MediaTrackConstraints, kind: string) => {
      const { ideal } = (constraints.deviceId ?? {}) as { ideal?: string };
      const there = this.all.filter((device) => device.kind === kind);
      return (there.find(({ deviceId }) => deviceId === ideal) ?? there[0])?.deviceId;
    };
    return {
      missing: this.missing,
      canCall: true,
      canShareScreen: true,
      canChooseSpeaker: false,
      open: async (constraints) => {
        this.asked.push(constraints);
        await wait();
        const tracks: FakeTrack[] = [];
        const { microphone, camera } = this.errors;
        if (constraints.audio !== undefined && microphone !== undefined) throw fail(microphone);
        if (constraints.video !== undefined && camera !== undefined) throw fail(camera);
        for (const kind of ["audio", "video"] as const) {
          if (constraints[kind] === undefined) continue;
          const id = idOf(constraints[kind] as MediaTrackConstraints, `${kind}input`);
          if (id === undefined) throw fail("NotFoundError");
          tracks.push(open(kind, id));
        }
        return new FakeStream(tracks) as unknown as MediaStream;
      },
      openScreen: async () => {
        await wait();
        if (this.errors.screen !== undefined) throw fail(this.errors.screen);
        return new FakeStream([open("video", "screen"), open("audio", "screen")]) as unknown as MediaStream;
      },
      list: () => Promise.resolve(this.all as unknown as MediaDeviceInfo[]),
      onDevices: (listener) => void this.listeners.push(listener),
      permission: () => Promise.resolve(this.permission),
      stream: (tracks) => new FakeStream(tracks as unknown as FakeTrack[]) as unknown as MediaStream,
      meter: () => ({ level: () => 0.5, close: () => undefined }),
      wake: () => undefined,
      record: (track, types) => {
        if (!this.canRecord) throw fail("NotSupportedError");
        const recording = { track: track as unknown as FakeTrack, types, stopped: false };
        this.recorded.push(recording);
        return {
          stop: () => {
            recording.stopped = true;
            return Promise.resolve(new Blob(["a voice"], { type: "audio/webm;codecs=opus" }));
          },
        };
      },
      peer: (configuration) => {
        const peer = new FakePeer(world, configuration);
        if (!alive()) throw new Error("the page is gone");
        world.peers.push(peer);
        this.peers.push(peer);
        return peer as unknown as RTCPeerConnection;
      },
      codecs: () => [],
    };
  }
}

// Written by `python -m visavis contract`. Do not edit.

export const CONTRACT = "bd683c13b0ef";
export const RULES_VERSION = 1;
export const MAX_FILE_NAME = 120;
export const MAX_ICE_SERVERS = 4;
export const MAX_INTEREST = 40;
export const MAX_INTERESTS = 10;
export const MAX_LANGUAGES = 8;
export const MAX_REPORTED_FILES = 10;
export const MAX_REPORTED_MESSAGES = 20;
export const MAX_REPORT_WORDS = 1000;
export const MAX_SDP = 32768;
export const MAX_TEXT = 4000;

export type FileKind = "audio" | "document" | "picture" | "video" | "voice";

export type Mode = "text" | "video" | "voice";

export type PartnerState = "away" | "here";

export type ReportReason = "harassment" | "hate" | "minor" | "other" | "sexual" | "spam" | "violence";

export type Body = TextBody | FileBody | ReactionBody | DeletionBody;

export const ERROR_CODES = ["bad_request", "unknown_event", "binary_refused", "too_large", "rate_limited", "address_full", "token_invalid", "session_expired", "stale_client", "birth_date_needed", "under_age", "rules_not_accepted", "origin_refused", "not_in_conversation", "in_conversation", "mode_unavailable", "no_such_call", "not_agreed", "direct_needed", "description_refused", "recording_unavailable", "no_such_file", "file_empty", "file_too_large", "too_many_files", "kind_refused", "file_unreadable", "picture_too_large", "file_infected", "offset_mismatch", "storage_full", "not_found", "method_not_allowed", "busy", "unavailable", "internal"] as const;
export type ErrorCode = (typeof ERROR_CODES)[number];

/** What a client presents when it connects (Socket.IO `auth`). */
export interface Connect {
  readonly token: string;
  readonly contract: string;
  readonly claim?: string | null;
}

/** Look for a stranger. Asked again while searching, it replaces the search and keeps the place in time. */
export interface FindMatch {
  readonly mode: "text" | "video" | "voice";
  readonly interests?: readonly string[];
  readonly languages?: readonly string[];
}

/** From `after_ms` of waiting on, whom the search accepts. */
export interface SearchStep {
  readonly afterMs: number;
  readonly accepts: "anyone" | "interests" | "language";
}

/** The search runs: since when, and how it widens. */
export interface Searching {
  readonly since: number;
  readonly steps: readonly SearchStep[];
}

/** Stop looking. Nothing happens if no search runs. */
export interface CancelMatch {
}

/** It was done; there is nothing to say about it. */
export interface Done {
}

/** Words, perhaps in reply to an earlier message. */
export interface TextBody {
  readonly kind: "text";
  readonly text: string;
  readonly replyTo?: string | null;
}

/** A file that was uploaded and found good, by its `seal`, perhaps with words. */
export interface FileBody {
  readonly kind: "file";
  readonly seal: string;
  readonly text?: string;
  readonly replyTo?: string | null;
}

/** An emoji on a message; none takes the reaction back. */
export interface ReactionBody {
  readonly kind: "reaction";
  readonly target: string;
  readonly emoji: string | null;
}

/** Take back one's own message on both sides. */
export interface DeletionBody {
  readonly kind: "deletion";
  readonly target: string;
}

/** Say something. The same id and sequence number may be sent again until its receipt comes. */
export interface SendMessage {
  readonly conversationId: string;
  readonly id: string;
  readonly seq: number;
  readonly body: TextBody | FileBody | ReactionBody | DeletionBody;
}

/** The server passed it on. Delivered is for the partner's client to say. */
export interface Accepted {
  readonly at: number;
}

/** Everything up to these sequence numbers has arrived here, and has been seen. */
export interface SendReceipt {
  readonly conversationId: string;
  readonly delivered: number;
  readonly read: number;
}

/** Typing began or stopped. */
export interface SendTyping {
  readonly conversationId: string;
  readonly typing: boolean;
}

/** Leave for good. Leaving twice does no harm. */
export interface Leave {
  readonly conversationId: string;
}

/** Ask for the address of a file of this conversation, also after it ended, until one leaves it. */
export interface OpenFile {
  readonly conversationId: string;
  readonly fileId: string;
}

/** Where a file can be fetched for a while, by this guest: `{base}/main`, `{base}/thumb`, `{base}/download`. The address holds as long as the guest is a member of the conversation and the file is there. */
export interface FileAddress {
  readonly base: string;
  readonly expiresInMs: number;
}

/** What a member sends of what was agreed: told to the other side, so that silence explains itself. */
export interface Media {
  readonly microphone?: boolean;
  readonly camera?: boolean;
  readonly screen?: boolean;
}

/** Ask the partner to a call. If the partner has just asked as well, the call begins. */
export interface InviteToCall {
  readonly conversationId: string;
  readonly rung: "blurred" | "clear" | "text" | "voice";
  readonly direct?: boolean;
  readonly media?: Media;
}

/** One member's part in a call: what they agree to, and what they send. */
export interface Party {
  readonly rung: "blurred" | "clear" | "text" | "voice";
  readonly direct: boolean;
  readonly recording: boolean;
  readonly media: Media;
}

/** A recording both agreed to. `starting`: the recorder is on its way; offer it one's media already. */
export interface Recording {
  readonly id: string;
  readonly phase: "on" | "starting";
}

/** As RTCIceServer of the browser. */
export interface IceServer {
  readonly urls: readonly string[];
  readonly username: string;
  readonly credential: string;
}

/** Relays with credentials of this guest alone. None of them: there is no relay, and calls are direct. */
export interface IceServers {
  readonly servers: readonly IceServer[];
  readonly expiresInMs: number;
}

/** A call as one member sees it. `ringing`: one has invited, the other has not answered. `rung` and `direct` are what both agree to. Media may flow once `open`; below the rung `blurred`, no video; until `direct`, relayed candidates only. Who invites may offer while it rings; the answer waits until the call is open. */
export interface Call {
  readonly id: string;
  readonly phase: "active" | "ringing";
  readonly caller: number | null;
  readonly rung: "blurred" | "clear" | "text" | "voice";
  readonly direct: boolean;
  readonly open: boolean;
  readonly polite: boolean;
  readonly mine: Party;
  readonly theirs: Party;
  readonly recording: Recording | null;
  readonly ice: IceServers;
}

/** How the last call ended. `by` is who ended it, where somebody did. `hung_up`; `declined`: by who was invited; `cancelled`: by who invited; `missed`: nobody answered in time; `failed`: no connection came about. */
export interface CallOver {
  readonly id: string;
  readonly reason: "cancelled" | "declined" | "failed" | "hung_up" | "missed";
  readonly by: number | null;
  readonly caller: number | null;
  readonly video: boolean;
}

/** How the conversation's call stands: replaces what was known, if `version` is newer. */
export interface CallState {
  readonly conversationId: string;
  readonly version: number;
  readonly call: Call | null;
  readonly over: CallOver | null;
}

/** Take the partner's invitation, perhaps on a lower rung than it asks for. */
export interface AcceptCall {
  readonly conversationId: string;
  readonly callId: string;
  readonly rung: "blurred" | "clear" | "text" | "voice";
  readonly direct?: boolean;
  readonly media?: Media;
}

/** Hang up, decline or take back an invitation, as the call stands. Ending twice does no harm. */
export interface EndCall {
  readonly conversationId: string;
  readonly callId: string;
  readonly reason?: "failed" | "hung_up";
}

/** Change one's own part: what is left out stays. Taking a consent back works at once and for both. */
export interface SetCall {
  readonly conversationId: string;
  readonly callId: string;
  readonly rung?: "blurred" | "clear" | "text" | "voice" | null;
  readonly direct?: boolean | null;
  readonly recording?: boolean | null;
  readonly media?: Media | null;
}

/** Newer credentials for the relay, during a long call. */
export interface RefreshIceServers {
  readonly conversationId: string;
  readonly callId: string;
}

/** A peer connection was made, or wants to know whether the other one still is. */
export interface Hello {
  readonly kind: "hello";
}

/** A session description. The server passes on what browsers need of it, and nothing else. */
export interface Description {
  readonly kind: "description";
  readonly type: "answer" | "offer";
  readonly sdp: string;
}

/** An ICE candidate, in the words of the SDP attribute; an empty one is the last. */
export interface Candidate {
  readonly kind: "candidate";
  readonly candidate: string;
  readonly mid?: string | null;
  readonly line?: number | null;
  readonly ufrag?: string | null;
}

/** Pass something on to the partner's peer connection. `session` names this side's peer connection, anew for each that is made; `to` the one it is meant for, none while that is unknown. Candidates that were not agreed to are dropped. */
export interface SendSignal {
  readonly conversationId: string;
  readonly callId: string;
  readonly session: string;
  readonly signal: Hello | Description | Candidate;
  readonly to?: string | null;
}

/** How the call went here, counted without a name: the first connection, a failure, a mended path. */
export interface CallExperience {
  readonly conversationId: string;
  readonly callId: string;
  readonly what: "connected" | "failed" | "restarted";
  readonly path?: "direct" | "relay" | "unknown";
  readonly cause?: "lost" | "media" | "no_candidates" | "no_path" | "other" | null;
  readonly firstFrameMs?: number | null;
}

/** A description of what this side sends to the recorder, with its relayed candidates inside. */
export interface OfferToRecorder {
  readonly conversationId: string;
  readonly recordingId: string;
  readonly session: string;
  readonly sdp: string;
}

/** Never meet the partner of this conversation again. Ends it if it still goes on. */
export interface Block {
  readonly conversationId: string;
}

/** A message the reporter chose to show to moderators, in the reporter's words for it. */
export interface ReportedMessage {
  readonly id: string;
  readonly mine: boolean;
  readonly text: string;
  readonly at: number;
}

/** Tell moderators about the partner of this conversation, during it or up to an hour after it. */
export interface Report {
  readonly conversationId: string;
  readonly reason: "harassment" | "hate" | "minor" | "other" | "sexual" | "spam" | "violence";
  readonly words?: string;
  readonly messages?: readonly ReportedMessage[];
  readonly files?: readonly string[];
}

/** The report was stored for moderators, with as many of the chosen files as were still there. */
export interface Reported {
  readonly reportId: string;
  readonly files: number;
}

/** Ask for a newer token before this one expires. */
export interface RefreshSession {
}

/** A token for the same guest with a new expiry. */
export interface Refreshed {
  readonly token: string;
  readonly expiresAt: number;
}

/** An interest that several people online have picked. */
export interface Popular {
  readonly interest: string;
  readonly guests: number;
}

/** Who is here: pushed when it changed, at most every two seconds. */
export interface LobbyState {
  readonly online: number;
  readonly waiting: number;
  readonly popular: readonly Popular[];
}

/** How a guest appears: a temporary name and a hue in degrees of the colour circle. */
export interface Profile {
  readonly name: string;
  readonly hue: number;
}

/** Another member of the conversation. `away`: the connection dropped, and may come back. */
export interface Partner {
  readonly seat: number;
  readonly profile: Profile;
  readonly state: "away" | "here";
}

/** What two guests have in common: interests rarest first, languages by joint preference. */
export interface Why {
  readonly interests: readonly string[];
  readonly languages: readonly string[];
}

/** A conversation one has a seat in. `claim` is signed by the server; presenting it when connecting restores the seat even after Redis lost everything. */
export interface Conversation {
  readonly id: string;
  readonly mode: "text" | "video" | "voice";
  readonly seat: number;
  readonly partner: Partner;
  readonly why: Why;
  readonly startedAt: number;
  readonly claim: string;
  readonly call: CallState;
}

/** Somebody worth meeting was found. */
export interface MatchFound {
  readonly conversation: Conversation;
}

/** A file as members see it. Where it can be fetched is asked with `file:open`. */
export interface SharedFile {
  readonly id: string;
  readonly kind: "audio" | "document" | "picture" | "video" | "voice";
  readonly name: string;
  readonly type: string;
  readonly bytes: number;
  readonly expiresAt: number;
  readonly width: number | null;
  readonly height: number | null;
  readonly seconds: number | null;
  readonly waveform: string | null;
  readonly blur: string | null;
  readonly thumb: boolean;
}

/** A file, perhaps with words. */
export interface SharedFileBody {
  readonly kind: "file";
  readonly file: SharedFile;
  readonly text: string;
  readonly replyTo: string | null;
}

/** What a partner said. Show in order of `seq`, once for each `id`, and answer with a receipt. With words or a file, whoever said it types no more. */
export interface Message {
  readonly conversationId: string;
  readonly seat: number;
  readonly id: string;
  readonly seq: number;
  readonly body: TextBody | SharedFileBody | ReactionBody | DeletionBody;
  readonly at: number;
}

/** The partner's client has, and has shown, one's items up to these sequence numbers. */
export interface Receipt {
  readonly conversationId: string;
  readonly seat: number;
  readonly delivered: number;
  readonly read: number;
}

/** The partner began or stopped typing. */
export interface Typing {
  readonly conversationId: string;
  readonly seat: number;
  readonly typing: boolean;
}

/** The partner's connection dropped or came back. */
export interface PartnerPresence {
  readonly conversationId: string;
  readonly seat: number;
  readonly state: "away" | "here";
}

/** The conversation is over. `left`: the partner went; `lost`: the partner's connection did not come back. */
export interface Ended {
  readonly conversationId: string;
  readonly reason: "left" | "lost";
}

/** Something from the partner's peer connection `session`. */
export interface Signalled {
  readonly conversationId: string;
  readonly callId: string;
  readonly session: string;
  readonly signal: Hello | Description | Candidate;
  readonly to: string | null;
}

/** The recorder's description, for the peer connection `session`. */
export interface RecorderAnswered {
  readonly conversationId: string;
  readonly recordingId: string;
  readonly session: string;
  readonly sdp: string;
}

/** A recording ended: `saved` until it expires, or not, and why. `full`: as many as this server makes at once run already; `empty`: nothing was recorded; `failed`. */
export interface RecordingOver {
  readonly conversationId: string;
  readonly recordingId: string;
  readonly outcome: "empty" | "failed" | "full" | "saved";
  readonly expiresAt: number | null;
}

/** Where the guest stands, pushed first on every connection: it replaces what the client believed. */
export interface SessionState {
  readonly profile: Profile;
  readonly conversation: Conversation | null;
  readonly lobby: LobbyState;
}

/** The same guest connected elsewhere; this connection ends and must not come back by itself. */
export interface SessionReplaced {
}

/** This worker is about to stop: connect again after `in_ms`. */
export interface SessionMove {
  readonly inMs: number;
}

/** What this server takes. */
export interface FileLimits {
  readonly bytes: number;
  readonly perMinute: number;
  readonly bytesTogether: number;
  readonly seconds: number;
  readonly kinds: readonly ("audio" | "document" | "picture" | "video" | "voice")[];
  readonly chunkBytes: number;
}

/** What a page needs to know before there is a guest. */
export interface ServerInfo {
  readonly lobby: LobbyState;
  readonly minimumAge: number;
  readonly rules: number;
  readonly modes: readonly ("text" | "video" | "voice")[];
  readonly relay: boolean;
  readonly recording: boolean;
  readonly files: FileLimits | null;
  readonly contract: string;
}

/** Ask for a guest: the answers of a first visit, or the `device` token that remembers them. */
export interface CreateGuest {
  readonly birthDate?: string | null;
  readonly rules?: number | null;
  readonly device?: string | null;
}

/** A guest session. `token` is for connecting; `device` remembers this browser's answers and blocks. */
export interface GuestCreated {
  readonly token: string;
  readonly expiresAt: number;
  readonly device: string;
  readonly profile: Profile;
}

/** A recording that can be downloaded by either of its two guests' browsers. */
export interface SavedRecording {
  readonly id: string;
  readonly madeAt: number;
  readonly expiresAt: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** The recordings of this browser, newest first. */
export interface SavedRecordings {
  readonly recordings: readonly SavedRecording[];
}

/** A file is about to be uploaded for a conversation. */
export interface BeginUpload {
  readonly conversationId: string;
  readonly name: string;
  readonly bytes: number;
  readonly voice?: boolean;
}

/** Send the bytes to `url` with the tus protocol 1.0.0 (HEAD, PATCH, DELETE), then ask for its state there. */
export interface UploadBegun {
  readonly fileId: string;
  readonly url: string;
}

/** How an upload stands. Asked while `checking`, the answer waits some seconds for news. `ready`: say it with a FileBody of this `seal`. `refused`: the bytes are gone; `problem` is a code of a refusal. */
export interface UploadState {
  readonly phase: "checking" | "ready" | "refused" | "uploading";
  readonly offset: number;
  readonly problem: string | null;
  readonly limit: number | null;
  readonly seal: string | null;
  readonly file: SharedFile | null;
}

/** Whether the process lives, or is ready for guests, with each part's state. */
export interface Health {
  readonly ok: boolean;
  readonly parts: Readonly<Record<string, boolean>>;
}

/** Why a request was refused; more data may stand beside the code. */
export interface ErrorDetail {
  readonly code: string;
}

/** Every refusal, over HTTP and Socket.IO alike. */
export interface ErrorReply {
  readonly error: ErrorDetail;
}

/** A refusal: its code, and data that depends on it. */
export interface Refusal {
  readonly code: ErrorCode;
  readonly [data: string]: unknown;
}

export type Answer<T> = { readonly ok: T } | { readonly error: Refusal };

export interface ClientToServerEvents {
  "match:find": (request: FindMatch, ack: (answer: Answer<Searching>) => void) => void;
  "match:cancel": (request: CancelMatch, ack: (answer: Answer<Done>) => void) => void;
  "chat:message": (request: SendMessage, ack: (answer: Answer<Accepted>) => void) => void;
  "chat:receipt": (request: SendReceipt, ack: (answer: Answer<Done>) => void) => void;
  "chat:typing": (request: SendTyping, ack: (answer: Answer<Done>) => void) => void;
  "conversation:leave": (request: Leave, ack: (answer: Answer<Done>) => void) => void;
  "file:open": (request: OpenFile, ack: (answer: Answer<FileAddress>) => void) => void;
  "call:invite": (request: InviteToCall, ack: (answer: Answer<CallState>) => void) => void;
  "call:accept": (request: AcceptCall, ack: (answer: Answer<CallState>) => void) => void;
  "call:end": (request: EndCall, ack: (answer: Answer<CallState>) => void) => void;
  "call:set": (request: SetCall, ack: (answer: Answer<CallState>) => void) => void;
  "call:servers": (request: RefreshIceServers, ack: (answer: Answer<IceServers>) => void) => void;
  "call:signal": (request: SendSignal, ack: (answer: Answer<Done>) => void) => void;
  "call:experience": (request: CallExperience, ack: (answer: Answer<Done>) => void) => void;
  "recording:offer": (request: OfferToRecorder, ack: (answer: Answer<Done>) => void) => void;
  "safety:block": (request: Block, ack: (answer: Answer<Done>) => void) => void;
  "safety:report": (request: Report, ack: (answer: Answer<Reported>) => void) => void;
  "session:refresh": (request: RefreshSession, ack: (answer: Answer<Refreshed>) => void) => void;
}

export interface ServerToClientEvents {
  "lobby:state": (push: LobbyState) => void;
  "match:found": (push: MatchFound) => void;
  "chat:message": (push: Message) => void;
  "chat:receipt": (push: Receipt) => void;
  "chat:typing": (push: Typing) => void;
  "conversation:partner": (push: PartnerPresence) => void;
  "conversation:ended": (push: Ended) => void;
  "call:state": (push: CallState) => void;
  "call:signal": (push: Signalled) => void;
  "recording:answer": (push: RecorderAnswered) => void;
  "recording:over": (push: RecordingOver) => void;
  "session:state": (push: SessionState) => void;
  "session:replaced": (push: SessionReplaced) => void;
  "session:move": (push: SessionMove) => void;
}

/** Composition root of the client: builds every view-model and says who hears what. */
import { createCalls } from "./call";
import { createConversation, type Conversation } from "./conversation";
import { createDevices } from "./devices";
import type { Env } from "./env";
import { createFiles } from "./files";
import type { createFlow } from "./flow";
import { newId } from "./id";
import { keepIn } from "./keep";
import { createLobby } from "./lobby";
import type { Moment, Moments, Visavis } from "./model";
import { createRecordings } from "./recordings";
import { createSearch } from "./search";
import { createSession, type Session } from "./session";
import { createSettings } from "./settings";
import { createSharing, type SharingParts } from "./sharing";
import { createConnection } from "./socket";

interface Parts extends SharingParts {
  flow(): Promise<{ readonly createFlow: typeof createFlow }>;
}

/** Not part of the first load: who only writes never needs them. */
const PARTS: Parts = {
  flow: () => import("./flow"),
  uploads: () => import("./uploads"),
  voice: () => import("./voice"),
};

export function createVisavis(env: Env, parts = PARTS): Visavis & Moments {
  const listeners = new Set<(moment: Moment) => void>();
  const moment = (which: Moment) => {
    for (const listener of [...listeners]) listener(which);
  };
  const tab = keepIn(env.sessionStorage);
  const browser = keepIn(env.localStorage);

  const settings = createSettings(env, browser);
  const lobby = createLobby(env, browser);
  const connection = createConnection(env, () => ({ token: session.token(), claim: conversation.claim() }));
  const devices = createDevices(env, { tab, browser });
  const token = () => session.token();
  const conversation: Conversation = createConversation(
    env,
    connection,
    tab,
    moment,
    {
      seated: (seat, anew) => calls.seated(seat, anew),
      unseated: (how) => calls.unseated(how),
    },
    {
      erased: (file, mine) => files.erased(file, mine),
      clock: (at) => files.clock(at),
    },
  );
  const files = createFiles(env, connection, conversation.view, tab, token);
  const calls = createCalls(env, connection, devices, tab, parts.flow, {
    moment,
    note: conversation.note,
    newId: () => newId(env),
  });
  const sharing = createSharing(env, connection, { conversation, files, devices, token, newId: () => newId(env) }, parts);
  const recordings = createRecordings(env, token);
  const search = createSearch(env, connection, lobby, conversation, tab);
  const session: Session = createSession(env, connection, { tab, browser }, {
    info(info) {
      lobby.offers(info);
      files.offers(info.files);
      lobby.here(info.lobby);
    },
    anotherGuest: () => conversation.abandon(),
    copied() {
      conversation.discard();
      search.discard();
    },
  });

  connection.on("lobby:state", (state) => lobby.here(state));
  connection.on("session:state", (state) => {
    lobby.here(state.lobby);
    void conversation.reconcile(state.conversation).then((seated) => search.connected(seated));
  });
  void session.start();

  return {
    session: session.view,
    lobby: lobby.view,
    search: search.view,
    conversation: conversation.view,
    settings: settings.view,
    devices: devices.view,
    level: devices.level,
    call: calls.view,
    recordings: recordings.view,
    enter: session.enter,
    takeBack: session.takeBack,
    setMode: lobby.setMode,
    addInterest: lobby.addInterest,
    removeInterest: lobby.removeInterest,
    setLanguages: lobby.setLanguages,
    find: search.find,
    cancel: search.cancel,
    skip: search.skip,
    leave: conversation.leave,
    close: conversation.close,
    say: conversation.say,
    retry: conversation.retry,
    remove: conversation.remove,
    react: conversation.react,
    setDraft: conversation.setDraft,
    setWatching: conversation.setWatching,
    block: conversation.block,
    report: conversation.report,
    openDevices(what) {
      calls.prepare();
      return devices.open(what);
    },
    closeDevices: devices.close,
    chooseDevice: devices.choose,
    setMicrophone: devices.setMicrophone,
    setCamera: devices.setCamera,
    invite: calls.invite,
    accept: calls.accept,
    endCall: calls.end,
    agree: calls.agree,
    shareScreen: calls.shareScreen,
    stopScreen: calls.stopScreen,
    playSound: calls.playSound,
    dismissProblem: calls.dismissProblem,
    loadRecordings: recordings.load,
    downloadRecording: recordings.download,
    deleteRecording: recordings.remove,
    files: files.view,
    uploads: sharing.uploads,
    checkFile: files.check,
    share: sharing.share,
    cancelUpload: sharing.cancel,
    retryUpload: sharing.retry,
    openFile: files.open,
    fileFailed: files.failed,
    showFile: files.show,
    alwaysShow: files.alwaysShow,
    voice: sharing.voice,
    startVoice: sharing.startVoice,
    stopVoice: sharing.stopVoice,
    cancelVoice: sharing.cancelVoice,
    sendVoice: sharing.sendVoice,
    setSettings: settings.change,
    onMoment(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
  };
}

/** Composition root of the client: builds every view-model and says who hears what. */
import { createConversation } from "./conversation";
import type { Env } from "./env";
import { keepIn } from "./keep";
import { createLobby } from "./lobby";
import type { Moment, Moments, Visavis } from "./model";
import { createSearch } from "./search";
import { createSession, type Session } from "./session";
import { createSettings } from "./settings";
import { createConnection } from "./socket";

export function createVisavis(env: Env): Visavis & Moments {
  const listeners = new Set<(moment: Moment) => void>();
  const moment = (which: Moment) => {
    for (const listener of [...listeners]) listener(which);
  };
  const tab = keepIn(env.sessionStorage);
  const browser = keepIn(env.localStorage);

  const settings = createSettings(env, browser);
  const lobby = createLobby(env, browser);
  const connection = createConnection(env, () => ({ token: session.token(), claim: conversation.claim() }));
  const conversation = createConversation(env, connection, tab, moment);
  const search = createSearch(env, connection, lobby, conversation);
  const session: Session = createSession(env, connection, { tab, browser }, {
    info(info) {
      lobby.offers(info);
      lobby.here(info.lobby);
    },
    anotherGuest: () => conversation.abandon(),
    copied: () => conversation.discard(),
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
    setSettings: settings.change,
    onMoment(listener) {
      listeners.add(listener);
      return () => {
        listeners.delete(listener);
      };
    },
  };
}

// The inspector's page: signs in, keeps the node's stream, shows the view that the address names.
import { Api } from './api.js'
import { createChannelsView } from './channels-view.js'
import { byId } from './dom.js'
import { follow } from './follow.js'
import { Header } from './header.js'
import { listenToKeys } from './keys.js'
import { createNodesView } from './nodes-view.js'
import { createQueriesView } from './queries-view.js'
import { SignIn } from './sign-in.js'
import { StreamView } from './stream-view.js'
import { Tabs } from './tabs.js'
import { createTheme } from './theme.js'
import { WatchView } from './watch-view.js'

/** The node tells something every second. */
const silentMs = 6000
/** So long a tab that nobody looks at keeps its place. */
const hiddenMs = 300_000

/** @type {Api | null} */
let api = null
/** @type {AbortController | null} */
let session = null
/** Null: the tab rests. @type {AbortController | null} */
let watching = null
/** Another token may mean another node's operator: nothing of before is shown. */
const currentApi = () => api ?? new Api('')

const main = byId('main', HTMLElement)
const streamView = new StreamView()
const tabs = new Tabs(byId('tabs', HTMLElement), main, [
  streamView,
  createQueriesView(currentApi),
  createChannelsView(currentApi),
  new WatchView(currentApi),
  createNodesView(currentApi),
])
const header = new Header()
const signIn = new SignIn(enter)
const theme = createTheme(byId('theme', HTMLButtonElement))
const help = byId('help', HTMLDialogElement)

/** @param {string} token */
function enter(token) {
  api = new Api(token)
  session = new AbortController()
  watch(api, session, token)
}

/**
 * @param {Api} from
 * @param {AbortController} within
 * @param {string | null} token that is tried; null: it was taken before
 */
function watch(from, within, token) {
  let tried = token
  watching = new AbortController()
  void follow(
    {
      api: from,
      path: 'v1/inspect/stream',
      silentMs,
      take: ({ event, data }) => {
        if (event === 'overview') {
          header.show(data)
          streamView.takeOverview(data)
        } else if (event === 'commits') streamView.takeCommits(data)
      },
      tell: link => {
        if (link.state === 'refused' && link.refusal.isOfToken) return leave(link.reason)
        if (tried !== null && link.state !== 'connecting') {
          signIn.done(tried)
          tried = null
          byId('app', HTMLElement).hidden = false
          tabs.read()
        }
        header.tell(link)
      },
    },
    AbortSignal.any([within.signal, watching.signal]),
  )
}

/** A tab that is forgotten gives its place on the node to others, and takes one again when it is looked at. */
function restWhenHidden() {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer
  document.addEventListener('visibilitychange', () => {
    clearTimeout(timer)
    if (document.hidden)
      timer = setTimeout(() => {
        watching?.abort()
        watching = null
        tabs.current.hide()
      }, hiddenMs)
    else if (watching === null && session !== null && api !== null) {
      watch(api, session, null)
      tabs.read()
    }
  })
}

/** @param {string | null} problem */
function leave(problem) {
  session?.abort()
  session = null
  api = null
  tabs.current.hide()
  byId('app', HTMLElement).hidden = true
  signIn.ask(problem)
}

byId('sign-out', HTMLButtonElement).addEventListener('click', () => {
  leave(null)
  // Rows that were watched, names, rates: nothing of them stays in the tab.
  location.replace(`${location.pathname}#/stream`)
  location.reload()
})
byId('help-button', HTMLButtonElement).addEventListener('click', () => help.showModal())
byId('skip', HTMLAnchorElement).addEventListener('click', event => {
  event.preventDefault()
  const target = session === null ? byId('token', HTMLInputElement) : main
  target.focus()
})
window.addEventListener('hashchange', () => session !== null && tabs.read())

const whenIn = (/** @type {() => void} */ act) => () => {
  if (session !== null) act()
}
listenToKeys([
  { keys: ['1', '2', '3', '4', '5'], does: 'the views', act: key => session !== null && tabs.go(Number(key) - 1) },
  { keys: [' '], does: 'pause the newest commits, or go on', act: whenIn(() => tabs.current.pause?.()) },
  { keys: ['/'], does: 'search', act: whenIn(() => tabs.current.find?.()) },
  { keys: ['Escape'], does: 'close what is open', act: whenIn(() => tabs.current.escape?.()) },
  { keys: ['t'], does: 'light, dark, or as the system has it', act: theme.next },
  { keys: ['?'], does: 'this list', act: () => help.showModal() },
])

restWhenHidden()
signIn.begin()

// Channels that somebody on this node is in, and who is present in them.
import { el } from './dom.js'
import { count, plural } from './format.js'
import { ListView } from './list-view.js'

/** @typedef {import('../wire.ts').InspectedChannel} InspectedChannel */

const kindOf = (/** @type {InspectedChannel} */ { isPrivate }) => (isPrivate ? 'private' : 'public')
const presentText = (/** @type {InspectedChannel} */ { present, morePresent }) =>
  present === null ? '–' : count(present.length + morePresent)
/** Keys that are shown at most. */
const maxKeys = 200

/** @param {() => import('./api.js').Api} api */
export const createChannelsView = api =>
  new ListView({
    name: 'channels',
    title: 'Channels',
    lead: 'Members are connections of this node. Who is present is known of all nodes together.',
    path: 'v1/inspect/channels',
    api,
    itemsOf: (/** @type {import('../wire.ts').ChannelsPage} */ { channels, more }) => ({ items: channels, more }),
    searched: channel =>
      `${channel.topic} ${kindOf(channel)} ${(channel.present ?? []).map(({ key }) => key).join(' ')}`,
    findTitle: 'Find a topic or who is present',
    table: {
      caption: 'Channels',
      sortedBy: 'Members',
      empty: 'Nobody is in such a channel.',
      nameOf: channel => `${kindOf(channel)} ${channel.topic}`,
      detailOf: presentDetail,
      columns: [
        { title: 'Topic', kind: 'main code', text: ({ topic }) => topic, by: ({ topic }) => topic },
        { title: 'Kind', text: kindOf, by: kindOf },
        { title: 'Members', kind: 'number', text: ({ members }) => count(members), by: ({ members }) => members },
        { title: 'Present', kind: 'number', text: presentText, by: ({ present }) => present?.length ?? -1 },
        {
          title: 'History',
          kind: 'wide',
          text: ({ history }) => history ?? 'none',
          by: ({ history }) => history ?? '',
        },
      ],
    },
  })

/** @param {InspectedChannel} channel */
function presentDetail({ present, morePresent }) {
  if (present === null)
    return el('p', { class: 'soft' }, 'Nobody on this node follows who is present, so it keeps no list.')
  if (present.length === 0) return el('p', { class: 'soft' }, 'Nobody has said to be present.')
  const chips = present
    .slice(0, maxKeys)
    .map(({ key, connections }) =>
      el(
        'li',
        {},
        el('span', { class: 'code' }, key),
        ...(connections === 1 ? [] : [el('span', { class: 'soft' }, ` ${plural(connections, 'connection')}`)]),
      ),
    )
  const more = present.length - chips.length + morePresent
  if (more > 0) chips.push(el('li', { class: 'soft' }, `and ${count(more)} more`))
  return el('ul', { class: 'chips', 'aria-label': 'Present' }, ...chips)
}

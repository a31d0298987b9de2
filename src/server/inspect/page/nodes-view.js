// Every node of the deployment: which leads, how far behind each is.
import { count, duration } from './format.js'
import { ListView } from './list-view.js'

/** @typedef {import('../wire.ts').InspectedNode} InspectedNode */

/** Behind by more than this, readers notice. */
const slowMs = 2000

/** @param {() => import('./api.js').Api} api */
export const createNodesView = api =>
  new ListView({
    name: 'nodes',
    title: 'Nodes',
    lead: 'The leader reads the slot for all. Lag is from the newest heartbeat that came through the write-ahead log.',
    path: 'v1/inspect/nodes',
    api,
    itemsOf: (/** @type {import('../wire.ts').NodesPage} */ { nodes }) => ({ items: nodes, more: 0 }),
    searched: ({ id, address, release }) => `${id} ${address} ${release}`,
    findTitle: 'Find a node or address',
    table: {
      caption: 'Nodes',
      sortedBy: 'Connections',
      empty: 'No such node.',
      nameOf: ({ id }) => id,
      detailOf: null,
      columns: [
        {
          title: 'Node',
          kind: 'main code',
          text: ({ id, isThis }) => (isThis ? `${id} (this one)` : id),
          by: ({ id }) => id,
        },
        { title: 'Address', kind: 'code', text: ({ address }) => address, by: ({ address }) => address },
        { title: 'Part', text: partOf, by: partOf, tone: ({ leads }) => (leads ? 'good' : null) },
        { title: 'Connections', kind: 'number', text: each => count(each.connections), by: each => each.connections },
        {
          title: 'Lag',
          kind: 'number',
          text: each => duration(each.lagMs),
          by: each => each.lagMs,
          tone: each => (each.lagMs > slowMs ? 'bad' : null),
        },
        { title: 'Release', kind: 'wide', text: ({ release }) => release, by: ({ release }) => release },
      ],
    },
  })

/** @param {InspectedNode} node */
function partOf({ leads }) {
  return leads ? 'leader' : 'follower'
}

// Subscriptions by query, and the audiences that share each.
import { DataTable } from './data-table.js'
import { el } from './dom.js'
import { count, plural } from './format.js'
import { ListView } from './list-view.js'

/** @typedef {import('../wire.ts').InspectedQuery} InspectedQuery */
/** @typedef {import('../wire.ts').InspectedAudience} InspectedAudience */

const isAskedOf = (/** @type {InspectedQuery} */ { audiences }) => audiences.some(audience => audience.isAsked)
const held = (/** @type {InspectedQuery} */ { audiences }) => audiences.filter(({ isHeld }) => isHeld).length
const behind = (/** @type {InspectedQuery} */ { audiences }) => audiences.reduce((sum, each) => sum + each.behind, 0)
const judged = (/** @type {InspectedQuery} */ query) =>
  !isAskedOf(query) ? 'compiled' : query.audiences.every(audience => audience.isAsked) ? 'asked' : 'both'

/** What follows the table's name, as the client wrote it. @param {InspectedQuery} query */
function termsOf({ filter, order, limit }) {
  const terms = [filter, order === null ? null : `order=${order}`, limit === null ? null : `limit=${limit}`]
  return terms.filter(term => term !== null && term !== '').join(' & ') || 'every row'
}

/** @param {() => import('./api.js').Api} api */
export const createQueriesView = api =>
  new ListView({
    name: 'queries',
    title: 'Queries',
    lead: 'Subscribers of one query, role and claims share an audience: each change is judged once for all of them.',
    path: 'v1/inspect/queries',
    api,
    itemsOf: (/** @type {import('../wire.ts').QueriesPage} */ { queries, more }) => ({ items: queries, more }),
    searched: query =>
      `${query.table} ${query.kind} ${termsOf(query)} ${judged(query)} ${query.audiences.map(({ role }) => role).join(' ')}`,
    findTitle: 'Find a table, filter or role',
    table: {
      caption: 'Subscriptions by query',
      sortedBy: 'Subscribers',
      empty: 'Nobody subscribes to such a query.',
      nameOf: ({ number }) => String(number),
      detailOf: queryDetail,
      columns: [
        { title: 'Table', kind: 'main', text: ({ table }) => table, by: ({ table }) => table },
        { title: 'Kind', kind: 'wide', text: ({ kind }) => kind, by: ({ kind }) => kind },
        { title: 'Query', kind: 'code terms', text: termsOf, by: termsOf },
        { title: 'Subscribers', kind: 'number', text: each => count(each.subscribers), by: each => each.subscribers },
        {
          title: 'Audiences',
          kind: 'number',
          text: each => count(each.audiences.length + each.moreAudiences),
          by: each => each.audiences.length + each.moreAudiences,
        },
        { title: 'Judged', text: judged, by: judged, tone: query => (isAskedOf(query) ? 'wait' : null) },
        {
          title: 'Held',
          kind: 'number wide',
          text: each => count(held(each)),
          by: held,
          tone: each => (held(each) > 0 ? 'wait' : null),
        },
        {
          title: 'Behind',
          kind: 'number wide',
          text: each => count(behind(each)),
          by: behind,
          tone: each => (behind(each) > 0 ? 'wait' : null),
        },
      ],
    },
  })

/** @param {InspectedQuery} query */
function queryDetail(query) {
  const { number, columns, audiences, moreAudiences } = query
  const line = el('p', {}, `Query ${number}, columns `, el('code', {}, columns.join(', ') || 'all'))
  const terms = termsOf(query)
  const whole = terms.length > DataTable.maxText ? [el('p', {}, el('code', {}, terms))] : []
  const heads = /** @type {const} */ ([
    ['Role'],
    ['Judged'],
    ['Audiences', 'number'],
    ['Subscribers', 'number'],
    ['Behind', 'number'],
    ['State'],
  ])
  const head = el('tr', {}, ...heads.map(([title, kind = '']) => el('th', { scope: 'col', class: kind }, title)))
  const caption = el('caption', { class: 'unseen' }, `Audiences of query ${number}`)
  const table = el('table', {}, caption, el('thead', {}, head), el('tbody', {}, ...alike(audiences).map(audiencesRow)))
  const more =
    moreAudiences === 0
      ? []
      : [el('p', { class: 'soft' }, `${plural(moreAudiences, 'more audience')}, smaller, not listed.`)]
  return el('div', {}, line, ...whole, table, ...more)
}

/** Those of one role in one state, together: often there is one for each user. @param {readonly InspectedAudience[]} audiences */
function alike(audiences) {
  const groups = Map.groupBy(audiences, ({ role, isAsked, isHeld, behind }) =>
    JSON.stringify([role, isAsked, isHeld, behind > 0]),
  )
  return [...groups.values()].map(group => ({
    .../** @type {InspectedAudience} */ (group[0]),
    audiences: group.length,
    subscribers: group.reduce((sum, each) => sum + each.subscribers, 0),
    behind: group.reduce((sum, each) => sum + each.behind, 0),
  }))
}

/** @param {ReturnType<typeof alike>[number]} group */
function audiencesRow({ role, isAsked, audiences, subscribers, behind, isHeld }) {
  const state = isHeld
    ? 'held: waits for rows that a grant or revocation names'
    : behind > 0
      ? 'catching up'
      : 'at the head'
  return el(
    'tr',
    {},
    el('td', { class: 'code' }, role),
    el('td', isAsked ? { 'data-tone': 'wait' } : {}, isAsked ? 'asked of Postgres' : 'compiled'),
    el('td', { class: 'number' }, count(audiences)),
    el('td', { class: 'number' }, count(subscribers)),
    el('td', { class: 'number' }, count(behind)),
    el('td', isHeld || behind > 0 ? { 'data-tone': 'wait' } : {}, state),
  )
}

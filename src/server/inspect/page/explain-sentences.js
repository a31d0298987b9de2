// What `GET /v1/explain` answers about one row, in sentences. Pure.

/** @typedef {import('../../explain/explanation.ts').Explanation} Explanation */
/** @typedef {import('../../explain/explanation.ts').PolicyAnswer} PolicyAnswer */
/** @typedef {import('../../explain/explanation.ts').MembershipLook} MembershipLook */

/**
 * @typedef {object} Sentences
 * @property {'good' | 'bad' | 'wait'} tone
 * @property {string} verdict
 * @property {readonly string[]} reasons
 * @property {readonly { readonly text: string, readonly run: string | null }[]} problems what to mend, with the command
 */

/** @param {Explanation} explanation of a row @returns {Sentences} */
export function explainSentences({ table, role, row, problems }) {
  if (row === null)
    return { tone: 'wait', verdict: 'No key was given.', reasons: [], problems: problems.map(problemOf) }
  const key = Object.entries(row.key)
    .map(([column, value]) => `${column}=${value}`)
    .join(', ')
  const name = `${table} ${key}`
  // Where policies decided, they say it better.
  const reasons = row.found && (row.policies.length === 0 || row.code !== null) ? [sentenceOf(row.because)] : []
  for (const policy of row.policies) reasons.push(...policySentences(policy))
  if (row.found) reasons.push(postgresSentence(row))
  const rest = { reasons: reasons.filter(text => text !== ''), problems: problems.map(problemOf) }
  if (!row.found) return { tone: 'wait', verdict: `There is no row ${name}, for anybody.`, ...rest }
  if (row.code !== null) return { tone: 'bad', verdict: `Nothing of it is shown to this user: ${row.code}.`, ...rest }
  if (row.visible === null)
    return { tone: 'wait', verdict: `Only Postgres can tell whether ${role} sees ${name}.`, ...rest }
  return row.visible
    ? { tone: 'good', verdict: `${name} is visible to this user.`, ...rest }
    : { tone: 'bad', verdict: `${name} is hidden from this user.`, ...rest }
}

/** @param {string} because as `tidegate explain` says it: `hidden: no policy ...` */
function sentenceOf(because) {
  if (because === '') return ''
  const text = `${because[0]?.toUpperCase()}${because.slice(1)}`
  return /[.!?]$/.test(text) ? text : `${text}.`
}

const answers = /** @type {Readonly<Record<PolicyAnswer['answer'], string>>} */ ({
  true: 'lets it through',
  false: 'does not let it through',
  unknown: 'does not let it through: a NULL decides',
  asked: 'is asked of Postgres',
  refused: 'is refused',
  invalid: 'does not fit these claims',
  failed: 'cannot be judged for this row',
})

/** @param {PolicyAnswer} policy */
function policySentences({ name, kind, answer, reason, memberships }) {
  const why = reason === null ? '' : `: ${reason}`
  return [`The ${kind} policy "${name}" ${answers[answer]}${why}.`, ...memberships.map(look => lookSentence(look))]
}

/** @param {MembershipLook} look @returns {string} */
function lookSentence({ table, key, negated, rows, candidates, through }) {
  const where = Object.entries(key).map(([column, value]) => `${column} = ${value ?? 'NULL'}`)
  const under = where.length === 0 ? '' : ` where ${where.join(' and ')}`
  const found =
    rows > 0
      ? `finds ${rows === 1 ? '1 row' : `${rows} rows`}`
      : candidates === 0
        ? 'finds none'
        : `finds ${candidates === 1 ? '1 row, which does' : `${candidates} rows, which do`} not satisfy the rest`
  const meaning = negated && rows > 0 ? ', which speaks against it' : ''
  const chain = through.flat().map(look => lookSentence(look))
  return [`It looks in ${table}${under} and ${found}${meaning}.`, ...chain].join(' ')
}

/** @param {NonNullable<Explanation['row']>} row */
function postgresSentence({ postgres, agrees }) {
  if (postgres.visible === null) return postgres.sqlState === null ? '' : `Postgres itself raises ${postgres.sqlState}.`
  const says = postgres.visible ? 'returns the row' : 'returns no row'
  if (agrees === false) return `Postgres disagrees: a SELECT ${says}. That is a fault of Tidegate, and worth a report.`
  return agrees === null ? `A SELECT as this user ${says}.` : `Postgres agrees: a SELECT as this user ${says}.`
}

/** @param {Explanation['problems'][number]} problem */
const problemOf = ({ code, message, run }) => ({ text: `${code}: ${message}`, run })
